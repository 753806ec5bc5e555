"""The built-in worlds: motion that is known exactly, rendered to real video files with captions and the true state.

A folder holds `clip_000000.mp4` ..., `image_000000.png` ..., `metadata.jsonl` with the captions, `state/clip_000000.npz`
with what was drawn, and `world.json`, the configuration. Clip `i` depends on the configuration and `i` alone.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.captions import BACKGROUND, COLOURS, SPEEDS, Scene, caption, random_scene, with_article
from video_gen.data.config import WorldConfig
from video_gen.data.mechanics import advance
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError

RADIUS = 0.14
"""Radius of a circle over the shorter side; a square has the same area, a triangle four fifths of it."""
REACH = 1.4
"""Collision radius over the circle's: the corners of a triangle lie at 1.39 times it, so that nothing drawn overlaps."""
PIXELS_PER_FRAME = {"slow": 0.02, "fast": 0.05}
"""Speed over the shorter side, per frame."""
KICK_PROBABILITY = 0.06
CRF = 4
CHUNK = 16
COUNTS = ("num_clips", "num_images")
IMAGES = 10**9
"""Image `i` is the first frame of scene IMAGES + i: of none that is shown as a clip."""


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

    @property
    def radius(self) -> float:
        """Collision radius in pixels."""
        return collision_radius(self.height, self.width)


def object_radius(height: int, width: int) -> float:
    """Radius of a circle, in pixels."""
    return RADIUS * min(height, width)


def collision_radius(height: int, width: int) -> float:
    return REACH * object_radius(height, width)


# -------------------- simulating


def simulate(config: WorldConfig, index: int) -> World:
    """The motion of clip `index`."""
    rng = np.random.default_rng([config.seed, index])
    if config.kind == "pendulum":
        return _pendulum(config, rng)
    if config.kind == "digits":
        digits = rng.integers(10, size=int(rng.integers(1, 3)))
        speed = SPEEDS[rng.integers(len(SPEEDS))]
        text = f"{' and '.join(with_article(str(d)) for d in digits)}, {speed}"
        return _discs(config, rng, tuple(("white", str(d)) for d in digits), speed, text)
    scene = random_scene(rng, config.split)
    text = caption(scene) + (", kicked" if config.kind == "kicks" else "")
    return _discs(config, rng, scene.objects, scene.speed, text)


def _discs(config: WorldConfig, rng: np.random.Generator, looks: tuple, speed: str, text: str) -> World:
    height, width, n = config.height, config.width, len(looks)
    radius, size = collision_radius(height, width), min(height, width)
    x = _places(rng, n, radius, width, height)
    angle = rng.uniform(0, 2 * np.pi, n)
    v = PIXELS_PER_FRAME[speed] * size * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    positions, velocities = [x], [v]
    kicked = np.zeros((config.num_frames, n), dtype=bool)
    for frame in range(1, config.num_frames):
        x, v = advance(x, v, radius, width, height, 1.0)
        if config.kind == "kicks":
            kicked[frame] = rng.random(n) < KICK_PROBABILITY
            angle = rng.uniform(0, 2 * np.pi, n)
            fresh = np.linalg.norm(v, axis=1)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            v = np.where(kicked[frame][:, None], fresh, v)
        positions.append(x)
        velocities.append(v)
    return World(config.kind, text, height, width, np.stack(positions), np.stack(velocities), looks, kicked)


def _places(rng: np.random.Generator, n: int, radius: float, width: int, height: int) -> np.ndarray:
    """Random places that don't overlap."""
    while True:
        x = rng.uniform(radius, np.array([width, height]) - radius, (n, 2))
        distance = np.linalg.norm(x[:, None] - x[None], axis=-1) + 10 * radius * np.eye(n)
        if distance.min() > 2.02 * radius:
            return x


def _pendulum(config: WorldConfig, rng: np.random.Generator) -> World:
    """A bob on a rod: angle'' = -g / length * sin(angle), by fourth-order Runge-Kutta in 64 steps per frame."""
    size = min(config.height, config.width)
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    long, speed = bool(rng.integers(2)), SPEEDS[rng.integers(len(SPEEDS))]
    length = (0.58 if long else 0.4) * size
    gravity = (0.010 if speed == "fast" else 0.003) * size
    anchor = (config.width / 2, 0.12 * config.height)
    state = np.array([rng.choice([-1, 1]) * rng.uniform(0.35, 0.65), 0.0])

    def slope(s: np.ndarray) -> np.ndarray:
        return np.array([s[1], -gravity / length * np.sin(s[0])])

    states, h = [state], 1 / 64
    for _ in range(config.num_frames - 1):
        for _ in range(64):
            a = slope(state)
            b = slope(state + h / 2 * a)
            c = slope(state + h / 2 * b)
            d = slope(state + h * c)
            state = state + h / 6 * (a + 2 * b + 2 * c + d)
        states.append(state)
    angle, rate = np.array(states).T
    out = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    turn = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
    positions, velocities = np.array(anchor) + length * out, length * rate[:, None] * turn
    text = f"{with_article(f'{colour} pendulum')} on a {'long' if long else 'short'} rod, {speed}"
    looks = ((colour, "circle"),)
    shape = (config.num_frames, 1)
    return World(
        "pendulum",
        text,
        config.height,
        config.width,
        positions[:, None],
        velocities[:, None],
        looks,
        np.zeros(shape, dtype=bool),
        anchor,
    )


