"""Whether generated videos of the world `bounce` hold together: objects persist, keep their looks, and move as they must."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from video_gen.data.captions import parse_caption
from video_gen.data.mechanics import advance
from video_gen.data.worlds import PIXELS_PER_FRAME, collision_radius
from video_gen.evaluation.recover import Track, track

MASS = 0.3
"""An object is all there while its mass is within this share of a whole one."""


@dataclass(frozen=True)
class VideoMeasures:
    """One video's figures. Arrays are per frame."""

    present: np.ndarray
    """(f,) bool: all objects of the first frame, and as many as the caption says, are there with the right mass."""
    colour_kept: np.ndarray
    """(f,) share of objects with the colour they have most of the time; one that is missing counts as wrong."""
    shape_kept: np.ndarray
    residual: np.ndarray
    """(f,) mean distance in pixels from where the true simulator puts objects one frame on; NaN where it cannot be told."""
    residuals: np.ndarray
    """All single distances."""
    accelerations: np.ndarray
    """Lengths of second differences of position away from contacts, pixels per frame^2."""
    places: np.ndarray
    """(n, 2) where the objects are in the first frame, pixels; without those that are not there."""
    looks: tuple[tuple[str, str], ...]
    """(colour, shape) of each object, as it is most of the time."""
    speed: float
    """Root mean square of all objects' speeds, pixels per frame, which contacts between them leave alone; 0 if nothing was
    found."""
    speed_drift: float
    """Mean speed of the last quarter over that of the first, minus 1; NaN if nothing was found."""
    motion: float
    """Mean speed over the one that the caption asks for; NaN without a caption."""
    count_right: bool
    colour_right: bool
    shape_right: bool
    caption_right: bool
    """All of count, colours and shapes, object by object."""

    @property
    def persists(self) -> bool:
        return bool(self.present.all())


def measure_video(video: np.ndarray, caption: str | None = None) -> VideoMeasures:
    """
    Args:
        video: (f, h, w, 3) uint8.
        caption: of the language of `data.captions`; None leaves what it asks for out (False, NaN).
    """
    f, height, width = video.shape[:3]
    tracks = track(video)
    scene = parse_caption(caption) if caption else None
    asked = list(scene.objects) if scene else []
    complete = bool(tracks) and (scene is None or len(tracks) == len(asked))
    whole = np.array([abs(t.masses(height, width) - 1) <= MASS for t in tracks]).reshape(-1, f)
    present = np.asarray(whole.all(0)) if complete else np.zeros(f, dtype=bool)
    kept = {
        what: np.array([[s is not None and getattr(s, what) == t.most(what) for s in t.steps] for t in tracks])
        for what in ("colour", "shape")
    }
    looks = tuple((str(t.most("colour")), str(t.most("shape"))) for t in tracks)
    positions = np.stack([t.positions for t in tracks], axis=1) if tracks else np.zeros((f, 0, 2))
    radius = collision_radius(height, width)
    residual, residuals = _residuals(positions, radius, width, height)
    speeds = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    speed = PIXELS_PER_FRAME[scene.speed] * min(height, width) if scene else np.nan
    return VideoMeasures(
        present=present,
        colour_kept=kept["colour"].mean(0) if tracks else np.zeros(f),
        shape_kept=kept["shape"].mean(0) if tracks else np.zeros(f),
        residual=residual,
        residuals=residuals,
        accelerations=_accelerations(positions, radius, width, height),
        places=positions[0][np.isfinite(positions[0]).all(-1)],
        looks=looks,
        speed=float(np.sqrt(np.nanmean(speeds**2))) if np.isfinite(speeds).any() else 0.0,
        speed_drift=_drift(speeds),
        motion=float(np.nanmean(speeds) / speed) if np.isfinite(speeds).any() else (0.0 if scene else np.nan),
        count_right=scene is not None and len(tracks) == len(asked),
        colour_right=scene is not None and Counter(c for c, _ in looks) == Counter(c for c, _ in asked),
        shape_right=scene is not None and Counter(s for _, s in looks) == Counter(s for _, s in asked),
        caption_right=scene is not None and Counter(looks) == Counter(asked),
    )


