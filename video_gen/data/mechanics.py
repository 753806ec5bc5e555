"""Exact motion of equal discs in a box: constant speed between contacts, elastic contacts, no time step.

Contacts with walls and between pairs are solved for one after another (event-driven simulation, Alder & Wainwright 1959).
Lengths are in pixels, times in frames. Discs of a world never overlap; those found in pixels may, or may lie in a wall, and
then push each other without end: contacts are followed up to a number, and beyond it nothing is known.
"""

import numpy as np

SLACK = 1e-9
CONTACTS = 200
"""Contacts that are followed per frame: the built-in worlds have less than ten."""


def advance(
    positions: np.ndarray, velocities: np.ndarray, radius: float, width: float, height: float, duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where discs are after `duration` frames.

    Args:
        positions, velocities: (n, 2) as (x, y), pixels and pixels per frame; discs lie in the box [0, width] x [0, height].
        duration: frames, finite.
    Returns: new positions and velocities; energy is kept, and momentum through contacts of pairs. A disc whose position or
        velocity is not finite meets nothing and stays NaN. All are NaN if there are more than `CONTACTS` contacts a frame.
    Raises: ValueError if `duration` is not finite.
    """
    if not np.isfinite(duration):
        raise ValueError(f"duration is {duration}; it must be finite")
    x, v = np.array(positions, dtype=np.float64), np.array(velocities, dtype=np.float64)
    unknown = ~(np.isfinite(x).all(-1) & np.isfinite(v).all(-1))
    x[unknown] = v[unknown] = np.nan
    low, high = np.full(2, radius), np.array([width, height]) - radius
    left = float(duration)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of absurd states: they end as NaN
        for _ in range(CONTACTS * max(1, int(np.ceil(left)))):
            walls, pairs = _wall_times(x, v, low, high), _pair_times(x, v, radius)
            wall, pair = walls.min(initial=np.inf), pairs.min(initial=np.inf)
            event = min(wall, pair)
            if event >= left:
                return x + v * left, v
            x, left = x + v * event, left - event
            if wall <= pair:
                i, axis = np.unravel_index(walls.argmin(), walls.shape)
                v[i, axis] = -v[i, axis]
            else:
                i, j = np.unravel_index(pairs.argmin(), pairs.shape)
                normal = (x[i] - x[j]) / np.linalg.norm(x[i] - x[j])
                swap = ((v[i] - v[j]) @ normal) * normal  # equal masses swap their speeds along the line of centres
                v[i], v[j] = v[i] - swap, v[j] + swap
    return np.full_like(x, np.nan), np.full_like(v, np.nan)


def next_contact(
    positions: np.ndarray, velocities: np.ndarray, radius: float, width: float, height: float
) -> np.ndarray:
    """(n,) frames until each disc's next contact, if nothing else happened before; inf where there is none."""
    high = np.array([width, height]) - radius
    walls = _wall_times(positions, velocities, np.full(2, radius), high).min(axis=1)
    pairs = _pair_times(positions, velocities, radius)
    return np.minimum(walls, np.minimum(pairs, pairs.T).min(axis=1, initial=np.inf))


def places(rng: np.random.Generator, n: int, radius: float, width: int, height: int) -> np.ndarray:
    """(n, 2) random places of discs that don't overlap."""
    while True:
        x = rng.uniform(radius, np.array([width, height]) - radius, (n, 2))
        distance = np.linalg.norm(x[:, None] - x[None], axis=-1) + 10 * radius * np.eye(n)
        if distance.min() > 2.02 * radius:
            return x


def _wall_times(x: np.ndarray, v: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(n, 2) time until each disc meets the wall that it moves towards, along either axis."""
    gap = np.where(v > 0, high - x, x - low)
    speed = np.abs(v)
    times = np.full(x.shape, np.inf)
    np.divide(gap, speed, out=times, where=speed > SLACK)  # not where the speed is NaN
    return np.maximum(times, 0)


def _pair_times(x: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """(n, n) time until a pair that approaches is two radii apart; inf below the diagonal and where they miss."""
    n = len(x)
    d, u = x[:, None] - x[None], v[:, None] - v[None]
    approach = (d * u).sum(-1)  # negative while the distance falls
    speed = (u * u).sum(-1)
    gap = (d * d).sum(-1) - np.square(2 * radius)
    root = approach**2 - speed * gap
    meets = (np.arange(n)[:, None] < np.arange(n)) & (approach < -SLACK) & (root > 0)
    times = np.full((n, n), np.inf)
    np.divide(gap, -approach + np.sqrt(np.maximum(root, 0)), out=times, where=meets)
    return np.where(meets, np.maximum(times, 0), np.inf)
