"""How a clip is cut out of the picture, once in the middle and again elsewhere: more to see in the same footage; no torch.

A view is a part of the clip's name, as its frames are: the same every time, whoever asks and in whatever order. So it is encoded
once and cached like any clip, and a run that goes on meets it again.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from video_gen.data.config import Bucket, ClipConfig
from video_gen.data.video_info import VideoInfo


@dataclass(frozen=True)
class View:
    """A part of the picture that has the form of the clip."""

    x: float = 0.5
    y: float = 0.5
    """Where it lies in the room that it leaves, 0 to 1: 0 at the left or the top."""
    zoom: float = 1.0
    """By which its sides are smaller than those of the largest such part."""
    mirrored: bool = False
    """Whether left and right change places."""

    @property
    def suffix(self) -> str:
        """What it adds to the clip's name."""
        if self == MIDDLE:
            return ""
        return f"-{self.x:.4f}-{self.y:.4f}-{self.zoom:.4f}" + ("-mirrored" if self.mirrored else "")


MIDDLE = View()


def views_of(name: str, info: VideoInfo, bucket: Bucket, config: ClipConfig) -> list[View]:
    """The views of a clip to train on: that of the middle, and `config.views` - 1 more, as far as they can differ.

    Args: name: the clip's, from which they are drawn.
    """
    _, height, width = bucket
    scale = max(height / info.height, width / info.width)
    room = (info.width * scale - width > 0.5, info.height * scale - height > 0.5)
    most = min(config.zoom, max(1.0, 1 / scale))  # no closer than the picture has pixels
    found = [MIDDLE]
    for number in range(1, config.views):
        x, y, zoom = _drawn(f"{name}-{number}")
        zoom = round(most**zoom, 4)
        mirrored = config.flip and number % 2 == 1
        closer = zoom > 1
        view = View(
            round(x, 4) if room[0] or closer else 0.5, round(y, 4) if room[1] or closer else 0.5, zoom, mirrored
        )
        if view not in found:
            found.append(view)
    return found


def _drawn(name: str) -> tuple[float, float, float]:
    """Three numbers in [0, 1) that a name stands for."""
    seed = int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest())
    x, y, z = np.random.default_rng(seed).random(3)
    return float(x), float(y), float(z)


def fit(frame: np.ndarray, height: int, width: int, view: View = MIDDLE) -> np.ndarray:
    """Scale (h, w, 3) uint8 to cover height x width, with antialiasing, and crop: the centre, or what a view shows."""
    h, w = frame.shape[:2]
    made = frame
    if (h, w) != (height, width) or view.zoom != 1:
        scale = max(height / h, width / w) * view.zoom
        box_h, box_w = height / scale, width / scale  # the part of the source that stays
        left, top = max(0.0, (w - box_w) * view.x), max(0.0, (h - box_h) * view.y)
        box = (left, top, min(w, left + box_w), min(h, top + box_h))
        made = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))
    return np.ascontiguousarray(made[:, ::-1]) if view.mirrored else made