def summarise(measures: Sequence[VideoMeasures]) -> dict[str, float]:
    """Figures of a set of videos; a video in which nothing is found counts as failed, and is not left out.

    `spread_px`, the deviation of the places of objects in first frames, of which captions say nothing, is for variety: what
    is missing beside true clips.
    """

    def share(values: Sequence[bool]) -> float:
        return float(np.mean(values))

    residuals = np.concatenate([m.residuals for m in measures])
    accelerations = np.concatenate([m.accelerations for m in measures])
    places = np.concatenate([m.places for m in measures])
    return {
        "videos": len(measures),
        "persistence": share([m.persists for m in measures]),
        "objects_present": float(np.mean([m.present.mean() for m in measures])),
        "colour_identity": float(np.mean([m.colour_kept.mean() for m in measures])),
        "shape_identity": float(np.mean([m.shape_kept.mean() for m in measures])),
        "residual_px": float(np.median(residuals)) if len(residuals) else float("nan"),
        "acceleration_px": float(np.median(accelerations)) if len(accelerations) else float("nan"),
        "speed_drift": _nanmedian([m.speed_drift for m in measures]),
        "motion": _nanmedian([m.motion for m in measures]),
        "spread_px": float(places.std(axis=0).mean()) if len(places) else float("nan"),
        "caption_count": share([m.count_right for m in measures]),
        "caption_colour": share([m.colour_right for m in measures]),
        "caption_shape": share([m.shape_right for m in measures]),
        "caption_accuracy": share([m.caption_right for m in measures]),
    }


def per_frame(measures: Sequence[VideoMeasures]) -> dict[str, list[float]]:
    """Means over videos of one length, by frame index."""
    with np.errstate(all="ignore"):
        rows = np.stack([m.residual for m in measures])
        known = np.isfinite(rows)
        residual = np.where(known, rows, 0).sum(0) / np.maximum(known.sum(0), 1)
    return {
        "objects_present": np.mean([m.present for m in measures], axis=0).round(4).tolist(),
        "colour_identity": np.mean([m.colour_kept for m in measures], axis=0).round(4).tolist(),
        "shape_identity": np.mean([m.shape_kept for m in measures], axis=0).round(4).tolist(),
        "residual_px": residual.round(4).tolist(),
    }


def _residuals(positions: np.ndarray, radius: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance at frame i + 1 from where the simulator takes frame i with the velocity from i - 1 to i.

    An object that may have met something between i - 1 and i has no known velocity, and is left out; contacts between i
    and i + 1 are the simulator's business.
    """
    f = len(positions)
    means, every = np.full(f, np.nan), []
    for i in range(1, f - 1):
        before, now, after = positions[i - 1 : i + 2]
        seen = np.isfinite(before).all(-1) & np.isfinite(now).all(-1)
        if not seen.any():
            continue
        v = now[seen] - before[seen]
        free = _clear_of_contacts(now[seen], v, radius, width, height, 1.0)
        inside = np.clip(now[seen], radius, np.array([width, height]) - radius)
        predicted, _ = advance(inside, v, radius, width, height, 1.0)
        distance = np.linalg.norm(predicted - after[seen], axis=-1)
        distance = distance[free & np.isfinite(distance)]
        if len(distance):
            means[i + 1] = distance.mean()
            every.append(distance)
    return means, np.concatenate(every) if every else np.zeros(0)


def _accelerations(positions: np.ndarray, radius: float, width: int, height: int) -> np.ndarray:
    every = [np.zeros(0)]
    for i in range(1, len(positions) - 1):
        before, now, after = positions[i - 1 : i + 2]
        seen = np.isfinite(positions[i - 1 : i + 2]).all((0, 2))
        if seen.any():
            v = now[seen] - before[seen]
            free = _clear_of_contacts(now[seen], v, radius, width, height, 2.0)
            every.append(np.linalg.norm(after[seen] - 2 * now[seen] + before[seen], axis=-1)[free])
    return np.concatenate(every)


def _clear_of_contacts(
    x: np.ndarray, v: np.ndarray, radius: float, width: int, height: int, frames: float
) -> np.ndarray:
    """(n,) True where nothing is near enough for a contact within so many frames, by a pixel's margin."""
    reach = frames * np.linalg.norm(v, axis=-1) + 0.5
    walls = np.minimum(x - radius, np.array([width, height]) - radius - x).min(-1)
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1) - 2 * radius + 1e9 * np.eye(len(x))
    return (walls > reach) & (distance - reach[:, None] - reach[None] > 0).all(-1)


def _drift(speeds: np.ndarray) -> float:
    quarter = max(1, len(speeds) // 4)
    first, last = speeds[:quarter], speeds[-quarter:]
    if not np.isfinite(first).any() or not np.isfinite(last).any():
        return float("nan")
    return float(np.nanmean(last) / max(np.nanmean(first), 1e-6) - 1)


def _nanmedian(values: Sequence[float]) -> float:
    known = np.array(values)[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


__all__ = ["Track", "VideoMeasures", "measure_video", "per_frame", "summarise"]
