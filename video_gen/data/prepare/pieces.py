"""From facts to pieces: which parts of a file are worth training on, and why the others are not. Nothing is read here."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from video_gen.data.duplicates import SIDE, near_duplicates
from video_gen.data.prepare.facts import Facts
from video_gen.data.prepare.settings import KeepSettings, PrepareConfig
from video_gen.data.prepare.shots import find_shots
from video_gen.files import plain

LEAST_BAR = 0.03
"""Share of the picture that a black bar takes on each of two sides to be one."""
BRIGHT = 40
"""Grey levels of which something has to be brighter, for a picture without bars to say that there are none."""
UNKNOWN = -1.0
Box = tuple[float, float, float, float]
"""Black at the top, bottom, left and right, as shares of the picture."""
NO_BARS: Box = (0.0, 0.0, 0.0, 0.0)
ROUNDING = 1e-3
"""Seconds that are none."""
LOOKED_AT = 4
"""Pictures of a piece that are held against those of others."""
EDGE = 10.0
"""Grey levels from cell to cell of an edge, on average over time."""
STATIC, MOVED = 4.0, 8.0
"""Standard deviation over time, in grey levels, of what stands still, at most, and of what moves, at least."""
CHANGE = 0.15
"""Of an edge that stands still, as a share of its strength, at most."""
MOVING = 0.8
"""Share of the edges that have to move, for the others to be an overlay."""
TOGETHER = 4
"""Of nine cells around, itself included: letters stand close together, and noise does not."""
OVERLAY_SAMPLES = 4
"""Pictures that are needed to tell what stands still."""


@dataclass(frozen=True)
class Piece:
    """A part of a file, to become a clip; of an image the whole."""

    source: str
    """Name of the file in the pile."""
    digest: str
    """Of its content."""
    shot: int
    start: int
    end: int
    """Frames start to end - 1."""
    start_time: float
    end_time: float
    """Seconds since the file's first frame."""
    box: Box = NO_BARS
    """What is cropped."""
    motion: float = 0.0
    """Percent of the diagonal a second, median over samples; -1 = too short to tell."""
    light: float = 0.0
    contrast: float = 0.0
    sharpness: float = 0.0
    overlay: float = 0.0
    """Share of the picture."""
    refused: str = ""
    """Why it is not kept; empty if it is."""
    actions: str = ""
    """A hash of what is done in the file, and of what it means; empty = nothing."""
    mark: str = ""
    """What the name of its clip ends in, so that no two share one."""
    pictures: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE), np.uint8), compare=False, repr=False)
    """(k, SIDE, SIDE) uint8, grey, by which it is held against others."""

    @property
    def name(self) -> str:
        """Of what is written, without suffix: of the file's content and the frames."""
        return name_of(self.digest, self.start, self.end) + self.mark

    @property
    def seconds(self) -> float:
        return self.end_time - self.start_time


def name_of(digest: str, start: int, end: int) -> str:
    return f"{digest}-{start:06d}-{end:06d}"


def pieces_of(facts: Facts, config: PrepareConfig) -> list[Piece]:
    """All pieces of a readable file in their order, each with the first reason against it; `duplicate` and `slide show`, which
    others decide, not yet."""
    info = facts.info
    if info is None:
        return []
    box = black_bars(facts) if config.crop else NO_BARS
    if info.kind == "image":
        whole = Piece(facts.name, facts.digest, 0, 0, 1, 0.0, 0.0, box)
        return [_judged(_measured(whole, facts), facts, config.keep)]
    times = np.append(facts.curves["time"], info.duration)
    found = []
    for number, shot in enumerate(find_shots(facts, config.shots)):
        for start, end in _cut_up(shot.start, shot.end, times, config.keep):
            seconds = float(times[start]), float(times[end])
            piece = Piece(facts.name, facts.digest, number, start, end, *seconds, box)
            found.append(_judged(_measured(piece, facts), facts, config.keep))
    return found


def against_others(pieces: list[Piece], keep: KeepSettings) -> list[Piece]:
    """The same, with the reasons that come of other pieces: slide shows, and what looks like an earlier one that is kept. Their
    pictures are let go of."""
    frozen: dict[str, list[bool]] = {}
    for piece in pieces:
        if piece.end - piece.start > 1:
            frozen.setdefault(piece.source, []).append(piece.refused.startswith("still"))
    shows = {name for name, each in frozen.items() if len(each) > 2 and sum(each) / len(each) > keep.max_frozen}
    pieces = [
        replace(p, refused="slide show: most of the file stands still") if p.source in shows and not p.refused else p
        for p in pieces
    ]
    if not keep.duplicates:
        good = [index for index, piece in enumerate(pieces) if not piece.refused]
        for later, first in near_duplicates([pieces[i].pictures for i in good], [pieces[i].seconds for i in good]):
            one, other = pieces[good[later]], pieces[good[first]]
            pieces[good[later]] = replace(
                one, refused=f"near-duplicate: looks like {other.source} at {other.start_time:.2f} s"
            )
    return [replace(piece, pictures=np.zeros((0, SIDE, SIDE), np.uint8)) for piece in pieces]


def told_apart(pieces: list[Piece]) -> list[Piece]:
    """The same: where several files have one content, those of all but the first are marked with a hash of the file's name, since
    captions and actions may differ."""
    first: dict[str, str] = {}
    return [
        piece
        if first.setdefault(piece.digest, piece.source) == piece.source
        else replace(piece, mark=f"-{key_of(piece.source)}")
        for piece in pieces
    ]


