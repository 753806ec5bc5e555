"""Near-duplicates among many files, in nearly linear time: the same pictures coded, scaled or lit otherwise.

Files are compared by small grey pictures of a few of their frames. Two are alike if no cell of any picture differs by more than
`CELL` grey levels, once the difference in brightness is taken out: one letter for another, a disc at another place or another
passer-by before the same fixed camera changes some cell by more. `tests/test_duplicates.py` holds the error rates.

Not all pairs are compared, but those that agree in the signs of some random projections (Charikar 2002, "Similarity estimation
techniques from rounding algorithms"), which are more the more files there are. It is tried with several sets of projections,
since a sign near zero may turn. Where many agree, as clips of one fixed camera do, each is held against its neighbours in one
more projection.
"""

from collections.abc import Iterator, Sequence

import numpy as np

SIDE = 32
"""Cells along each side of a picture."""
CELL = 22.0
"""Grey levels of 255. Heavy compression of sharp edges stays below, a small object that is elsewhere does not."""
BLOCK = 4
"""Cells along each side of what is projected: means of so many have less noise, and are alike if the cells are."""
TRIES, NEIGHBOURS = 8, 40
SPARE_BITS = 6
"""Signs beyond those that give every file a number of its own."""
PLAIN = 6.0
"""Root mean square of grey levels below which a picture counts as of one colour: its noise is not blown up."""
OFFSET = 0.5
"""Deviation of what projections are compared with in place of zero, near which all those of plain pictures lie."""
BATCH = 4096


def near_duplicates(pictures: Sequence[np.ndarray], durations: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of files that show the same; each later file once, with the first that it is like.

    Args:
        pictures: of each file (k, SIDE, SIDE) uint8, grey, of frames at even distances.
        durations: seconds; those of duplicates are within 5%.
    """
    first: dict[int, int] = {}
    for count in sorted({len(each) for each in pictures}):
        members = [index for index, each in enumerate(pictures) if len(each) == count]
        if count and len(members) > 1:
            own = [pictures[index] for index in members]
            for a, b in _alike_pairs(own, np.array([durations[index] for index in members])):
                one, other = sorted((members[a], members[b]))
                first[other] = min(one, first.get(other, one))
    return sorted(first.items())


def _alike_pairs(pictures: Sequence[np.ndarray], durations: np.ndarray) -> set[tuple[int, int]]:
    """Indices of alike ones among (k, SIDE, SIDE) uint8."""
    levels, means = _described(pictures)
    found: set[tuple[int, int]] = set()
    for a, b in _candidates(means):
        longest = np.maximum(durations[a], durations[b])
        near = np.abs(durations[a] - durations[b]) <= 0.05 * longest
        a, b = a[near], b[near]
        near = np.abs(means[a].astype(np.float32) - means[b]).max(1) <= CELL
        a, b = a[near], b[near]
        for start in range(0, len(a), BATCH):
            left, right = a[start : start + BATCH], b[start : start + BATCH]
            difference = _stack(pictures, left).astype(np.int16) - _stack(pictures, right)
            lit = levels[left] - levels[right]  # (n, k)
            alike = ((difference.max(2) - lit <= CELL) & (lit - difference.min(2) <= CELL)).all(1)
            found.update(zip(left[alike].tolist(), right[alike].tolist()))
    return found


def _described(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each of n files: the brightness of its pictures (n, k) float32, and their means of blocks without it (n, d) float16."""
    levels, means, blocks = [], [], SIDE // BLOCK
    for start in range(0, len(pictures), BATCH):
        flat = _stack(pictures, np.arange(start, min(len(pictures), start + BATCH)))
        half = flat.shape[2] // 2
        middle = np.partition(flat, (half - 1, half), axis=2)[:, :, half - 1 : half + 1].astype(np.float32).mean(2)
        cut = flat.reshape(*flat.shape[:2], blocks, BLOCK, blocks, BLOCK).mean((3, 5), dtype=np.float32)
        levels.append(middle)
        means.append((cut - middle[:, :, None, None]).reshape(len(flat), -1).astype(np.float16))
    return np.concatenate(levels), np.concatenate(means)


def _candidates(means: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of pairs that are worth a look, (m,) and (m,), each pair perhaps several times."""
    count, size = means.shape
    bits = int(np.log2(count)) + SPARE_BITS
    rng = np.random.default_rng(0)
    for _ in range(TRIES):
        directions = rng.standard_normal((size, bits + 1)).astype(np.float32) / np.sqrt(size)
        places = np.concatenate([_projected(means[i : i + BATCH], directions) for i in range(0, count, BATCH)])
        signs = places[:, :bits] > OFFSET * rng.standard_normal(bits)
        keys = signs @ (1 << np.arange(bits, dtype=np.int64))
        order = np.lexsort((places[:, bits], keys))
        for step in range(1, min(NEIGHBOURS, count - 1) + 1):
            a, b = order[:-step], order[step:]
            same = keys[a] == keys[b]
            if not same.any():
                break
            yield a[same], b[same]


def _projected(means: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, d) on (d, m), each file in its own contrast: (n, m) float32."""
    x = means.astype(np.float32)
    return (x / np.maximum(np.sqrt(np.square(x).mean(1, keepdims=True)), PLAIN)) @ directions


def _stack(pictures: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """(n, k, SIDE * SIDE) uint8."""
    return np.stack([pictures[index].reshape(-1, SIDE * SIDE) for index in chosen.tolist()])
