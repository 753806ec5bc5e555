"""A page to look at: one HTML file with its videos, pictures, curves and figures inside, in one look for all pages."""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from video_gen import look
from video_gen.evaluation.words import Words
from video_gen.files import write_text

SEEN = 256
"""Pixels of height to which small videos are enlarged."""


@dataclass(frozen=True)
class Section:
    """A heading, what it is about, and HTML under it."""

    title: str
    body: str
    note: str = ""


def write_report(
    path: Path, title: str, intro: str, sections: Sequence[Section], *, status: str = "", reload_seconds: int = 0
) -> None:
    """One self-contained page, which appears whole.

    Args:
        status: HTML above the sections, such as what is in work.
        reload_seconds: the page renews itself so often, where its reader is; 0 = never.
    Raises: DataError if it cannot be written.
    """
    parts = [f"<header><h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p></header>{status}"]
    for section in sections:
        note = f"<p class='note'>{html.escape(section.note)}</p>" if section.note else ""
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>{note}{section.body}</section>")
    script = _asset("page.js") + (f"renew({reload_seconds});" if reload_seconds else "")
    head = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{look.text('tokens.css')}{_asset('page.css')}</style>"
    )
    body = "\n".join(parts)
    write_text(path, f"{head}<main>{body}</main><script>{script}</script></html>\n")


def videos(items: Sequence[tuple[Path, str]]) -> str:
    """Playing videos (mp4 files, caption under each), embedded; a press stops one and lets it go on."""
    figures = []
    for path, caption in items:
        data = base64.b64encode(path.read_bytes()).decode()
        source = f"<video autoplay loop muted playsinline src='data:video/mp4;base64,{data}'></video>"
        figures.append(f"<figure>{source}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return f"<div class='videos'>{''.join(figures)}</div>"


def enlarged(video: np.ndarray) -> np.ndarray:
    """(f, h, w, 3) uint8 by a whole factor, so that a small one can be seen and keeps its colours in H.264."""
    factor = max(1, SEEN // video.shape[1])
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def picture(file: Path, about: str) -> str:
    """A PNG file, embedded, to be opened under what it is about."""
    data = base64.b64encode(file.read_bytes()).decode()
    image = f"<img class='sheet' alt='{html.escape(about, quote=True)}' src='data:image/png;base64,{data}'>"
    return f"<details><summary>{html.escape(about)}</summary>{image}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; the first column names the row."""
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
    lines += ["".join(f"<td>{html.escape(value)}</td>" for value in row) for row in rows]
    return _table(lines)


def figures(head: Sequence[str], rows: Sequence[tuple[Words, Sequence[Any]]]) -> str:
    """Figures in words: the column of what is measured, its aim and whether it reaches it, then the other columns of `head`."""
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in ("", head[0], "aim", *head[1:]))]
    for words, (value, *others) in rows:
        note = f"<small>{html.escape(words.note)}</small>" if words.note else ""
        kind = " class='text'" if isinstance(value, str) else ""
        cells = [f"<td>{html.escape(words.name)}{note}</td><td{kind}>{html.escape(words.say(value))}</td>"]
        cells.append(_aim(words, value))
        cells += [f"<td>{html.escape('' if other is None else words.say(other))}</td>" for other in others]
        lines.append("".join(cells))
    return _table(lines)


def curves(log: Path, kind: str, names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Values by step from a run's log.jsonl; none if there is no such file. A line that is being written is left out."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []
    rows = [row for row in map(json.loads, filter(None, lines)) if row["kind"] == kind]
    return {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}


def _aim(words: Words, value: Any) -> str:
    if words.aim is None:
        return "<td></td>"
    good = isinstance(value, int | float) and words.reached(value)
    mark = "<span class='yes'>reached</span>" if good else "<span class='no'>not reached</span>"
    return f"<td>{html.escape(words.say_aim())} {mark}</td>"


def _table(lines: Sequence[str]) -> str:
    head, *rows = lines
    body = "".join(f"<tr>{line}</tr>" for line in rows)
    return f"<div class='table'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _asset(name: str) -> str:
    return (files("video_gen.evaluation") / name).read_text(encoding="utf-8")
