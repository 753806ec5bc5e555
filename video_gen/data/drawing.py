"""How the built-in worlds look: antialiased shapes on a dark ground, drawn where the true state says."""

from typing import Any

import numpy as np

from video_gen.data.captions import BACKGROUND, COLOURS
from video_gen.data.state import World, object_radius
from video_gen.errors import ConfigError


def object_mask(shape: str, centres: np.ndarray, radius: float, height: int, width: int) -> np.ndarray:
    """Coverage of pixels by a shape around its centre of mass, antialiased over one pixel; `radius` is a circle's.

    Args: centres: (..., 2) as (x, y).
    Returns: (..., height, width) in [0, 1].
    """
    centres = np.asarray(centres, dtype=np.float64)
    dx = np.arange(width) + 0.5 - centres[..., 0, None, None]
    dy = (np.arange(height) + 0.5)[:, None] - centres[..., 1, None, None]
    if shape == "circle":
        distance = np.sqrt(dx**2 + dy**2) - radius
    elif shape == "square":
        distance = np.maximum(abs(dx), abs(dy)) - radius * np.sqrt(np.pi) / 2
    elif shape == "triangle":  # equilateral, point up; `inner` is the radius of the circle within
        inner = radius * np.sqrt(0.8 * np.pi / (3 * np.sqrt(3)))
        sides = np.abs(dx) * np.sqrt(3) / 2 - dy / 2
        distance = np.maximum(dy, sides) - inner
    else:
        raise ConfigError(f"no shape '{shape}'; there are circle, square and triangle")
    return np.clip(0.5 - distance, 0, 1)


def draw(world: World) -> np.ndarray:
    """The clip as it is seen, (f, h, w, 3) uint8."""
    height, width = world.height, world.width
    frames = np.broadcast_to(np.array(BACKGROUND, dtype=np.float64), (len(world.positions), height, width, 3)).copy()
    radius = object_radius(height, width)
    if world.anchor is not None:
        _paint(frames, _rods(world), (120, 120, 120))
    for i, (colour, shape) in enumerate(world.looks):
        centres = world.positions[:, i] if world.shares is None else np.nan_to_num(world.positions[:, i])
        mask = _digit(shape, centres, radius, height, width) if shape.isdigit() else None
        mask = object_mask(shape, centres, radius, height, width) if mask is None else mask
        if world.shares is None:
            _paint(frames, mask, COLOURS[colour])
        else:  # two that turn into one another add up
            part = (world.shares[:, i, None, None] * mask)[..., None]
            frames += part * (np.array(COLOURS[colour]) - np.array(BACKGROUND))
    return frames.round().astype(np.uint8)


def _paint(frames: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    frames += mask[..., None] * (np.array(colour) - frames)


def _rods(world: World) -> np.ndarray:
    """Coverage of the line from the anchor to the bob, one and a half pixels wide, (f, h, w)."""
    assert world.anchor is not None
    a, b = np.array(world.anchor), world.positions[:, 0]
    grid = np.stack(np.meshgrid(np.arange(world.width) + 0.5, np.arange(world.height) + 0.5), axis=-1) - a
    along = (b - a)[:, None, None]
    share = np.clip((grid * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return np.clip(1.25 - np.linalg.norm(grid - share[..., None] * along, axis=-1), 0, 1)


def _digit(name: str, centres: np.ndarray, radius: float, height: int, width: int) -> np.ndarray:
    """A handwritten digit of scikit-learn, the first of its class, bilinearly placed with sub-pixel precision."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("the world 'digits' needs scikit-learn; pip install 'video-gen[eval]'") from None
    data: Any = load_digits()
    image = np.pad(data.images[list(data.target).index(int(name))] / 16, 1)
    scale = 8 / (2 * radius * 1.1)
    u = (np.arange(width) + 0.5 - centres[:, None, 0, None]) * scale + 4.5
    v = (np.arange(height)[:, None] + 0.5 - centres[:, 1, None, None]) * scale + 4.5
    u, v = np.broadcast_arrays(u, v)
    inside = (u >= 0) & (u <= 9) & (v >= 0) & (v <= 9)
    u, v = np.clip(u, 0, 8.999), np.clip(v, 0, 8.999)
    i, j = v.astype(int), u.astype(int)
    a, b = v - i, u - j
    mixed = (1 - a) * ((1 - b) * image[i, j] + b * image[i, j + 1])
    mixed = mixed + a * ((1 - b) * image[i + 1, j] + b * image[i + 1, j + 1])
    return np.where(inside, mixed, 0.0)
