"""Motion while captions change: what leaves, what comes in, and what turns into something else on its way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from video_gen.data.captions import Scene, caption
from video_gen.data.changes import CHANGE_FRAMES, become, changed, possible
from video_gen.data.config import WorldConfig
from video_gen.data.mechanics import advance, places
from video_gen.data.state import PIXELS_PER_FRAME, World, collision_radius


@dataclass(eq=False)
class _Body:
    """What moves: an object, and for a while the one that it was."""

    x: np.ndarray
    v: np.ndarray
    now: int | None
    """Number of its look; None once it is going."""
    was: int | None = None
    since: int = -CHANGE_FRAMES

    def shown(self, frame: int) -> list[tuple[int, float]]:
        """(number of a look, share) of what is seen of it."""
        share = min(1.0, (frame - self.since + 1) / CHANGE_FRAMES)
        seen = [(self.now, share), (self.was, 1 - share)]
        return [(look, part) for look, part in seen if look is not None and part > 0]


def turning_at_random(config: WorldConfig, rng: np.random.Generator, scene: Scene) -> World:
    """Motion with up to `config.changes` changes, each of a random kind."""
    due = _change_frames(config, rng)

    def choose(scene: Scene) -> Scene:
        kinds = possible(scene)
        return changed(scene, kinds[int(rng.integers(len(kinds)))], rng, config.split)

    return turning(config, rng, scene, due, choose)


def turning(
    config: WorldConfig, rng: np.random.Generator, scene: Scene, due: list[int], choose: Callable[[Scene], Scene]
) -> World:
    """Motion in which the caption changes at the frames `due`, each time to what `choose` makes of the scene.

    A change begins at a frame 1 + a multiple of `CHANGE_FRAMES`, at that which is due or, while there is no room, at a later one.
    """
    height, width, size = config.height, config.width, min(config.height, config.width)
    radius, box = collision_radius(height, width), (config.width, config.height)
    looks, due = list(scene.objects), list(due)
    angle = rng.uniform(0, 2 * np.pi, len(looks))
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    speed = PIXELS_PER_FRAME[scene.speed] * size
    starts = places(rng, len(looks), radius, width, height)
    bodies = [_Body(x, speed * d, number) for number, (x, d) in enumerate(zip(starts, directions))]
    first, changes, frames = caption(scene), [], []
    for frame in range(config.num_frames):
        if frame:
            x, v = advance(np.stack([b.x for b in bodies]), np.stack([b.v for b in bodies]), radius, *box, 1.0)
            for body, at, velocity in zip(bodies, x, v):
                body.x, body.v = at, velocity
        bodies = [b for b in bodies if b.now is not None or frame < b.since + CHANGE_FRAMES - 1]
        settled = not changes or frame >= changes[-1][0] + 2 * CHANGE_FRAMES
        if due and settled and frame >= due[0] and frame % CHANGE_FRAMES == 1:
            after = choose(scene)
            if (entered := _turn(bodies, looks, scene, after, frame, rng, radius, box)) is not None:
                bodies += entered
                faster = PIXELS_PER_FRAME[after.speed] / PIXELS_PER_FRAME[scene.speed]
                for body in bodies:
                    body.v = faster * body.v if body not in entered else PIXELS_PER_FRAME[after.speed] * size * body.v
                scene, due = after, due[1:]
                changes.append((frame, caption(scene)))
        frames.append([(b.x, b.v, b.shown(frame)) for b in bodies])
    n = len(looks)
    positions, velocities = (np.full((len(frames), n, 2), np.nan) for _ in range(2))
    shares = np.zeros((len(frames), n))
    for frame, seen in enumerate(frames):
        for x, v, shown in seen:
            for number, share in shown:
                positions[frame, number], velocities[frame, number], shares[frame, number] = x, v, share
    kicked = np.zeros((len(frames), n), dtype=bool)
    return World(
        config.kind, first, height, width, positions, velocities, tuple(looks), kicked, None, tuple(changes), shares
    )


def _change_frames(config: WorldConfig, rng: np.random.Generator) -> list[int]:
    """When changes are due: up to `changes` of them, each with time to be seen before the next."""
    grid = np.arange(1 + CHANGE_FRAMES, config.num_frames - 2 * CHANGE_FRAMES + 1, CHANGE_FRAMES)
    count = min(int(rng.integers(config.changes + 1)), len(grid))
    found: list[int] = []
    for frame in sorted(rng.choice(grid, count, replace=False).tolist()) if count else []:
        if not found or frame >= found[-1] + 2 * CHANGE_FRAMES:
            found.append(frame)
    return found


def _turn(
    bodies: list[_Body],
    looks: list[tuple[str, str]],
    before: Scene,
    after: Scene,
    frame: int,
    rng: np.random.Generator,
    radius: float,
    box: tuple[int, int],
) -> list[_Body] | None:
    """Begin a change, adding new looks to `looks`. Returns: bodies that come in, with a direction as velocity; None, and all as
    it was, where there is no room for them."""
    pairs = become(before, after)
    entered: list[_Body] = []
    for _ in range(sum(old is None for old, _ in pairs)):
        there = np.stack([b.x for b in (*bodies, *entered)])
        tries = rng.uniform(radius, np.array(box) - radius, (64, 2))
        gaps = np.linalg.norm(tries[:, None] - there, axis=-1).min(1)
        if gaps.max() <= 2.02 * radius:
            return None
        angle = rng.uniform(0, 2 * np.pi)
        entered.append(_Body(tries[gaps.argmax()], np.array([np.cos(angle), np.sin(angle)]), None, since=frame))
    free, waiting = [b for b in bodies if b.now is not None], list(entered)
    for old, new in pairs:
        body = waiting.pop() if old is None else next(b for b in free if b.now is not None and looks[b.now] == old)
        if old is not None:
            free.remove(body)
        if old == new:
            continue
        body.was, body.now, body.since = body.now, None, frame
        if new is not None:
            looks.append(new)
            body.now = len(looks) - 1
    return entered
