"""One reading of a file, from its first frame to its last: the curves and samples from which everything is decided.

Every frame is scaled by FFmpeg before its colours are worked out, and looked at as a picture of a few hundred cells; about once a
second one is looked at more closely.
"""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.duplicates import SIDE
from video_gen.data.flow import SMALLEST, fastest, flow, opencv
from video_gen.data.folder import content_hash
from video_gen.data.picture import Scaled
from video_gen.data.prepare.coding import shrinks, smaller
from video_gen.data.prepare.drafts import Drafts
from video_gen.data.prepare.facts import SPANS, THUMB, Facts
from video_gen.data.prepare.pieces import Box, shared_bars
from video_gen.data.video_file import Timed, every_frame, probe
from video_gen.data.video_info import VideoInfo
from video_gen.errors import DataError

CELLS = (48, 27)
"""(width, height) of the picture that every frame is looked at as."""
BINS = 6
"""Steps of each colour channel, in the share of colours that change."""
FLASH_SECONDS = 0.34
"""For how long a flash may last."""
LONGEST = 2 * max(SPANS) + 1
SAMPLE_SECONDS, LEAST_SAMPLES = 1.0, 8
"""Between samples, and how many of a short file."""
SUDDEN = 0.4
"""What changes by more than this share of the whole in one frame is cut, and not blended."""
MOTION_SECONDS = 0.2
"""Between the two frames whose motion is measured: long enough for slow ones to show."""
SHORT_SIDE, MOTION_SIDE = 256, 128
"""Pixels at which sharpness and motion are measured."""
ROUNDING, LEAST_DETAIL = 0.7, 2.0
"""Energies of detail, in squared grey levels: what whole numbers of brightness alone give, and where, if even the coarse detail has
less, the picture is blurred altogether."""
BLACK = 20
"""Grey levels up to which a border counts as black."""


def look_at(path: Path, name: str, stamp: str, side: int | None = None, drafts: Drafts | None = None) -> Facts:
    """All facts of a file; of one that cannot be read, why. Raises: ConfigError if a library is missing.

    Args:
        side: pixels of the short side of pictures that will be wanted anyway; None = all.
        drafts: writes clips on the way.
    """
    digest = ""
    try:
        digest = content_hash(path)
        info = probe(path)
        reading = _Reading(info, min(side or SHORT_SIDE, SHORT_SIDE))
        if drafts is not None:
            drafts.begin(info, digest)
        for timed in every_frame(path, info, shrinks(info, side)):
            picture = reading.add(timed)
            if drafts is not None:
                drafts.add(timed, picture, reading)
    except DataError as error:
        return Facts(name, stamp, digest, error=str(error))
    if drafts is not None:
        drafts.end(reading)
    return Facts(name, stamp, digest, info, None, reading.curves.since(0), reading.samples.finished())


class _Reading:
    """What was seen so far."""

    def __init__(self, info: VideoInfo, side: int):
        self.curves, self.samples, self.size = (
            _Curves(info.fps or 1.0),
            _Samples(info),
            smaller(info.width, info.height, side),
        )
        self.count = 0

    def add(self, timed: Timed) -> Scaled:
        """Returns: the picture that was looked at."""
        picture = timed.scaled(*self.size)  # once: cells are made of it, and clips of that size
        self.curves.add(timed.start, picture.rgb(CELLS))
        self.samples.add(self.count, timed)
        self.count += 1
        return picture

    def since(self, frame: int) -> Facts:
        """Curves alone, of frames from `frame` on."""
        return Facts("", "", curves=self.curves.since(frame))

    def bars(self) -> Box:
        """What is black on opposite sides in all of it."""
        rows = self.samples.rows
        return shared_bars(np.array(rows["lit"], np.float32), np.array([grey.max() for grey in rows["grey"]]))


# -------------------- every frame


