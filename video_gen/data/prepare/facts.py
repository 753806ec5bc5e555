"""What was seen of a file in one reading: plain numbers, from which everything later is decided. No thresholds here.

Facts are kept as one file for each of the pile, so that this is read once, and what is thought of it can change.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from video_gen.data.video_info import VideoInfo
from video_gen.files import written

VERSION = 3
"""Of what is measured: facts of another version are looked for again."""
FAST = 1
"""Level of compression: half as large as without, and a small part of the time of looking."""
SPANS = (4, 8, 16)
"""Frames before and after one that may be a blend of both."""
THUMB = (128, 72)
"""(width, height) of the pictures that are kept of samples, at most; all of the picture, whatever its form."""


@dataclass(frozen=True)
class Facts:
    """Of one file. Curves have a value per frame, (n,); samples are taken about once a second, (m, ...)."""

    name: str
    """Relative to the pile."""
    stamp: str
    """Of size and time of the file: what has another one is read again."""
    digest: str = ""
    """Of its content."""
    info: VideoInfo | None = None
    error: str | None = None
    """Why it cannot be read."""
    curves: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    """`time` in seconds; `light` and `contrast`, mean and standard deviation of grey levels; `step` and `colours`, how much a
    frame differs from the one before, in grey levels and as a share of the colours; `back`, how near a picture of a moment before
    or after comes to what was cut away from, as a share of `step`; `blend`, `change` and `alike`, what is left of a frame after the
    best blend of two around it, as a share of how far it is from the nearer one, how far these are apart, and their correlation."""
    samples: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    """`frame`, its index; `sharpness`; `motion`, percent of the diagonal a second; `grey` (m, 72, 128) at most and, for
    `duplicates.py`, `small` (m, SIDE, SIDE) uint8; `lit` (m, 4), rows and columns of black at the top, bottom, left and right, as
    shares."""

    @property
    def num_frames(self) -> int:
        return len(self.curves.get("time", ()))

    def within(self, start: int, end: int) -> np.ndarray:
        """Which samples lie in frames start to end - 1, as a mask."""
        frames = self.samples.get("frame", np.zeros(0, int))
        return (frames >= start) & (frames < end)


def save(facts: Facts, path: Path) -> None:
    """Raises: DataError if it cannot be written."""
    head: dict[str, Any] = {"version": VERSION, "name": facts.name, "stamp": facts.stamp, "digest": facts.digest}
    head |= {"info": facts.info and asdict(facts.info), "error": facts.error}
    arrays = {f"curve_{k}": v for k, v in facts.curves.items()} | {f"sample_{k}": v for k, v in facts.samples.items()}
    arrays["head"] = np.frombuffer(json.dumps(head).encode("utf-8"), np.uint8)
    with written(path) as temporary:
        temporary.write_bytes(zlib.compress(save_arrays(arrays), FAST))


def load(path: Path) -> Facts | None:
    """None if there are none, of this version, or they are damaged: then the file is read again."""
    try:
        found = load_arrays(zlib.decompress(path.read_bytes()))
        head = json.loads(found.pop("head").tobytes())
        if head.pop("version") != VERSION:
            return None
        info = head.pop("info")
        info = info and VideoInfo(**info | {"notes": tuple(info["notes"])})
        curves = {k.removeprefix("curve_"): x for k, x in found.items() if k.startswith("curve_")}
        samples = {k.removeprefix("sample_"): x for k, x in found.items() if k.startswith("sample_")}
        return Facts(**head, info=info, curves=curves, samples=samples)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, zlib.error):
        return None
