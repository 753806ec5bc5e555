"""The page of `video-gen evaluate control`: true and made side by side first, then the figures with their floors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.words import Words, words_of

SHOWN = 6
NAMES = {
    "made": "made",
    "vae": "true frames after the VAE",
    "still": "the first frame, repeated",
    "true": "true frames",
}
GAP = 4
"""Pixels between two pictures side by side."""


def write_control_report(
    folder: Path, found: Mapping[str, Any], shown: Mapping[str, np.ndarray], captions: Sequence[str], fps: float
) -> Path:
    """`control.html` with everything in it, and beside it contact sheets and the videos as mp4.

    Args: found: what `evaluate_control` returns; shown: videos by name, uint8.
    """
    sections = []
    pairs = [beside([shown["true"][i], shown["made"][i]]) for i in range(min(SHOWN, len(shown["true"])))]
    note = "Left what was seen, right what the model made of the first frame and the same keys."
    sections.append(report.Section("Played again", _videos(folder, "again", pairs, captions, fps), note))
    if "choices_true" in shown:
        rows = [
            np.concatenate([beside(list(shown[name][i])) for name in ("choices_true", "choices_made")], axis=1)
            for i in range(min(SHOWN, len(shown["choices_true"])))
        ]
        note = "From one place: forward, back, left, right, nothing. Above as it is, below as it is made."
        sections.append(
            report.Section("What else could be done", _videos(folder, "choices", rows, [""] * SHOWN, fps), note)
        )
    if "circle_true" in shown:
        rows = [
            beside([shown["circle_true"][i], shown["circle_made"][i]])
            for i in range(min(SHOWN, len(shown["circle_true"])))
        ]
        sections.append(
            report.Section("Once round", _videos(folder, "circle", rows, [""] * SHOWN, fps), "Left true, right made.")
        )
    idle = [shown["idle"][i, :: max(1, round(fps))] for i in range(min(SHOWN, len(shown["idle"])))]
    note = f"{shown['idle'].shape[1] / fps:.0f} seconds in which nothing is done, a frame a second."
    sections.append(report.Section("Standing still", _videos(folder, "idle", idle, [""] * SHOWN, 12.0), note))
    figures = [(words_of(name), (value,)) for name, value in found["figures"].items()]
    sections.append(report.Section("Figures", report.figures(["this model"], figures)))
    charts = [
        chart(words_of(f"control_{what}"), {NAMES[n]: points(row) for n, row in sets.items()}, "frames after the first")
        for what, sets in found["at"].items()
    ]
    sections.append(report.Section("Over time", f"<div class='charts'>{''.join(charts)}</div>{_tables(found['at'])}"))
    if found["circles"]:
        head = ["full turns", "same room", "same view", "PSNR", "true frames: same room"]
        share = Words("", kind="share")
        rows = [
            [
                turns,
                share.say(c["same_room"]),
                share.say(c["same_view"]),
                f"{c['psnr']:.1f} dB",
                share.say(c["true_room"]),
            ]
            for turns, c in found["circles"].items()
        ]
        sections.append(report.Section("Turned round and back", report.table(head, rows)))
    intro = f"Does the world do what it is told? {'; '.join(found['notes'])}."
    report.write_report(folder / "control.html", "Control", intro, sections)
    return folder / "control.html"


def beside(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Videos (f, h, w, 3) side by side."""
    gap = np.full((*videos[0].shape[:2], GAP, 3), 128, np.uint8)
    parts = [part for video in videos for part in (gap, video)][1:]
    joined = np.concatenate(parts, axis=2)
    return joined[:, :, : joined.shape[2] // 2 * 2]


def points(row: Mapping[str, float]) -> list[tuple[float, float]]:
    return [(float(at), value) for at, value in row.items()]


def _videos(folder: Path, name: str, videos: Sequence[np.ndarray], captions: Sequence[str], fps: float) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index, (video, text) in enumerate(zip(videos, captions)):
        path = write_video(folder / f"{name}_{index}.mp4", report.enlarged(video), fps, crf=20)
        items.append((path, text))
    frames = [video[:: max(1, len(video) // 12)] for video in videos]
    shortest = min(map(len, frames))
    Image.fromarray(contact_sheet([video[:shortest] for video in frames])).save(folder / f"{name}.png")
    return report.videos(items) + report.picture(folder / f"{name}.png", "contact sheet")


def _tables(at: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    tables = []
    for what, sets in at.items():
        words = words_of(f"control_{what}")
        columns = list(next(iter(sets.values())))
        rows = [[NAMES[name], *(words.say(row[c]) if c in row else "" for c in columns)] for name, row in sets.items()]
        tables.append(report.table([f"{words.name}, after", *columns], rows))
    return "".join(tables)
