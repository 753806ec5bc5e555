"""The page of `video-gen evaluate drift`: figures and curves by frame index, speeds, and the videos themselves."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.evaluation import report
from video_gen.evaluation.drift import LongVideos

SHOWN = 4
"""Videos per set on the page."""
COLUMNS = 16
"""Frames of a video on the contact sheet."""


def write_drift_report(folder: Path, found: dict[str, Any], sets: dict[str, LongVideos], fps: float) -> Path:
    """`drift.html` with everything in it, and beside it each set's contact sheet and first videos as mp4.

    Args:
        found: what `evaluate.evaluate_drift` returns.
        sets: the videos by name: of each model, and the floors.
    """
    sections = [report.Section("Figures by frame index", _tables(found)), report.Section("Curves", _charts(found))]
    for name, long in sets.items():
        sections.append(report.Section(f"Videos: {name}", _gallery(folder, name, long, fps)))
    n, last = found["videos"], found["indices"][-1]
    intro = (
        f"{n} videos of the world '{found['world']}' to frame {last}, in windows of 17 frames that end at each index. "
        "`true` is the world itself with the same captions, `vae` is what the VAE makes of it: no model can do better."
    )
    report.write_report(folder / "drift.html", "Drift", intro, sections)
    return folder / "drift.html"


def _tables(found: dict[str, Any]) -> str:
    head = ["", *map(str, found["indices"])]
    names = {figure: None for curves in found["curves"].values() for figure in curves}
    tables = []
    for figure in names:
        rows = [[name, *curves[figure]] for name, curves in found["curves"].items() if figure in curves]
        tables.append(f"<h3>{figure}</h3>" + report.table(head, rows))
    return "".join(tables)


def _charts(found: dict[str, Any]) -> str:
    charts = []
    for figure in {figure: None for curves in found["curves"].values() for figure in curves}:
        lines = {n: list(zip(found["indices"], c[figure])) for n, c in found["curves"].items() if figure in c}
        charts.append(report.chart(f"{figure} by frame", lines, log_x=True))
    charts.append(report.chart(f"share of videos by {found['speed_of']} at the last index", found["speeds"]))
    return "".join(charts)


def _gallery(folder: Path, name: str, long: LongVideos, fps: float) -> str:
    items, height = [], long.videos.shape[2]
    enlarge = max(1, 128 // height)
    for index, (caption, video) in enumerate(zip(long.captions, long.videos[:SHOWN])):
        path = folder / f"{name}_{index}.mp4"
        write_video(
            path, np.kron(video, np.ones((1, enlarge, enlarge, 1), np.uint8)), fps, metadata={"prompt": caption}
        )
        items.append((path, caption))
    sheet = contact_sheet(list(long.videos[: 2 * SHOWN]), columns=COLUMNS, scale=max(1, 64 // height))
    Image.fromarray(sheet).save(folder / f"{name}.png")
    return report.videos(items) + report.picture(sheet)
