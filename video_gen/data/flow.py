"""Optical flow (DIS, arXiv:1603.03590): how far a picture moves, what comes next if it goes on so, and what lies between two.

It needs no weights. Frames are (h, w, 3) uint8; a flow is (h, w, 2), pixels right and down.
"""

from typing import Any

import numpy as np

from video_gen.errors import ConfigError, ShapeError

SMALLEST = 16
"""Pixels of a side below which there is no flow to be found."""
FASTEST = 0.05
"""VBench's dynamic degree looks at this share of the pixels, those that move most."""


def flow(first: np.ndarray, second: np.ndarray, finest: int = 0) -> np.ndarray:
    """Where each pixel of the first frame is in the second, relative to where it was.

    Args: finest: 0 looks at every pixel, 1 at half the size, in less than half the time.
    Raises: ConfigError if OpenCV is missing; ShapeError if the frames are too small.
    """
    cv2 = opencv()
    if min(first.shape[:2]) < SMALLEST:
        raise ShapeError(f"frames of {first.shape[0]}x{first.shape[1]}; flow needs {SMALLEST} pixels or more a side")
    cv2.setNumThreads(1)  # pictures are small, and several files at once use the cores better
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(finest)
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    return finder.calc(grey[0], grey[1], None)


def flows(video: np.ndarray) -> np.ndarray:
    """The flow from each frame of (f, h, w, 3) to the next, (f - 1, h, w, 2)."""
    return np.stack([flow(a, b) for a, b in zip(video, video[1:])])


def speed(found: np.ndarray) -> float:
    """Mean length of flows, in percent of the picture's diagonal."""
    diagonal = float(np.hypot(*found.shape[-3:-1]))
    return float(np.hypot(found[..., 0], found[..., 1]).mean()) / diagonal * 100


def fastest(found: np.ndarray) -> np.ndarray:
    """Mean length of the fastest pixels' flow, in pixels, of each of (n, h, w, 2)."""
    lengths = np.sort(np.hypot(found[..., 0], found[..., 1]).reshape(len(found), -1), axis=1)
    return lengths[:, -max(1, int(lengths.shape[1] * FASTEST)) :].mean(1)


def extrapolate(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames that follow, if each place goes on moving as it did between the last two; (count, h, w, 3) uint8.

    What comes in from outside is the nearest of the border. Of one frame nothing is known but itself: it is repeated.
    """
    last = frames[-1]
    if len(frames) < 2:
        return np.repeat(last[None], count, axis=0)
    back, grid = flow(last, frames[-2]), _grid(last)
    came, made = grid, []
    for _ in range(count):
        came = _sample(came, grid + back)  # a place shows what was one step back along the flow
        made.append(_sample(last, came))
    return np.stack(made)


def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The frame half-way between two, each moved half of its flow to the other; (h, w, 3) uint8."""
    grid = _grid(first)
    ahead, back = flow(first, second), flow(second, first)
    moved = [_sample(first, grid + back / 2), _sample(second, grid + ahead / 2)]
    return ((moved[0].astype(np.uint16) + moved[1] + 1) // 2).astype(np.uint8)


def _grid(frame: np.ndarray) -> np.ndarray:
    """The place of each pixel, (h, w, 2)."""
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    return np.stack([columns, rows], axis=-1)


def _sample(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at places, between pixels by cubic interpolation for pictures and linearly for numbers."""
    cv2 = opencv()
    kind = cv2.INTER_CUBIC if values.dtype == np.uint8 else cv2.INTER_LINEAR
    x, y = (np.ascontiguousarray(places[..., i], dtype=np.float32) for i in range(2))
    return cv2.remap(np.ascontiguousarray(values), x, y, kind, borderMode=cv2.BORDER_REPLICATE)


def opencv() -> Any:
    """The library. Raises: ConfigError if it is missing."""
    try:
        import cv2
    except ImportError:
        raise ConfigError("optical flow needs opencv-python-headless; pip install 'video-gen[footage]'") from None
    return cv2