# -------------------- drawing


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
        centres = world.positions[:, i]
        mask = _digit(shape, centres, radius, height, width) if shape.isdigit() else None
        mask = object_mask(shape, centres, radius, height, width) if mask is None else mask
        _paint(frames, mask, COLOURS[colour])
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


# -------------------- files


def render_world(
    config: WorldConfig,
    folder: str | Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> int:
    """Render what the folder does not have yet.

    Args:
        progress: called with (clips and images that are there, all of them).
        workers: processes; default: one per core, and none for small jobs.
    Returns: how many clips and images were there before.
    Raises: DataError if the folder holds another world, or something else.
    """
    folder = Path(folder)
    _claim(config, folder)
    scenes = [*range(config.num_clips), *range(IMAGES, IMAGES + config.num_images)]
    missing = [i for i in scenes if not all(p.exists() for p in _files(folder, i))]
    before = done = len(scenes) - len(missing)
    if progress:
        progress(done, len(scenes))
    chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    workers = workers or (min(os.cpu_count() or 1, len(chunks)) if len(missing) >= 4 * CHUNK else 1)
    if workers <= 1:
        for chunk in chunks:
            done += _render_chunk(config, folder, chunk)
            if progress:
                progress(done, len(scenes))
    else:
        with ProcessPoolExecutor(workers) as pool:
            for future in as_completed([pool.submit(_render_chunk, config, folder, chunk) for chunk in chunks]):
                done += future.result()
                if progress:
                    progress(done, len(scenes))
    rows = ({"file_name": _files(folder, i)[0].name, "text": _caption(config, i)} for i in scenes)
    _write_text(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return before


def load_state(folder: str | Path, file_name: str) -> World:
    """The true state of a rendered clip. Raises: DataError if the folder has none for it."""
    path = Path(folder) / "state" / (Path(file_name).stem + ".npz")
    if not path.exists():
        raise DataError(f"{path}: no such state; only folders made by `video-gen worlds` have them")
    with np.load(path) as data:
        values = {name: data[name] for name in data.files}
    looks = tuple((str(c), str(s)) for c, s in values.pop("looks"))
    scalars = {k: values.pop(k).item() for k in ("kind", "caption", "height", "width")}
    anchor = values.pop("anchor")
    return World(**scalars, **values, looks=looks, anchor=tuple(anchor) if len(anchor) else None)


def _render_chunk(config: WorldConfig, folder: Path, indices: list[int]) -> int:
    for index in indices:
        world = simulate(config if index < IMAGES else config.replace(num_frames=1), index)
        video, *state = _files(folder, index)
        metadata = {"caption": world.caption, "world": config.kind}
        write_video(video, draw(world), config.fps, crf=CRF, metadata=metadata)
        for file in state:
            _write_state(file, world)
    return len(indices)


def _write_state(path: Path, world: World) -> None:
    arrays = {k: v for k, v in vars(world).items() if k not in ("looks", "anchor")}
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays, looks=np.array(world.looks), anchor=np.array(world.anchor or ()))
    os.replace(temporary, path)


def _claim(config: WorldConfig, folder: Path) -> None:
    """The folder is ours if it is empty or holds the same world; more clips and images may be added to it."""
    file = folder / "world.json"
    wanted = config.model_dump(mode="json")
    if file.exists():
        found = {"num_images": 0} | json.loads(file.read_text())
        keys = [k for k in wanted if k not in COUNTS and found.get(k) != wanted[k]]
        if keys:
            named = ", ".join(f"{k} {found.get(k)!r} and not {wanted[k]!r}" for k in keys)
            raise DataError(f"{folder}: holds another world ({named}); choose another folder, or delete this one")
        for count in COUNTS:
            if found[count] > wanted[count]:
                raise DataError(
                    f"{folder}: holds {found[count]} {count.removeprefix('num_')} of this world already, more than {count} "
                    f"{wanted[count]}; choose another folder, or delete this one"
                )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty and holds no world; choose another folder")
    (folder / "state").mkdir(parents=True, exist_ok=True)
    _write_text(file, json.dumps(wanted, indent=1))


def _caption(config: WorldConfig, index: int) -> str:
    return simulate(config.replace(num_frames=1), index).caption


def _files(folder: Path, index: int) -> tuple[Path, ...]:
    """An image; or a clip's video and its state. State last: where it is, the video is whole, too."""
    if index >= IMAGES:
        return (folder / f"image_{index - IMAGES:06d}.png",)
    name = f"clip_{index:06d}"
    return folder / f"{name}.mp4", folder / "state" / f"{name}.npz"


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    os.replace(temporary, path)


__all__ = [
    "Scene",
    "World",
    "collision_radius",
    "draw",
    "load_state",
    "object_mask",
    "object_radius",
    "render_world",
    "simulate",
]
