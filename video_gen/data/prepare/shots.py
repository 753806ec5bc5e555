"""Where shots begin and end, from a file's curves alone: cuts, fades and dissolves, and no flashes and fast pans."""

from dataclasses import dataclass

import numpy as np

from video_gen.data.prepare.facts import SPANS, Facts
from video_gen.data.prepare.settings import ShotSettings

AROUND = 8
"""Frames on each side that a change is held against."""
QUIET = 1.0
"""Grey levels, and of a hundred parts the share of colours, by which frames change that show the same."""
STANDING = 0.2
"""Grey levels by which a frame changes at most where nothing does."""
SHORTEST = 4
"""Frames of a fade or dissolve, at least."""


@dataclass(frozen=True)
class Shot:
    """Frames start to end - 1 of a file."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def find_shots(facts: Facts, settings: ShotSettings) -> list[Shot]:
    """The shots of a file, without the frames of fades and dissolves between them."""
    count = facts.num_frames
    gone = find_blends(facts, settings)
    edges = [0, *find_cuts(facts, settings, gone), count]
    shots: list[Shot] = []
    for start, end in zip(edges, edges[1:]):
        for first, last in gone:
            first, last = max(first, start), min(last, end)
            if first < last:
                shots.append(Shot(start, first))
                start = last
        shots.append(Shot(start, end))
    return [shot for shot in shots if len(shot) > 0]


def find_cuts(facts: Facts, settings: ShotSettings, gone: list[tuple[int, int]] | None = None) -> list[int]:
    """First frames of shots that begin with a cut; `gone`: frames in which one picture becomes another, where there are none."""
    step, colours = facts.curves["step"].astype(np.float64), facts.curves["colours"].astype(np.float64)
    found = []
    for index in np.flatnonzero((step >= settings.cut) | (colours >= settings.cut_colours)).tolist():
        if facts.curves["back"][index] < settings.flash or any(a < index < b for a, b in gone or ()):
            continue
        moved = step[index] >= settings.cut and step[index] >= settings.cut_ratio * (
            QUIET + _around(step, index, QUIET / 2)
        )
        recoloured = colours[index] >= settings.cut_colours and (
            colours[index] >= settings.cut_ratio * (QUIET / 100 + _around(colours, index, QUIET / 200))
        )
        if moved or recoloured:
            found.append(index)
    return found


def find_blends(facts: Facts, settings: ShotSettings) -> list[tuple[int, int]]:
    """Ranges of frames in which one picture becomes another, be it black: first to last + 1."""
    curves = facts.curves
    sure = (curves["blend"] <= settings.blend) & (curves["change"] >= settings.blend_change)
    found: list[tuple[int, int, float]] = []
    for index in np.flatnonzero(sure).tolist():
        # it changes by the same amount from frame to frame, so its length is the whole change over that
        pace = float(np.median(curves["step"][max(1, index - 2) : index + 3]))
        if pace <= STANDING:
            continue
        half = min(float(max(SPANS)), float(curves["change"][index]) / pace / 2)
        first, last = max(0, int(np.floor(index - half))), min(len(sure), int(np.ceil(index + half)) + 1)
        alike = float(curves["alike"][index])
        if found and first <= found[-1][1]:
            before = found.pop()
            first, last, alike = before[0], max(last, before[1]), min(alike, before[2])
        found.append((first, last, alike))
    return [(first, last) for first, last, alike in found if last - first >= SHORTEST and alike <= settings.blend_alike]


def _around(values: np.ndarray, index: int, least: float) -> float:
    """How much changes around a frame: of what is before and what comes after, the livelier. Frames that only repeat the
    one before, as where a rate was raised, say nothing: they change by less than `least`."""
    sides = values[max(1, index - AROUND) : index], values[index + 1 : index + 1 + AROUND]
    lively = [side[side >= least] for side in sides]
    return max(float(np.percentile(side, 75)) if len(side) else 0.0 for side in lively)
