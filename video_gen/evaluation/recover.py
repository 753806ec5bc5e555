"""From pixels back to objects: what a frame of the world `bounce` shows, and how objects go on from frame to frame."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from video_gen.data.captions import BACKGROUND, COLOURS, MAX_OBJECTS, SHAPES
from video_gen.data.worlds import object_mask, object_radius

FOREGROUND = 0.3
"""Share of its colour from which a pixel counts as part of an object."""
LEAST_MASS = 0.35
"""Of a circle's area: smaller pieces are taken for edges or debris."""
RIM = 0.45
"""Of a circle's radius: how far a blurred rim reaches."""
LINK = 0.25
"""Of the shorter side: an object that is further from where it was is another one."""


@dataclass(frozen=True)
class Found:
    """One object in one frame."""

    colour: str
    shape: str
    x: float
    y: float
    mass: float
    """Covered pixels."""


@dataclass(frozen=True)
class Track:
    """One object over the frames; None where it is not found."""

    steps: tuple[Found | None, ...]

    def most(self, what: str) -> str | None:
        """The commonest colour or shape."""
        values = [getattr(found, what) for found in self.steps if found is not None]
        return max(sorted(set(values)), key=values.count) if values else None

    def masses(self, height: int, width: int) -> np.ndarray:
        """(f,) covered pixels over those of a whole object of the commonest shape: 1 = all there, 0 = not found."""
        shape = self.most("shape") or SHAPES[0]
        whole = object_mask(shape, np.array([width / 2, height / 2]), object_radius(height, width), height, width).sum()
        return np.array([found.mass / whole if found else 0.0 for found in self.steps])

    @property
    def positions(self) -> np.ndarray:
        """(f, 2) as (x, y) in pixels, NaN where not found."""
        return np.array([(found.x, found.y) if found else (np.nan, np.nan) for found in self.steps])


def find_objects(frame: np.ndarray) -> list[Found]:
    """The objects of one frame (h, w, 3) uint8: per colour, connected patches, cut up where equal ones touch."""
    height, width = frame.shape[:2]
    radius = object_radius(height, width)
    area = np.pi * radius**2
    shares, colour = _colours(frame)
    cores = np.zeros((height, width), dtype=int)
    names = []
    for index, name in enumerate(COLOURS):
        mine = np.where(colour == index, shares[..., index], 0.0)
        labels, count = cast(tuple[np.ndarray, int], ndimage.label(mine > FOREGROUND))
        masses = ndimage.sum_labels(mine, labels, np.arange(1, count + 1))
        for label in np.flatnonzero(masses >= LEAST_MASS * area) + 1:
            names.append(name)
            cores[labels == label] = len(names)
    if not names:
        return []
    # a rim that is blurred into another colour belongs to the nearest core, with its share of the core's colour
    nearest: Any = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    distance, (row, column) = nearest
    owner = np.where(distance <= RIM * radius, cores[row, column], 0)
    found = []
    for number, name in enumerate(names, 1):
        patch = np.where(owner == number, shares[..., list(COLOURS).index(name)], 0.0)
        found += [_describe(part, name, radius) for part in _cut(patch, area)]
    return found


def track(video: np.ndarray) -> list[Track]:
    """The objects of the first frame, followed through (f, h, w, 3) uint8."""
    frames = [find_objects(frame) for frame in video]
    limit = LINK * min(video.shape[1:3])
    tracks: list[list[Found | None]] = [[found] for found in frames[0]]
    last = list(frames[0])
    for found in frames[1:]:
        cost = np.array([[_distance(a, b, limit) for b in found] for a in last]).reshape(len(last), len(found))
        chosen: list[Found | None] = [None] * len(last)
        for i, j in zip(*linear_sum_assignment(cost)):
            if np.hypot(last[i].x - found[j].x, last[i].y - found[j].y) <= limit:
                chosen[i] = found[j]
                last[i] = found[j]
        for steps, step in zip(tracks, chosen):
            steps.append(step)
    return [Track(tuple(steps)) for steps in tracks]


def _distance(a: Found, b: Found, limit: float) -> float:
    return np.hypot(a.x - b.x, a.y - b.y) + (0.0 if a.colour == b.colour else limit)


def _colours(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel: how much of each colour lies on the background (h, w, k), and the colour that fits best (h, w)."""
    ground = np.array(BACKGROUND, dtype=np.float64)
    palette = np.array(list(COLOURS.values())) - ground  # (k, 3)
    pixel = frame.astype(np.float64) - ground
    shares = np.clip(pixel @ palette.T / (palette**2).sum(1), 0.0, 1.0)
    error = ((pixel[:, :, None] - shares[..., None] * palette) ** 2).sum(-1)
    return shares, error.argmin(-1)


def _cut(patch: np.ndarray, area: float) -> list[np.ndarray]:
    """A patch with the mass of several objects as that many parts, by weighted k-means."""
    count = int(np.clip(round(patch.sum() / (0.93 * area)), 1, MAX_OBJECTS + 1))
    if count == 1:
        return [patch]
    y, x = np.nonzero(patch)
    points, weights = np.stack([x, y], axis=1).astype(np.float64), patch[y, x]
    mean = np.average(points, axis=0, weights=weights)
    axis = np.linalg.eigh(np.cov((points - mean).T, aweights=weights))[1][:, -1]
    along = (points - mean) @ axis
    centres = mean + np.linspace(along.min(), along.max(), 2 * count + 1)[1::2, None] * axis
    for _ in range(10):
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.array(
            [
                np.average(points[nearest == k], axis=0, weights=weights[nearest == k])
                if (nearest == k).any()
                else centres[k]
                for k in range(count)
            ]
        )
    parts = []
    for k in range(count):
        part = np.zeros_like(patch)
        part[y[nearest == k], x[nearest == k]] = weights[nearest == k]
        parts.append(part)
    return [part for part in parts if part.sum() >= LEAST_MASS * area]


def _describe(patch: np.ndarray, colour: str, radius: float) -> Found:
    """Position by centre of mass, shape by the nearest template there."""
    height, width = patch.shape
    mass = patch.sum()
    x = float((patch.sum(0) * (np.arange(width) + 0.5)).sum() / mass)
    y = float((patch.sum(1) * (np.arange(height) + 0.5)).sum() / mass)
    shades = np.array([object_mask(shape, np.array([x, y]), radius, height, width) for shape in SHAPES])
    overlap = (shades * patch).sum((1, 2)) / np.sqrt((shades**2).sum((1, 2)) * (patch**2).sum())
    best = int(overlap.argmax())
    return Found(colour, SHAPES[best], x, y, float(mass))