class _Curves:
    """Frames come in one after the other; those around one are kept as long as it takes to tell what it is."""

    def __init__(self, fps: float):
        self.flash = int(np.clip(round(FLASH_SECONDS * fps), 2, max(SPANS)))
        self.near: deque[np.ndarray] = deque(maxlen=LONGEST)
        """The last frames, (cells * 3,) float32."""
        self.rows: dict[str, list[float]] = {name: [] for name in ("time", "light", "contrast", "step", "colours")}
        self.back: list[float] = []
        self.blend: list[float] = []
        self.change: list[float] = []
        self.alike: list[float] = []
        self.histogram: np.ndarray | None = None

    def add(self, time: float, picture: np.ndarray) -> None:
        flat = picture.reshape(-1).astype(np.float32)
        grey = flat.reshape(-1, 3) @ np.full(3, 1 / 3, np.float32)
        histogram = _histogram(picture)
        step, colours = 0.0, 0.0
        if self.near:
            step = _apart(flat, self.near[-1])
            colours = float(np.abs(histogram - self.histogram).sum() / 2)
        self.histogram = histogram
        for name, value in (("time", time), ("light", grey.mean()), ("contrast", grey.std()), ("step", step)):
            self.rows[name].append(float(value))
        self.rows["colours"].append(colours)
        self.back.append(1.0)
        self.blend.append(1.0)
        self.change.append(0.0)
        self.alike.append(1.0)
        self.near.append(flat)
        self._returns(step)
        self._blends()

    def _returns(self, step: float) -> None:
        """Is this frame what was there just before the one before it? And is it what a frame of a moment ago cut away from?"""
        index, most = len(self.back) - 1, min(self.flash + 1, len(self.near) - 2)
        if step > 0 and most >= 2:
            for ago in range(2, most + 1):
                near = _apart(self.near[-1 - ago], self.near[-1])
                self.back[index] = min(self.back[index], near / step)  # the end of a flash
                before = self.rows["step"][index - ago + 1]  # that the flash began with
                if before > 0:
                    self.back[index - ago + 1] = min(self.back[index - ago + 1], near / before)

    def _blends(self) -> None:
        """Of the frame that has enough of them on both sides: is it a mixture of one before and one after?"""
        for span in SPANS:
            if len(self.near) < 2 * span + 1:
                return
            before, middle, after = self.near[-1 - 2 * span], self.near[-1 - span], self.near[-1]
            index, difference = len(self.back) - 1 - span, after - before
            change = _apart(after, before)
            if change < 4 or max(self.rows["step"][-2 * span :]) > SUDDEN * change:
                continue
            share = float((middle - before) @ difference / (difference @ difference))
            nearest = min(_apart(middle, before), _apart(middle, after))
            left = _apart(middle, before + share * difference) / max(nearest, 1e-3)
            if 0.15 <= share <= 0.85 and left < self.blend[index]:
                self.blend[index], self.change[index] = left, change
                self.alike[index] = _correlation(before, after)

    def since(self, frame: int) -> dict[str, np.ndarray]:
        """As they are now, from a frame on."""
        rows = self.rows | {"back": self.back, "blend": self.blend, "change": self.change, "alike": self.alike}
        # float32 would be a frame off after an hour
        kinds = {"time": np.float64}
        return {name: np.array(values[frame:], kinds.get(name, np.float32)) for name, values in rows.items()}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures; 0 if one of them is of one colour."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > len(a) else 0.0


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference; in one call, since it is asked for ten times a frame."""
    cv2 = opencv()
    return cv2.norm(a, b, cv2.NORM_L1) / a.size


def _histogram(picture: np.ndarray) -> np.ndarray:
    """Shares of the colours, (BINS, BINS, BINS)."""
    counts = opencv().calcHist([picture], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
    return counts / (picture.size // 3)


# -------------------- now and then


class _Samples:
    """A closer look at some frames, and at one a moment later for how things move."""

    def __init__(self, info: VideoInfo):
        self.info = info
        self.every = max(1e-6, min(SAMPLE_SECONDS, info.duration / LEAST_SAMPLES))
        self.size = smaller(info.width, info.height, SHORT_SIDE)
        self.motion_size = smaller(info.width, info.height, MOTION_SIDE)
        self.thumb = min(THUMB[0], self.size[0]), min(THUMB[1], self.size[1])
        self.next = self.every / 2
        self.rows: dict[str, list[Any]] = {
            name: [] for name in ("frame", "sharpness", "grey", "small", "lit", "motion")
        }
        self.waiting: deque[tuple[float, np.ndarray]] = deque()
        """Samples whose motion is not known yet: time, and picture."""

    def add(self, index: int, timed: Timed) -> None:
        if self.waiting and timed.start - self.waiting[0][0] >= MOTION_SECONDS - 1e-6:
            self._measure(timed)
        if timed.end <= self.next and self.info.kind == "video" and index + 1 < self.info.num_frames:
            return
        if timed.end <= self.next and self.rows["frame"]:
            return
        self.next += self.every * max(1.0, np.ceil((timed.end - self.next) / self.every))
        picture = timed.scaled(*self.size)
        grey = _grey(picture.rgb())
        self.rows["frame"].append(index)
        self.rows["sharpness"].append(sharpness(grey))
        self.rows["grey"].append(_grey(picture.rgb(self.thumb)).round().astype(np.uint8))
        self.rows["small"].append(_grey(picture.rgb((SIDE, SIDE))).round().astype(np.uint8))
        self.rows["lit"].append(bars(grey))
        self.rows["motion"].append(np.nan)
        self.waiting.append((timed.start, picture.rgb(self.motion_size)))

    def _measure(self, timed: Timed) -> None:
        then, before = self.waiting.popleft()
        number = len(self.rows["motion"]) - 1 - len(self.waiting)
        after = timed.scaled(*self.size).rgb(self.motion_size)
        self.rows["motion"][number] = _moved(before, after) / (timed.start - then)

    def finished(self) -> dict[str, np.ndarray]:
        kinds = {"frame": np.int64, "grey": np.uint8, "small": np.uint8}
        return {name: np.array(values, dtype=kinds.get(name, np.float32)) for name, values in self.rows.items()}


def _moved(before: np.ndarray, after: np.ndarray) -> float:
    """How far the fastest twentieth of the picture moves, in percent of its diagonal: a small thing that moves counts."""
    if min(before.shape[:2]) < SMALLEST:
        return 0.0
    finest = 1 if min(before.shape[:2]) >= MOTION_SIDE else 0
    return float(fastest(flow(before, after, finest)[None])[0] / np.hypot(*before.shape[:2])) * 100


def _grey(picture: np.ndarray) -> np.ndarray:
    """(h, w) float32 in [0, 255], ITU-R BT.601."""
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def sharpness(grey: np.ndarray) -> float:
    """Energy of the finest detail over that of detail twice as coarse; natural pictures in focus have 0.1 to 1."""
    h, w = (side // 2 * 2 for side in grey.shape)
    if min(h, w) < 8:
        return 1.0
    half = grey[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))
    coarse = float((_laplacian(half) ** 2).mean())
    return max(0.0, float((_laplacian(grey) ** 2).mean()) - ROUNDING) / max(coarse, LEAST_DETAIL)


def _laplacian(x: np.ndarray) -> np.ndarray:
    return x[1:-1, :-2] + x[1:-1, 2:] + x[:-2, 1:-1] + x[2:, 1:-1] - 4 * x[1:-1, 1:-1]


def bars(grey: np.ndarray) -> tuple[float, float, float, float]:
    """Shares of the picture that are black at the top, the bottom, the left and the right; zeros for a black picture."""
    found: list[float] = []
    for axis in (1, 0):
        lit = np.flatnonzero((grey > BLACK).mean(axis=axis) > 0.01)
        length = grey.shape[1 - axis]
        found += [lit[0] / length, (length - 1 - lit[-1]) / length] if len(lit) else [0.0, 0.0]
    return found[0], found[1], found[2], found[3]
