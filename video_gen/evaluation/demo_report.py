"""The page of `video-gen demo`, made of what is in its folder: it stands after the first videos, and grows with each stage."""

import html
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from video_gen.data.video_file import read_metadata
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.words import SETS, Words, words_of

PAGE, FIGURES, SHIPPED = "report.html", "figures.json", "shipped"
RELOAD_SECONDS = 20
CLIPS_SHOWN = 4
GALLERIES = {
    "text": ("From text", ""),
    "image": ("From an image", "The first frame is given, from a clip that was held out; the rest is made."),
    "video": ("From a video", "The first half second of a held-out clip is given; the rest is made."),
    "long": ("Longer than any clip of training", "Made block after block, each from what was made before."),
}
"""Heading and note of each kind of videos in samples/."""
BANDS = ("loss_t0.00-0.25", "loss_t0.25-0.50", "loss_t0.50-0.75", "loss_t0.75-1.00", "loss_causal")


@dataclass(frozen=True)
class Stage:
    """One stage of the demo, as the page lists it."""

    name: str
    state: Literal["done", "now", "next", "stopped"]
    share: float = 0.0
    """Of what is in work, how much is done."""
    seconds: float | None = None
    """It took so long, or has so long to go."""


def write_page(output: Path, stages: Sequence[Stage], intro: str) -> Path:
    """`report.html` from the videos, logs and figures that are in the folder. Where they are old ones, they are shown, too."""
    working = any(stage.state == "now" for stage in stages)
    done = all(stage.state == "done" for stage in stages)
    sections = []
    for name, (title, note) in GALLERIES.items():
        if body := _gallery(output / "samples", name):
            sections.append(report.Section(title, body, note))
    if body := _gallery(output / SHIPPED, "text"):
        sections.append(report.Section("From text, by the model that ships with Video Gen", body, SHIPPED_NOTE))
    sections += [*_figures(output), *_by_frame(output), *_training(output), *_clips(output / "data")]
    path = output / PAGE
    status = "" if done else _status(stages)
    report.write_report(
        path, "Video Gen: the demo", intro, sections, status=status, reload_seconds=RELOAD_SECONDS if working else 0
    )
    return path


SHIPPED_NOTE = (
    "It was trained on this world for an hour on two CPU cores. What the demo trains itself, in some ten minutes, stands above "
    "as soon as it is made."
)


def say_seconds(seconds: float) -> str:
    """Such as "40 seconds" or "3 minutes"."""
    if seconds < 90:
        return f"{max(10, 10 * round(seconds / 10))} seconds"
    return f"{round(seconds / 60)} minutes"


# -------------------- parts of the page


def _status(stages: Sequence[Stage]) -> str:
    """What is done, what is in work, what comes, and how long it takes."""
    lines = []
    for stage in stages:
        when = ""
        if stage.seconds is not None:
            sign = {"done": "", "stopped": ""}.get(stage.state, "about ")
            when = sign + say_seconds(stage.seconds) + (" left" if stage.state == "now" else "")
        bar = f"<progress value='{stage.share:.3f}'></progress>" if stage.state == "now" else ""
        lines.append(f"<li class='{stage.state}'><span>{html.escape(stage.name)}</span><span>{when}</span>{bar}</li>")
    left = sum(stage.seconds or 0 for stage in stages if stage.state in ("now", "next"))
    if any(stage.state == "now" for stage in stages):
        head = f"In work: about {say_seconds(left)} left. This page grows by itself."
    else:
        head = "Stopped. The same command goes on from here."
    stale = "<p class='stale'>Nothing was heard of it for some minutes: it has stopped. The same command goes on from here.</p>"
    body = f"<p>{html.escape(head)}</p><ol>{''.join(lines)}</ol>{stale}"
    return f"<div class='status' data-time='{time.time():.0f}'>{body}</div>"


def _gallery(folder: Path, name: str) -> str:
    """Videos NAME_0.mp4 ... of a folder with their captions, and their contact sheet; "" if there are none."""
    files = sorted(folder.glob(f"{name}_*.mp4"))
    if not files:
        return ""
    captions = [read_metadata(file).get("prompt", "") for file in files]
    body, sheet = report.videos(list(zip(files, captions))), folder / f"{name}.png"
    if sheet.is_file():
        body += report.picture(sheet, f"{GALLERIES[name][0]}, frame by frame")
    return body


def _clips(data: Path) -> list[report.Section]:
    """A few of the clips that the models are trained on."""
    files = sorted(data.glob("clip_*.mp4"))[:CLIPS_SHOWN]
    if not files:
        return []
    items = [(file, read_metadata(file).get("caption", "")) for file in files]
    note = "A few of the clips, drawn by a program that moves the shapes by exact laws: so it can be measured whether a model does."
    return [report.Section("What they learn from", report.videos(items), note)]


def _read_figures(output: Path) -> dict[str, Any]:
    file = output / FIGURES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _figures(output: Path) -> list[report.Section]:
    found = _read_figures(output)
    if not found:
        return []
    sets = [found["motion"], found["held_out"], found["floors"]["vae"], found["floors"]["true"]]
    head = ["this model", "combinations never shown together", SETS["vae"], SETS["true"]]
    names = sorted(found["motion"]["figures"], key=lambda name: (words_of(name).aim is None, name == "videos"))
    rows = [(words_of(name), [of["figures"].get(name) for of in sets]) for name in names]
    vae = [
        (words_of(name), [value])
        for name, value in [*found["vae"].items(), ("seconds_per_clip", found["seconds_per_clip"])]
        if not isinstance(value, list)
    ]
    note = "No model does better than what its VAE makes of true clips; the aims are the demo's own."
    return [
        report.Section("How good it is", report.figures(head, rows), note),
        report.Section("The VAE, and the time", report.figures(["this model"], vae)),
    ]


def _by_frame(output: Path) -> list[report.Section]:
    found = _read_figures(output)
    if not found:
        return []
    charts = ""
    for name in found["motion"]["per_frame"]:
        lines = {"this model": found["motion"]["per_frame"][name]}
        lines |= {SETS[floor]: found["floors"][floor]["per_frame"][name] for floor in ("vae", "true")}
        charts += chart(words_of(name), {k: list(enumerate(v)) for k, v in lines.items()}, "frame")
    return [report.Section("From frame to frame", f"<div class='charts'>{charts}</div>")]


def _training(output: Path) -> list[report.Section]:
    """Curves of both trainings, as far as they are."""
    vae, diffusion = (output / part / "log.jsonl" for part in ("vae", "diffusion"))
    sharp = report.curves(vae, "train", ["psnr"])["psnr"]
    held_out = report.curves(vae, "validation", ["psnr", "psnr_linear"])
    guides = {"aim": words_of("psnr").aim or 0.0}
    if floor := held_out["psnr_linear"]:
        guides["floor, PCA alone"] = floor[-1][1]
    charts = chart(
        Words("The VAE: sharpness of what it gives back", "likeness to the clip that went in", "decibels"),
        {name: points for name, points in (("training", sharp), ("held-out clips", held_out["psnr"])) if points},
        "step",
        guides=guides if sharp else {},
    )
    loss = report.curves(diffusion, "train", ["loss"])["loss"]
    charts += chart(Words("The transformer: loss in training"), {"loss": loss}, "step")
    bands = report.curves(diffusion, "validation", BANDS)
    charts += chart(
        Words("The transformer: loss on held-out clips", "by how much noise there is to take away"),
        {words_of(name).name: points for name, points in bands.items() if points},
        "step",
    )
    return [report.Section("How it learns", f"<div class='charts'>{charts}</div>")] if charts else []
