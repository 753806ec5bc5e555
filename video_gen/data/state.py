"""The true state of a clip of a built-in world, and the sizes and speeds of what moves in it."""

from dataclasses import dataclass, field

import numpy as np

RADIUS = 0.14
"""Radius of a circle over the shorter side; a square has the same area, a triangle four fifths of it."""
REACH = 1.4
"""Collision radius over the circle's: the corners of a triangle lie at 1.39 times it, so that nothing drawn overlaps."""
PIXELS_PER_FRAME = {"slow": 0.02, "fast": 0.05}
"""Speed over the shorter side, per frame."""


@dataclass(frozen=True)
class World:
    """One clip as it truly is. Positions are (x, y) in pixels, and pixel (0, 0) covers [0, 1] x [0, 1]."""

    kind: str
    caption: str
    height: int
    width: int
    positions: np.ndarray
    """(f, n, 2)"""
    velocities: np.ndarray
    """(f, n, 2) pixels per frame, at each frame."""
    looks: tuple[tuple[str, str], ...]
    """(colour, shape) of each object; of a digit ("white", "0" to "9")."""
    kicked: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    """(f, n), True where a kick changed the velocity at that frame."""
    anchor: tuple[float, float] | None = None
    """Where a pendulum hangs."""
    changes: tuple[tuple[int, str], ...] = ()
    """(frame, caption) of each change: from this frame on that caption holds."""
    shares: np.ndarray | None = None
    """(f, n) in [0, 1], how much of each object is to be seen: in a world that changes one with another look is another object,
    whose positions are NaN where its share is 0. None = all of all."""

    @property
    def radius(self) -> float:
        """Collision radius in pixels."""
        return collision_radius(self.height, self.width)


def object_radius(height: int, width: int) -> float:
    """Radius of a circle, in pixels."""
    return RADIUS * min(height, width)


def collision_radius(height: int, width: int) -> float:
    return REACH * object_radius(height, width)