def key_of(source: str) -> str:
    """16 hexadecimal digits of the name of a file of the pile."""
    return hashlib.blake2b(plain(source).encode(), digest_size=8).hexdigest()


def black_bars(facts: Facts) -> Box:
    """What is black on opposite sides in all of a file, as shares: top, bottom, left, right."""
    return shared_bars(facts.samples["lit"], facts.samples["grey"].max((1, 2), initial=0))


def shared_bars(lit: np.ndarray, brightest: np.ndarray) -> Box:
    """The same of samples: what is black of each, (m, 4), and its brightest grey, (m,)."""
    seen = lit[(lit != 0).any(1) | (brightest > BRIGHT)] if len(lit) else lit
    if not len(seen):
        return NO_BARS
    top, bottom, left, right = (float(x) for x in seen.min(0))
    rows, columns = min(top, bottom) >= LEAST_BAR, min(left, right) >= LEAST_BAR
    return (top * rows, bottom * rows, left * columns, right * columns)


def overlay(grey: np.ndarray) -> float:
    """Share of the picture that stands still while what is behind it moves: captions, logos, frames.

    Its edges keep their strength and their direction, and its cells their light, to within what compression does. Where more than a
    few of the other edges stay, too, the camera does, and nothing can be told: 0.

    Args: grey: (m, h, w) uint8, of one shot.
    """
    if len(grey) < OVERLAY_SAMPLES:
        return 0.0
    x = grey.astype(np.float32)
    edges = np.stack([x[:, 1:, :-1] - x[:, :-1, :-1], x[:, :-1, 1:] - x[:, :-1, :-1]])
    size = np.hypot(*edges).mean(0)
    strong = size > EDGE
    if not strong.any():
        return 0.0
    change = np.hypot(*(edges - edges.mean(1, keepdims=True))).mean(0) / np.maximum(size, 1e-3)
    spread = x.std(0)[:-1, :-1]
    still = strong & (change < CHANGE) & (spread < STATIC)
    if (strong & (spread > MOVED)).sum() < MOVING * strong.sum():
        return 0.0
    return float((still & (_neighbours(still) >= TOGETHER)).mean())


def _neighbours(mask: np.ndarray) -> np.ndarray:
    """How many of the nine cells around and at each are set."""
    padded = np.pad(mask.astype(np.int32), 1)
    h, w = mask.shape
    return sum(padded[y : y + h, x : x + w] for y in range(3) for x in range(3))  # type: ignore[return-value]


def _cut_up(start: int, end: int, times: np.ndarray, keep: KeepSettings) -> list[tuple[int, int]]:
    """A shot as pieces of `max_seconds`, and what is left."""
    found = []
    while times[end] - times[start] > keep.max_seconds + ROUNDING:
        middle = int(np.searchsorted(times, times[start] + keep.max_seconds - ROUNDING))
        if middle <= start or middle >= end:
            break
        found.append((start, middle))
        start = middle
    return [*found, (start, end)]


def _measured(piece: Piece, facts: Facts) -> Piece:
    chosen = facts.within(piece.start, piece.end)
    if not chosen.any():  # shorter than the samples are apart: the nearest one
        frames = facts.samples["frame"]
        chosen = np.arange(len(frames)) == int(np.abs(frames - (piece.start + piece.end) / 2).argmin())
    samples = {name: values[chosen] for name, values in facts.samples.items()}
    part = slice(piece.start, piece.end)
    known = samples["motion"][np.isfinite(samples["motion"])]
    marks = np.unique(np.linspace(0, len(samples["small"]) - 1, LOOKED_AT).round().astype(int))
    return replace(
        piece,
        motion=float(np.median(known)) if len(known) else UNKNOWN,
        light=float(facts.curves["light"][part].mean()),
        contrast=float(np.median(facts.curves["contrast"][part])),
        sharpness=float(np.median(samples["sharpness"])),
        overlay=overlay(samples["grey"]),
        pictures=samples["small"][marks],
    )


def _judged(piece: Piece, facts: Facts, keep: KeepSettings) -> Piece:
    return replace(piece, refused=_reason(piece, facts, keep))


def _reason(piece: Piece, facts: Facts, keep: KeepSettings) -> str:
    info = facts.info
    assert info is not None
    moving = info.kind == "video"
    top, bottom, left, right = piece.box
    side = min(info.height * (1 - top - bottom), info.width * (1 - left - right))
    if moving and piece.seconds < keep.min_seconds - ROUNDING:
        return f"too short: {piece.seconds:.2f} s"
    if side < keep.min_side:
        return f"too small: {side:.0f} pixels"
    if piece.light < keep.min_light:
        return f"black: {piece.light:.1f} grey levels"
    if piece.contrast < keep.min_contrast:
        return f"nothing to see: contrast of {piece.contrast:.1f} grey levels"
    if moving and UNKNOWN < piece.motion < keep.min_motion:
        return f"still: {piece.motion:.2f}% a second"
    if moving and piece.motion > keep.max_motion:
        return f"too fast: {piece.motion:.0f}% a second"
    if piece.sharpness < keep.min_sharpness:
        return f"blurred: sharpness {piece.sharpness:.3f}"
    if moving and piece.overlay > keep.max_overlay:
        return f"overlay: {piece.overlay:.1%} of the picture stands still before what moves"
    return ""
