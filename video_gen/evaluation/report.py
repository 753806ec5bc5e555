"""The report: one HTML page with the videos inside, contact sheets, curves and figures. Needs nothing to be looked at."""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.videos { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 10rem; }
figcaption { font-size: .8rem; color: #555; } video, img.pixels { width: 100%; image-rendering: pixelated; background: #111; }
svg { background: #fafafa; border: 1px solid #ddd; margin: .5rem 1rem .5rem 0; }
"""


@dataclass
class Section:
    """A heading, and HTML under it."""

    title: str
    body: str


def write_report(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """One self-contained page."""
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>"]
    parts += [f"<h2>{html.escape(section.title)}</h2>{section.body}" for section in sections]
    page = f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    path.write_text(page + "\n".join(parts), encoding="utf-8")


def videos(items: Sequence[tuple[Path, str]]) -> str:
    """Playing videos (mp4 files, caption under each), embedded."""
    figures = []
    for path, caption in items:
        data = base64.b64encode(path.read_bytes()).decode()
        source = f"<video autoplay loop muted playsinline controls src='data:video/mp4;base64,{data}'></video>"
        figures.append(f"<figure>{source}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return f"<div class='videos'>{''.join(figures)}</div>"


def picture(pixels: np.ndarray) -> str:
    """An image (h, w, 3) uint8, embedded as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"<img style='max-width:100%' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(tag: str, value: Any) -> str:
        return f"<{tag}>{html.escape(f'{value:.4g}' if isinstance(value, float) else str(value))}</{tag}>"

    lines = ["".join(cell("th", name) for name in head)]
    lines += ["".join(cell("td", value) for value in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def chart(
    title: str,
    lines: dict[str, list[tuple[float, float]]],
    width: int = 420,
    height: int = 240,
    log_x: bool = False,
) -> str:
    """A line chart as SVG; `lines` maps a name to its points; `log_x` places them by the logarithm of x, above 0."""
    points = [point for line in lines.values() for point in line if np.isfinite(point).all()]
    if not points:
        return ""
    xs, ys = zip(*points)
    x0, x1, y0, y1 = min(xs), max(xs), min(0.0, *ys), max(ys)
    left, bottom, top = 48, height - 28, 30
    scale = np.log if log_x else float

    def place(x: float, y: float) -> str:
        across, up = (scale(x) - scale(x0)) / (scale(x1) - scale(x0) or 1), (y - y0) / (y1 - y0 or 1)
        return f"{left + across * (width - left - 12):.1f},{bottom - up * (bottom - top):.1f}"

    colours = ("#2563eb", "#16a34a", "#dc2626", "#9333ea", "#ea580c", "#0891b2")
    parts = [f"<text x='{left}' y='16' font-size='13' font-weight='600'>{html.escape(title)}</text>"]
    for value, y in ((y1, top), (y0, bottom)):
        parts.append(f"<text x='{left - 4}' y='{y + 4}' font-size='11' text-anchor='end'>{value:.3g}</text>")
    for value, anchor, x in ((x0, "start", left), (x1, "end", width - 12)):
        parts.append(f"<text x='{x}' y='{height - 10}' font-size='11' text-anchor='{anchor}'>{value:.4g}</text>")
    for index, (name, line) in enumerate(lines.items()):
        known = " ".join(place(x, y) for x, y in line if np.isfinite((x, y)).all())
        colour = colours[index % len(colours)]
        parts.append(f"<polyline fill='none' stroke='{colour}' stroke-width='1.8' points='{known}'/>")
        at = f"x='{width - 14}' y='{top + 4 + 14 * index}'"
        parts.append(f"<text {at} font-size='11' text-anchor='end' fill='{colour}'>{html.escape(name)}</text>")
    return f"<svg width='{width}' height='{height}' role='img'>{''.join(parts)}</svg>"


def curves(log: Path, kind: str, names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Values by step from a run's log.jsonl."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == kind]
    return {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
