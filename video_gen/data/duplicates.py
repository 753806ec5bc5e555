"""Near-duplicates among many files, in linear time: the same pictures coded, scaled or lit otherwise.

Files are compared by small grey pictures of a few of their frames. Two are alike if no cell of any picture differs by more than
`CELL` grey levels, once the difference in brightness is taken out: one letter for another, a disc at another place or another
passer-by before the same fixed camera changes some cell by more. `tests/test_duplicates.py` holds the error rates.

Not all pairs are compared: files are sorted by a few random projections of their pictures, and each is held against its
neighbours in each order.
"""

from collections.abc import Sequence

import numpy as np

SIDE = 32
"""Cells along each side of a picture."""
CELL = 22.0
"""Grey levels of 255. Heavy compression of sharp edges stays below, a small object that is elsewhere does not."""
PROJECTIONS, NEIGHBOURS = 4, 40
NOISE = 6.0
"""Root mean square difference of duplicates, in grey levels: their projections are no further apart than thrice this."""
BATCH = 4096


def near_duplicates(pictures: Sequence[np.ndarray], durations: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of files that show the same; each later file once, with the first that it is like.

    Args:
        pictures: of each file (k, SIDE, SIDE) uint8, grey, of frames at even distances.
        durations: seconds; those of duplicates are within 5%.
    """
    first: dict[int, int] = {}
    for count in sorted({len(each) for each in pictures}):
        members = np.array([index for index, each in enumerate(pictures) if len(each) == count])
        if count and len(members) > 1:
            cells = np.stack([pictures[index] for index in members])
            for a, b in _alike_pairs(cells, np.array([durations[index] for index in members])):
                one, other = sorted((int(members[a]), int(members[b])))
                first[other] = min(one, first.get(other, one))
    return sorted(first.items())


def _alike_pairs(cells: np.ndarray, durations: np.ndarray) -> set[tuple[int, int]]:
    """Indices of alike rows of (n, k, SIDE, SIDE) uint8."""
    size = cells[0].size
    directions = np.random.default_rng(0).standard_normal((PROJECTIONS, size)).astype(np.float32) / np.sqrt(size)
    places = np.concatenate([_level(cells[i : i + BATCH]) @ directions.T for i in range(0, len(cells), BATCH)])
    found: set[tuple[int, int]] = set()
    for place in places.T:
        order = np.argsort(place, kind="stable")
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            a, b = order[:-step], order[step:]
            near = place[b] - place[a] <= 3 * NOISE
            if not near.any():
                break
            longest = np.maximum(durations[a], durations[b])
            near &= np.abs(durations[a] - durations[b]) <= 0.05 * longest
            for start in range(0, int(near.sum()), BATCH):
                left, right = a[near][start : start + BATCH], b[near][start : start + BATCH]
                alike = np.abs(_level(cells[left]) - _level(cells[right])).max(1) <= CELL
                found.update(zip(left[alike].tolist(), right[alike].tolist()))
    return found


def _level(cells: np.ndarray) -> np.ndarray:
    """(n, k, SIDE, SIDE) uint8 to (n, k * SIDE * SIDE) float32, without each picture's brightness."""
    flat = cells.reshape(*cells.shape[:2], -1).astype(np.float32)
    return (flat - np.median(flat, axis=2, keepdims=True)).reshape(len(cells), -1)
