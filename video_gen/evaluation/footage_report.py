"""The page of `video-gen evaluate footage`: real beside made first, then the figures with their intervals, floors and protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.control_report import beside
from video_gen.evaluation.footage import VideoSet
from video_gen.evaluation.words import Words, words_of

NAMES: Mapping[str, str] = {
    "true": "true clips",
    "vae": "true clips after the VAE",
    "made": "made",
    "last": "last frame given, repeated",
    "flow": "moved on by optical flow",
    "mean": "mean of the samples",
}
PARTS: Mapping[str, str] = {"clips": "Clips", "continuation": "Continuation", "generation": "Generation"}
ORDER = ("made", "flow", "last", "mean", "vae", "true")
"""Of sets in tables and side by side, as far as they are there."""
COLUMNS = 9
"""Frames of a video on a contact sheet."""
DISTANCES = {"frechet": "Frechet distance", "kernel": "kernel distance"}
INTERVALS = "In brackets 95% intervals, over files."


def write_footage_report(
    folder: Path,
    found: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, VideoSet]],
    captions: Mapping[str, Sequence[str]],
    fps: float,
) -> Path:
    """`footage.html` with everything in it, and beside it contact sheets and the videos as mp4.

    Args: found: what `evaluate_footage` returns; the rest by part, and the sets by name.
    """
    sections = [_gallery(folder, part, sets, captions.get(part, []), fps) for part in sets]
    for part, figures in found["parts"].items():
        sections.append(report.Section(f"{PARTS[part]}: figures", figures_table(figures["figures"]), INTERVALS))
        if "at" in figures:
            sections.append(report.Section("Continuation, frame by frame", _curves(figures["at"])))
            note = "What is made less the other, clip for clip: where the interval leaves out 0, they differ."
            sections.append(report.Section("Continuation against others", _gains(figures["gains"]), note))
    note = (
        "From one half of the true clips, by features of a network. The other half is the floor; all but that are made for it, so "
        "the counts are equal."
    )
    sections.append(report.Section("Distances", report.table(*distance_rows(found["distances"])), note))
    sections.append(report.Section("Protocol", report.table(["", ""], list(_flat(found["protocol"])))))
    intro = " ".join([f"{found['protocol']['clips']}.", *found["notes"]])
    report.write_report(folder / "footage.html", "Footage", intro, sections)
    return folder / "footage.html"


# -------------------- videos


def _gallery(
    folder: Path, part: str, sets: Mapping[str, Mapping[str, VideoSet]], captions: Sequence[str], fps: float
) -> report.Section:
    shown = dict(sets[part])
    if part == "generation":
        shown["true"] = sets["clips"]["true"]
    names = [name for name in ("true", *ORDER[:-1]) if name in shown]
    count = min(len(shown[name].shown) for name in names)
    rows = [[shown[name].shown[i] for name in names] for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index, row in enumerate(rows):
        path = write_video(
            folder / f"{part}_{index}.mp4", beside([report.enlarged(video) for video in row]), fps, crf=20
        )
        items.append((path, captions[index] if index < len(captions) else ""))
    flat = [video for row in rows[:3] for video in row]
    sheet = folder / f"{part}.png"
    Image.fromarray(contact_sheet(flat, columns=COLUMNS, scale=max(1, 64 // flat[0].shape[1]))).save(sheet)
    heads = "".join(f"<span>{NAMES[name]}</span>" for name in names)
    body = f"<div class='wide' style='--sets: {len(names)}'><p class='heads'>{heads}</p>{report.videos(items)}</div>"
    note = "What is generated belongs to no clip." if part == "generation" else ""
    return report.Section(f"{PARTS[part]}: real beside made", body + report.picture(sheet, "frame by frame"), note)


# -------------------- figures


def words_for(name: str) -> Words:
    if name.startswith("consistency_"):
        return Words(f"Consistency by {name.removeprefix('consistency_')}", "VBench's formula; 1 = nothing changes")
    return words_of(f"footage_{name}")


def say(words: Words, estimate: Mapping[str, float], signed: bool = False) -> str:
    """Such as "24.3 dB [23.9 to 24.8]"; "" where nothing was to be measured, and no brackets where no interval is."""
    value, low, high = (estimate[end] for end in ("value", "low", "high"))
    if value != value:
        return ""
    sign = "+" if signed and value > 0 else ""
    if low != low:
        return f"{sign}{words.say(value)}"
    ends = [words.say(end).rstrip(" dB%") for end in (low, high)]
    return f"{sign}{words.say(value)} [{ends[0]}\u00a0to\u00a0{ends[1]}]"  # it may break before the bracket only


def figure_rows(figures: Mapping[str, Any]) -> tuple[list[str], list[tuple[Words, list[str]]]]:
    """Names of the sets, and each figure of them, as text."""
    names = [name for name in ORDER if name in figures]
    keys = list(dict.fromkeys(key for name in names for key in figures[name]))
    rows = []
    for key in keys:
        words = words_for(key)
        rows.append((words, [say(words, figures[n][key]) if key in figures[n] else "" for n in names]))
    return [NAMES[name] for name in names], rows


def figures_table(figures: Mapping[str, Any]) -> str:
    head, rows = figure_rows(figures)
    return _loose(report.table(["", *head], [[_named(words), *cells] for words, cells in rows]))


def distance_rows(distances: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows, as text."""
    head = ["", "of", "distance", "videos on each side"]
    rows = []
    for row in distances:
        by, counts = f"{DISTANCES[row['distance']]} by {row['features']}", f"{row['real']}, {row['made']}"
        if "refused" in row:
            line = [by, "all", f"refused: {row['refused']}", counts]
            rows += [line] if line not in rows else []
            continue
        part, _, name = row["set"].rpartition(": ")
        who = "floor: true clips of other files" if row["set"] == "true" else NAMES.get(name, name)
        rows.append([by, f"{part}: {who}" if part else who, say(Words(""), row), counts])
    return head, rows


def _named(words: Words) -> str:
    return f"{words.name} ({words.note})" if words.note else words.name


def _curves(at: Mapping[str, Mapping[str, Any]]) -> str:
    charts, tables = [], []
    for key, sets in at.items():
        words, names = words_for(key), [name for name in ORDER if name in sets]
        words = replace(words, note=words.note.partition(";")[0].replace("PSNR of a clip", "PSNR of a frame"))
        lines = {NAMES[n]: [(float(frame), e["value"]) for frame, e in sets[n].items()] for n in names}
        charts.append(chart(words, lines, "frame after the last one given"))
        columns = list(sets[names[0]])
        rows = [[NAMES[n], *(words.say(sets[n][c]["value"]) for c in columns)] for n in names]
        tables.append(report.table([f"{words.name}, frame", *columns], rows))
    return (
        f"<div class='charts'>{''.join(charts)}</div><details><summary>as tables</summary>{''.join(tables)}</details>"
    )


def _gains(found: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in ORDER if name in found]
    keys = list(dict.fromkeys(key for name in names for key in found[name]))
    rows = [
        [words_for(k).name, *(say(words_for(k), found[n][k], True) if k in found[n] else "" for n in names)]
        for k in keys
    ]
    return _loose(report.table(["", *(NAMES[name] for name in names)], rows))


def _loose(table: str) -> str:
    """A table whose intervals may stand under their figures."""
    return f"<div class='loose'>{table}</div>"


def _flat(values: Mapping[str, Any], before: str = "") -> Sequence[list[str]]:
    """Nested settings as rows of a name and a value."""
    rows: list[list[str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{key}: ")
        elif value not in (None, ""):
            rows.append([f"{before}{key}", str(value)])
    return rows
