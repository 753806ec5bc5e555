"""A frame of a world on its way to a page, and as bytes. No torch."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the studio's server imports this, and is to start soon
    import numpy as np

HEADER = struct.Struct("<IIffHH")
"""In front of a frame's pixels, three bytes each: its number, the change of keys it answers to, milliseconds of its step, frames a
second, height, width."""


@dataclass(frozen=True)
class Shown:
    """A frame on its way to a page."""

    number: int
    pressed: int
    """The last change of what is held that it answers to."""
    made_ms: float
    """How long the step took that it is of."""
    rate: float
    """Frames a second."""
    frame: "np.ndarray"
    """(h, w, 3) uint8"""


def pack(shown: Shown) -> bytes:
    height, width = shown.frame.shape[:2]
    head = HEADER.pack(shown.number, shown.pressed, shown.made_ms, shown.rate, height, width)
    return head + shown.frame.tobytes()
