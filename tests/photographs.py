"""Clips that a camera might have made: scikit-image's photographs, moved along known paths, and the ways to spoil them."""

from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

data = pytest.importorskip("skimage.data")
NAMES = ("astronaut", "coffee", "chelsea", "rocket")


@cache
def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def moved(name, right=0.0, down=0.0, zoom=1.0, frames=9, size=64, part=0.5, start=(0.5, 0.5)):
    """A camera that goes so many pixels right and down a frame, and nearer by a factor: (f, size, size, 3) uint8."""
    picture = photograph(name)
    x, y, side = start[0] * picture.width, start[1] * picture.height, part * min(picture.size)
    made = []
    for i in range(frames):
        half = side / 2 / zoom**i
        cx, cy = x + right * i * 2 * half / size, y + down * i * 2 * half / size
        box = (max(0, cx - half), max(0, cy - half), min(picture.width, cx + half), min(picture.height, cy + half))
        made.append(np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)))
    return np.stack(made)


def shots(count, seed=0, frames=9, size=64):
    """Clips of all photographs, with drawn paths: (n, f, size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        right, down = rng.uniform(-1.5, 1.5, 2)
        start, part, zoom = rng.uniform(0.35, 0.65, 2), rng.uniform(0.3, 0.5), rng.uniform(1, 1.03)
        made.append(moved(NAMES[i % len(NAMES)], right, down, zoom, frames, size, part, start))
    return np.stack(made)


# -------------------- ways to spoil clips (n, f, h, w, 3), from little to much


def blurred(clips, radius):
    flat = clips.reshape(-1, *clips.shape[2:])
    filtered = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius))) for frame in flat]
    return np.stack(filtered).reshape(clips.shape)


def noisy(clips, deviation):
    noise = np.random.default_rng(1).normal(0, deviation, clips.shape)
    return (clips + noise).round().clip(0, 255).astype(np.uint8)


def frozen(clips, frames):
    """The last so many frames stand still."""
    made = clips.copy()
    made[:, -frames:] = made[:, -frames - 1][:, None]
    return made


def shuffled(clips, frames):
    """So many frames of each change places, in a ring."""
    rng, made = np.random.default_rng(2), clips.copy()
    for clip in made:
        places = rng.permutation(len(clip))[:frames]
        clip[places] = clip[np.roll(places, 1)]
    return made


def drifted(clips, levels):
    """Colours go off over time."""
    time = np.linspace(0, 1, clips.shape[1]).reshape(1, -1, 1, 1, 1)
    return (clips + time * np.array([1, -0.5, -1]) * levels).round().clip(0, 255).astype(np.uint8)


SPOILED = {
    blurred: (0.5, 1, 2),
    noisy: (5, 15, 30),
    frozen: (2, 4, 8),
    shuffled: (2, 5, 9),
    drifted: (20, 50, 100),
}
