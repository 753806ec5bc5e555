"""What the maze is made of: patterns of walls, floors and doors, a set of its own for each room, and the things in it."""

import colorsys
from dataclasses import dataclass
from functools import cache

import numpy as np

SIZE = 64
LEVELS = 5
"""A texture and its halves, down to 4 pixels a side: from afar a wall is its mean and not a flicker."""
VARIANTS = 3
"""Walls of a room: bare, and with one of two signs on them."""
GOLDEN = 0.61803398875


@dataclass(frozen=True)
class Textures:
    """All textures as one table of pixels, (n, 3) float32 in [0, 255]."""

    pixels: np.ndarray
    count: int

    def look_up(self, texture: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray) -> np.ndarray:
        """The pixels of textures at `u`, `v` in [0, 1), at a level of detail from 0, the finest. Returns: (..., 3)."""
        side = SIZE >> level
        start = np.array(_starts(self.count))[level]
        index = start + (texture * side + (v * side).astype(np.int32)) * side + (u * side).astype(np.int32)
        return self.pixels[index]


def wall_of(room: np.ndarray, variant: np.ndarray) -> np.ndarray:
    return room * (VARIANTS + 1) + variant


def floor_of(room: np.ndarray) -> np.ndarray:
    return room * (VARIANTS + 1) + VARIANTS


def door_of(rooms: int) -> int:
    return rooms * (VARIANTS + 1)


@cache
def make_textures(seed: int, rooms: int) -> Textures:
    """Of each room, counted over all layouts, its walls and its floor; last the door."""
    made = []
    for room in range(rooms):
        rng = np.random.default_rng([seed, room, 2])
        hue = (room * GOLDEN + seed * 0.37) % 1
        wall = _wall(room % 6, hue, rng)
        signs = rng.permutation(4)[: VARIANTS - 1]
        made += [wall, *(_sign(wall, int(sign), (hue + 0.35 + 0.3 * k) % 1) for k, sign in enumerate(signs))]
        made.append(_floor(int(rng.integers(3)), (hue + 0.5) % 1, rng))
    made.append(_door())
    whole = np.stack(made).astype(np.float32)
    levels = [whole]
    while len(levels) < LEVELS:
        last = levels[-1]
        n, side = len(last), last.shape[1] // 2
        levels.append(last.reshape(n, side, 2, side, 2, 3).mean((2, 4)))
    return Textures(np.concatenate([level.reshape(-1, 3) for level in levels]), len(made))


