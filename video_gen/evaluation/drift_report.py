"""The page of `video-gen evaluate drift`: the videos themselves, then figures and curves by frame index, and speeds."""

from pathlib import Path
from typing import Any

from PIL import Image

from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.drift import LongVideos
from video_gen.evaluation.words import SETS, Words, words_of

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
    n, last = found["videos"], found["indices"][-1]
    sections = []
    for name, long in sets.items():
        title = f"Videos of {last + 1} frames: {SETS.get(name, name)}"
        sections.append(report.Section(title, _gallery(folder, name, long, fps)))
    sections.append(report.Section("How it goes on", f"<div class='charts'>{_charts(found)}</div>", FLOORS))
    sections.append(report.Section("Figures by frame", _tables(found)))
    intro = (
        f"What becomes of long videos of the world '{found['world']}': {n} from captions, to frame {last}, measured in windows "
        f"of 17 frames that end at each index. {' '.join(found.get('notes', ()))}"
    )
    report.write_report(folder / "drift.html", "Long videos", intro, sections)
    return folder / "drift.html"


FLOORS = (
    "Beside each model, what can be had at best: true clips of the world with the same captions, as they are and after the "
    "model's VAE."
)


def _tables(found: dict[str, Any]) -> str:
    head = ["", *map(str, found["indices"])]
    tables = []
    for figure in _figures(found):
        words = words_of(figure)
        rows = [
            [SETS.get(name, name), *map(words.say, curves[figure])]
            for name, curves in found["curves"].items()
            if figure in curves
        ]
        tables.append(f"<div><h3>{words.name}<small>{words.note}</small></h3>{report.table(head, rows)}</div>")
    return f"<div class='charts'>{''.join(tables)}</div>"


def _charts(found: dict[str, Any]) -> str:
    charts = []
    for figure in _figures(found):
        lines = {
            SETS.get(n, n): list(zip(found["indices"], c[figure])) for n, c in found["curves"].items() if figure in c
        }
        charts.append(chart(words_of(figure), lines, "frame", log_x=True))
    speeds = {SETS.get(name, name): points for name, points in found["speeds"].items()}
    words = Words("Share of videos by speed", "in the last window", "share")
    charts.append(chart(words, speeds, found["speed_of"]))
    return "".join(charts)


def _figures(found: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(figure for curves in found["curves"].values() for figure in curves))


def _gallery(folder: Path, name: str, long: LongVideos, fps: float) -> str:
    items = []
    for index, (caption, video) in enumerate(zip(long.captions, long.videos[:SHOWN])):
        path = folder / f"{name}_{index}.mp4"
        write_video(path, report.enlarged(video), fps, metadata={"prompt": caption})
        items.append((path, caption))
    scale = max(1, 64 // long.videos.shape[2])
    sheet = contact_sheet(list(long.videos[: 2 * SHOWN]), columns=COLUMNS, scale=scale)
    Image.fromarray(sheet).save(folder / f"{name}.png")
    return report.videos(items) + report.picture(folder / f"{name}.png", f"{SETS.get(name, name)}, frame by frame")
