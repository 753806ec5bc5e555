"""Where in the maze a picture was taken: the pose, of all on a grid, whose true view is the nearest to it."""

from dataclasses import dataclass

import numpy as np

from video_gen.data.maze import FREE, TURN, Layout, Pose, Walk, can_stand, gather, make_layout
from video_gen.data.maze_view import draw_walk

GRID = 3
"""Places along a side of a cell."""
SMALL = 4
"""Pictures are compared at so many times fewer pixels along each side."""


@dataclass(frozen=True)
class Poses:
    """Views of a layout, and where they were taken."""

    layout: Layout
    places: np.ndarray
    """(n, 3): x, y, heading."""
    views: np.ndarray
    """(n, d) float32"""

    def nearest(self, pictures: np.ndarray) -> np.ndarray:
        """(m, h, w, 3) uint8 to their poses (m, 3)."""
        wanted = shrunk(pictures)
        distance = (self.views**2).sum(1) - 2 * wanted @ self.views.T
        return self.places[distance.argmin(1)]

    def room(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The rooms of places."""
        return self.layout.rooms[y.astype(int), x.astype(int)]


def known_poses(seed: int, layouts: int, number: int, height: int, width: int, room: int | None = None) -> Poses:
    """All poses on a grid where one can stand in a layout's rooms, or in one of them, doors closed."""
    layout = make_layout(seed, number)
    closed = (0.0,) * len(layout.doors), (0,) * len(layout.doors)
    turns = range(round(360 / TURN))
    offsets = (np.arange(GRID) + 0.5) / GRID
    poses = [
        Pose(cx + ox, cy + oy, TURN * turn, *closed)
        for cy, cx in np.argwhere(layout.cells == FREE)
        if room is None or layout.rooms[cy, cx] == room
        for oy in offsets
        for ox in offsets
        if can_stand(layout, cx + ox, cy + oy)
        for turn in turns
    ]
    walk: Walk = gather(number, poses, np.zeros((len(poses), 0)))
    views = shrunk(draw_walk(seed, layouts, walk, height, width))
    return Poses(layout, np.stack([walk.x, walk.y, walk.heading], axis=1), views)


def shrunk(pictures: np.ndarray) -> np.ndarray:
    """(m, h, w, 3) uint8 to (m, d) float32, of fewer pixels."""
    m, h, w, _ = pictures.shape
    h, w = h // SMALL * SMALL, w // SMALL * SMALL
    parts = pictures[:, :h, :w].reshape(m, h // SMALL, SMALL, w // SMALL, SMALL, 3)
    return parts.mean((2, 4), dtype=np.float32).reshape(m, -1) / 255


def turned(heading: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Degrees between headings, 0 to 180."""
    return np.abs((heading - other + 180) % 360 - 180)
