"""How things move in the built-in worlds: the true state of each clip, from a configuration and a number."""

import numpy as np

from video_gen.data.captions import COLOURS, SPEEDS, Scene, caption, random_scene, with_article
from video_gen.data.config import WorldConfig
from video_gen.data.mechanics import advance, places
from video_gen.data.state import PIXELS_PER_FRAME, World, collision_radius
from video_gen.data.turning import turning, turning_at_random

KICK_PROBABILITY = 0.06


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
    if is_led(config, index):
        return _discs(config, rng, scene.objects, scene.speed, caption(scene), kicks=True)
    if config.changes:
        return turning_at_random(config, rng, scene)
    kicks = config.kind == "kicks"
    return _discs(config, rng, scene.objects, scene.speed, caption(scene) + (", kicked" if kicks else ""), kicks)


def is_led(config: WorldConfig, index: int) -> bool:
    """Whether clip `index` is one of those whose objects are kicked, and told by its last frame."""
    return bool(np.random.default_rng([config.seed, index, 1]).random() < config.led)


def simulate_change(config: WorldConfig, before: Scene, after: Scene, frame: int) -> World:
    """A clip of `bounce` whose scene turns into another at a frame 1 + a multiple of `CHANGE_FRAMES`, or later if there is no room
    then; `config.seed` alone tells it from others."""
    return turning(config, np.random.default_rng(config.seed), before, [frame], lambda _: after)


def _discs(
    config: WorldConfig, rng: np.random.Generator, looks: tuple, speed: str, text: str, kicks: bool = False
) -> World:
    height, width, n = config.height, config.width, len(looks)
    radius, size = collision_radius(height, width), min(height, width)
    x = places(rng, n, radius, width, height)
    angle = rng.uniform(0, 2 * np.pi, n)
    v = PIXELS_PER_FRAME[speed] * size * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    positions, velocities = [x], [v]
    kicked = np.zeros((config.num_frames, n), dtype=bool)
    for frame in range(1, config.num_frames):
        x, v = advance(x, v, radius, width, height, 1.0)
        if kicks:
            kicked[frame] = rng.random(n) < KICK_PROBABILITY
            angle = rng.uniform(0, 2 * np.pi, n)
            fresh = np.linalg.norm(v, axis=1)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            v = np.where(kicked[frame][:, None], fresh, v)
        positions.append(x)
        velocities.append(v)
    return World(config.kind, text, height, width, np.stack(positions), np.stack(velocities), looks, kicked)


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