def _starts(count: int) -> list[int]:
    starts = [0]
    for level in range(LEVELS - 1):
        starts.append(starts[-1] + count * (SIZE >> level) ** 2)
    return starts


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _grain(rng: np.random.Generator, cells: int, amount: float) -> np.ndarray:
    """Patches of light and dark, (SIZE, SIZE, 1) around 1."""
    return 1 + amount * np.kron(rng.standard_normal((cells, cells)), np.ones((SIZE // cells,) * 2))[..., None]


def _wall(pattern: int, hue: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    base, dark = _colour(hue, 0.55, 0.85), _colour(hue, 0.65, 0.5)
    if pattern == 0:  # bricks
        row = y // 16
        seam = (y % 16 < 2) | ((x + 16 * (row % 2)) % 32 < 2)
        tone = rng.uniform(0.85, 1.1, (4, 2))[row, ((x + 16 * (row % 2)) // 32) % 2]
        return np.where(seam[..., None], dark, base * tone[..., None])
    if pattern == 1:  # planks
        board = x // 32
        tone = rng.uniform(0.8, 1.1, 2)[board] * (1 + 0.04 * np.sin(y / 6 + 3 * board))
        return np.where((x % 32 < 3)[..., None], dark, base * tone[..., None])
    if pattern == 2:  # stone blocks
        tone = rng.uniform(0.8, 1.1, (2, 2))[y // 32, x // 32]
        seam = (y % 32 < 3) | (x % 32 < 3)
        return np.where(seam[..., None], dark, base * tone[..., None] * _grain(rng, 8, 0.03))
    if pattern == 3:  # tiles in two colours
        other = _colour(hue + 0.1, 0.45, 0.95)
        return np.where((((x // 32) + (y // 32)) % 2 == 0)[..., None], base, other)
    if pattern == 4:  # plaster above, panels below
        upper = _colour(hue, 0.25, 0.95)
        panel = (y >= 40) & (x % 32 >= 3)
        return np.where((y < 36)[..., None], upper, np.where(panel[..., None], base, dark))
    stripe = (x // 16) % 2 == 0  # wallpaper
    return np.where(stripe[..., None], base, _colour(hue + 0.05, 0.45, 0.72))


def _sign(wall: np.ndarray, shape: int, hue: float) -> np.ndarray:
    """A framed sign in the middle of a wall."""
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5) / SIZE
    frame, inner = (np.maximum(abs(x), abs(y + 0.06)) < size for size in (0.27, 0.22))
    marks = (
        np.hypot(x, y + 0.06) < 0.15,
        abs(x) + abs(y + 0.06) < 0.18,
        (abs(x) < 0.055) | (abs(y + 0.06) < 0.055),
        (y + 0.06 > -0.15) & (y < 0.09) & (abs(x) < (y + 0.21) * 0.6),
    )
    sign = np.where((inner & marks[shape])[..., None], _colour(hue, 0.85, 0.95), np.array([240.0, 236.0, 220.0]))
    return np.where(inner[..., None], sign, np.where(frame[..., None], np.array([60.0, 45.0, 35.0]), wall))


def _floor(pattern: int, hue: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    a, b = _colour(hue, 0.35, 0.6), _colour(hue, 0.38, 0.5)
    if pattern == 0:
        return np.where((((x // 32) + (y // 32)) % 2 == 0)[..., None], a, b)
    if pattern == 1:
        return np.where((x % 32 < 4)[..., None], b, a * rng.uniform(0.85, 1.1, 2)[x // 32][..., None])
    return np.where((np.hypot(x - 31.5, y - 31.5) < 20)[..., None], b, a)


def _door() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    wood, iron = np.array([150.0, 96.0, 48.0]), np.array([70.0, 74.0, 84.0])
    board = wood * np.array([0.9, 1.05, 0.95, 1.1])[x // 16][..., None]
    metal = (abs(y - 14) < 4) | (abs(y - 50) < 4) | (x < 3) | (x > 60) | (np.hypot(x - 52, y - 32) < 4)
    return np.where(metal[..., None], iron, board)


@cache
def sprite(kind: str, hue: float) -> np.ndarray:
    """A thing as seen from any side: (32, 32, 4), colours in [0, 255] and coverage in [0, 1]."""
    y, x = (np.mgrid[:32, :32] - 15.5) / 16
    light = np.clip(1 - 0.5 * np.hypot(x + 0.3, y + 0.3), 0.3, 1)[..., None]
    if kind == "barrel":
        covered = (abs(x) < 0.5 + 0.12 * (1 - (y - 0.35) ** 2 / 0.5)) & (y > -0.3)
        bands = (abs(y - 0.0) < 0.08) | (abs(y - 0.7) < 0.08)
        colour = np.where(bands[..., None], _colour(0.6, 0.1, 0.4), _colour(0.07, 0.7, 0.75))
    elif kind == "plant":
        pot = (abs(x) < 0.32 - 0.1 * y) & (y > 0.45)
        leaf = np.hypot(x, (y + 0.15) * 0.8) < 0.55 + 0.12 * np.cos(7 * np.arctan2(y + 0.15, x))
        covered = pot | leaf
        colour = np.where(pot[..., None], _colour(0.04, 0.7, 0.7), _colour(0.33 + 0.1 * (hue - 0.5), 0.8, 0.75))
    elif kind == "lamp":
        pole, shade = (abs(x) < 0.08) & (y > -0.4), (abs(y + 0.55) < 0.35) & (abs(x) < 0.45 + 0.4 * (y + 0.5))
        foot = (abs(x) < 0.35) & (y > 0.88)
        covered = pole | shade | foot
        colour = np.where(shade[..., None], np.array([255.0, 236.0, 140.0]), _colour(0.6, 0.1, 0.25))
        light = np.where(shade[..., None], 1.0, light)
    elif kind == "orb":
        covered = np.hypot(x, y) < 0.55
        colour = np.broadcast_to(_colour(hue, 0.75, 1.0), (32, 32, 3))
        light = np.clip(1.25 - 0.9 * np.hypot(x + 0.15, y + 0.15), 0.35, 1.2)[..., None]
    else:  # ghost
        covered = (np.hypot(x, y + 0.2) < 0.5) | ((abs(x) < 0.5) & (y > -0.2) & (y < 0.6 + 0.12 * np.cos(14 * x)))
        eyes = np.hypot(abs(x) - 0.2, y + 0.2) < 0.12
        colour = np.where(eyes[..., None], np.array([25.0, 25.0, 45.0]), _colour(hue, 0.25, 1.0))
    return np.concatenate([np.clip(colour * light, 0, 255), covered[..., None].astype(float)], axis=-1).astype(
        np.float32
    )
