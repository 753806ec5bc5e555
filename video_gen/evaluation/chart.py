"""Curves as SVG in a page: no library, no script; the colours are the page's, light or dark."""

import html
from collections.abc import Mapping, Sequence
from math import floor, isfinite, log, log10

from video_gen.evaluation.words import Words

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 30
COLOURS = 8
"""Of lines, `--line-0` and on, in the page's style."""
TICKS = 4


def chart(
    words: Words,
    lines: Mapping[str, Points],
    across: str,
    log_x: bool = False,
    guides: Mapping[str, float] | None = None,
) -> str:
    """Lines by name with their legend, as HTML; "" if there is no point.

    Args:
        words: what is drawn upwards; its values are written as it says them.
        across: what x is.
        log_x: place x, above 0, by its logarithm.
        guides: levels by name, such as an aim, drawn across.
    """
    guides = {name: value for name, value in (guides or {}).items() if isfinite(value)}
    known = {name: [p for p in points if all(map(isfinite, p))] for name, points in lines.items()}
    xs = sorted({x for points in known.values() for x, _ in points})
    if not xs:
        return ""
    ys = [y for points in known.values() for _, y in points] + list(guides.values())
    low, high = _range(ys, words.kind)
    scale = log if log_x else float

    def right(x: float) -> float:
        span = scale(xs[-1]) - scale(xs[0])
        return LEFT + (scale(x) - scale(xs[0])) / (span or 1) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = []
    for tick in ticks(low, high):
        y = up(tick)
        parts.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(
            _text(LEFT - 6, y + 4, words.say(tick) if words.kind in ("share", "change") else f"{tick:.4g}", "end")
        )
    marks = xs if log_x and len(xs) <= 2 * TICKS else ticks(xs[0], xs[-1])
    parts += [_text(right(x), HEIGHT - 10, f"{x:,.6g}", "middle") for x in marks]
    for y in guides.values():
        parts.append(f"<line class='guide' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{up(y):.1f}' y2='{up(y):.1f}'/>")
    for index, points in enumerate(known.values()):
        style = f"style='--line: var(--line-{index % COLOURS})'"
        where = [(right(x), up(y)) for x, y in points]
        if len(where) > 1:
            parts.append(f"<polyline {style} points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in where)}'/>")
        if len(where) <= 4 * TICKS:
            parts += [f"<circle {style} cx='{x:.1f}' cy='{y:.1f}' r='2.5'/>" for x, y in where]
    title = f"{words.name} by {across}"
    svg = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(title, quote=True)}'>{''.join(parts)}</svg>"
    legend = [f"<li style='--line: var(--line-{i % COLOURS})'>{html.escape(name)}</li>" for i, name in enumerate(known)]
    legend += [f"<li class='guide'>{html.escape(name)}: {words.say(value)}</li>" for name, value in guides.items()]
    note = f"<small>{html.escape(words.note)}</small>" if words.note else ""
    head = f"<figcaption><b>{html.escape(words.name)}</b>{note}</figcaption>"
    return f"<figure class='chart'>{head}{svg}<p class='across'>{html.escape(across)}</p><ul>{''.join(legend)}</ul></figure>"


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers from `low` to `high`; that one number if there is no more."""
    if high <= low:
        return [low]
    rough = (high - low) / TICKS
    unit = 10 ** floor(log10(rough))
    step = next(unit * size for size in (1, 2, 5, 10) if unit * size >= rough * (1 - 1e-9))
    first = -floor(-low / step * (1 + 1e-12))
    return [round(step * k, 12) for k in range(first, floor(high / step + 1e-9) + 1)]


def _range(ys: Sequence[float], kind: str) -> tuple[float, float]:
    """From the least to the largest, with room around; shares are of the whole, and what is an amount begins at 0."""
    low, high = min(ys), max(ys)
    if kind == "share":
        return min(0.0, low), max(1.0, high)
    if low >= 0 and (kind in ("pixels", "seconds", "count") or low < 0.5 * high):
        low = 0.0
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (low if low == 0 else low - room), high + room


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{html.escape(text)}</text>"
