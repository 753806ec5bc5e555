"""The pages of `video-gen evaluate steering` and `endings`: the videos first, then shares and figures with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from video_gen.data.captions import caption
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.endings import Ended
from video_gen.evaluation.steering import Staying, Switch, Switched
from video_gen.evaluation.words import SETS, Words, words_of

SHOWN = 6
"""Videos of a set on the page."""
COLUMNS = 24
"""Frames of a video on a contact sheet."""
KINDS: Mapping[str, str] = {
    "colour": "another colour",
    "shape": "another shape",
    "both": "another colour and shape",
    "more": "one object more",
    "less": "one object less",
    "speed": "another speed",
    "all": "all switches",
}
FLOORS = "Beside each model, what can be had at best: the world's own videos, as they are and after the model's VAE."


def write_steering_report(
    folder: Path,
    found: Mapping[str, Any],
    wanted: Sequence[Switch],
    sets: Mapping[str, Switched],
    staying: Mapping[str, Staying],
    fps: float,
) -> Path:
    """`steering.html` with everything in it, and beside it each set's contact sheet and first videos as mp4.

    Args: found: what `evaluate.evaluate_steering` returns; the rest by name of model or floor.
    """
    sections = []
    for name, shown in sets.items():
        items = []
        for index, (switch, video, at) in enumerate(zip(wanted[:SHOWN], shown.videos, shown.at)):
            text = f"{caption(switch.before)}; from {at / fps:.1f} s: {caption(switch.after)}"
            items.append((_video(folder / f"{_file(name)}_{index}.mp4", video, fps, text), text))
        around = [v[max(0, at - 12) : at + 3 * COLUMNS - 12 : 3] for v, at in zip(shown.videos[:SHOWN], shown.at)]
        sections.append(report.Section(f"Switches: {SETS.get(name, name)}", _gallery(folder, name, items, around)))
    lines = {
        SETS.get(name, name): [(float(t), e["value"]) for t, e in found["followed"][name]["all"].items()]
        for name in sets
    }
    kinds = [
        chart(
            Words(f"Followed: {SETS.get(name, name)}", "by what changes", "share"),
            {
                KINDS[kind]: [(float(t), e["value"]) for t, e in row.items()]
                for kind, row in found["followed"][name].items()
            },
            "seconds after the switch",
        )
        for name in sets
        if name not in SETS
    ]
    charts = [chart(words_of("followed"), lines, "seconds after the switch"), *kinds]
    sections.append(
        report.Section("How many follow", f"<div class='charts'>{''.join(charts)}</div>{_followed(found)}", FLOORS)
    )
    note = "17 frames before the switch, 17 from it on, and the 17 after those."
    sections.append(report.Section("What becomes of the picture", _around(found), note))
    for name, one in staying.items():
        items = [
            (_video(folder / f"{_file(name)}_stays_{index}.mp4", video, fps, text), text)
            for index, (video, text) in enumerate(zip(one.shown, one.captions))
        ]
        if items:
            sections.append(report.Section(f"Without a switch: {name}", report.videos(items)))
    sections.append(report.Section("Is all still there without a switch", _staying(found)))
    intro = (
        f"What becomes of a stream whose caption changes: {len(wanted)} switches, and {found['streams']} streams whose caption "
        f"stays. The first block that can show the change begins {found['delay']:g} s after it is asked for; times count from "
        f"there. In brackets the interval in which a figure lies with 95% certainty. {' '.join(found.get('notes', ()))}"
    )
    report.write_report(folder / "steering.html", "Steering", intro, sections)
    return folder / "steering.html"


def write_endings_report(folder: Path, found: Mapping[str, Any], sets: Mapping[str, Ended], fps: float) -> Path:
    """`endings.html` with everything in it, and beside it each set's contact sheet and first videos as mp4.

    Args: found: what `evaluate.evaluate_endings` returns; `sets` by name.
    """
    sections = []
    for name, ended in sets.items():
        closed = name.endswith("loop")
        items = []
        for index, (video, text) in enumerate(zip(ended.videos[:SHOWN], ended.captions)):
            shown = np.concatenate([video[:-1]] * 2) if closed else video
            items.append((_video(folder / f"{_file(name)}_{index}.mp4", shown, fps, text), text))
        frames = list(ended.videos[:SHOWN])
        sections.append(report.Section(SETS.get(name, name), _gallery(folder, name, items, frames)))
    names = list(found["figures"])
    rows = [
        [
            words_of(key).name,
            words_of(key).say_aim(),
            *(say(words_of(key), found["figures"][name][key]) for name in names),
        ]
        for key in found["figures"][names[0]]
    ]
    table = report.table(["", "aim", *(SETS.get(name, name) for name in names)], rows)
    sections.append(report.Section("Figures", table, FLOORS))
    intro = (
        f"Videos that end where they were to: {found['videos']} loops, and as many from the first frame of a true clip to its "
        f"last. In brackets the interval in which a figure lies with 95% certainty. {' '.join(found.get('notes', ()))}"
    )
    report.write_report(folder / "endings.html", "Endings", intro, sections)
    return folder / "endings.html"


def say(words: Words, estimate: Mapping[str, float]) -> str:
    """Such as "82% [70-89]"; "" where nothing was to be measured."""
    if estimate["value"] != estimate["value"]:
        return ""
    low, high = (words.say(estimate[end]).rstrip("% px") for end in ("low", "high"))
    return f"{words.say(estimate['value'])} [{low}-{high}]"


def _followed(found: Mapping[str, Any]) -> str:
    tables = []
    for name, kinds in found["followed"].items():
        head = ["", *(f"{t} s" for t in kinds["all"])]
        rows = [[KINDS[k], *(say(words_of("followed"), e) for e in row.values())] for k, row in kinds.items()]
        tables.append(f"<div><h3>{SETS.get(name, name)}</h3>{report.table(head, rows)}</div>")
    return "".join(tables)


def _around(found: Mapping[str, Any]) -> str:
    rows = []
    for name, whens in found["around"].items():
        for when, figures in whens.items():
            rows.append([f"{SETS.get(name, name)}, {when}", *(say(words_of(key), e) for key, e in figures.items())])
    first = next(iter(found["around"].values()))["before"]
    return report.table(["", *(words_of(key).name for key in first)], rows)


def _staying(found: Mapping[str, Any]) -> str:
    rows = [
        [f"{SETS.get(name, name)}: {words_of(key).name}", *(say(words_of(key), e) for e in row.values())]
        for name, figures in found["staying"].items()
        for key, row in figures.items()
    ]
    first = next(iter(found["staying"].values()))["there"]
    return report.table(["", *(f"{t} s" for t in first)], rows)


def _video(path: Path, video: np.ndarray, fps: float, text: str) -> Path:
    write_video(path, report.enlarged(video), fps, metadata={"prompt": text})
    return path


def _gallery(folder: Path, name: str, items: list[tuple[Path, str]], frames: list[np.ndarray]) -> str:
    file, scale = folder / f"{_file(name)}.png", max(1, 64 // frames[0].shape[1])
    Image.fromarray(contact_sheet(frames, columns=COLUMNS, scale=scale)).save(file)
    return report.videos(items) + report.picture(file, f"{SETS.get(name, name)}, frame by frame")


def _file(name: str) -> str:
    return name.replace(" ", "_").replace(":", "")
