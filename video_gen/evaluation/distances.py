"""How far two sets of videos are apart, by features of each: Frechet distance and kernel distance, in float64.

Both are zero where the sets are of one kind, and both want many videos: with too few they are refused, since Frechet distance then
tells the count and not the videos.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np

from video_gen.errors import DataError

Kind = Literal["frechet", "kernel"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PER_FEATURE = 2
"""Videos on each side for each feature, below which a Frechet distance is refused: a covariance of n features takes more than n."""
LEAST = 32
"""Videos on each side below which any distance is refused."""
HALVES = 100
"""Random halves from which an interval is read."""
SUBSETS, SUBSET = 100, 1000
"""A kernel distance of more than SUBSET videos is the mean over so many random subsets of that size (arXiv:1801.01401)."""


@dataclass(frozen=True)
class Distance:
    """A distance and its 95% interval, which is NaN where there are too few files to tell."""

    value: float
    low: float
    high: float


def least(kind: Kind, width: int) -> int:
    """Videos that must be on each side, for features of a width."""
    return max(LEAST, PER_FEATURE * width) if kind == "frechet" else LEAST


def check_count(kind: Kind, count: int, width: int, name: str) -> None:
    """Raises: DataError if a distance of so few videos says nothing.

    Args: count: videos on the smaller side. `name`: of the features.
    """
    want = least(kind, width)
    if count < want:
        other = (
            f", or ask for the kernel distance alone, which takes {LEAST}"
            if kind == "frechet" and count >= LEAST
            else ""
        )
        why = f"{width} features want {PER_FEATURE} videos each" if want > LEAST else "fewer tell nothing"
        raise DataError(
            f"{kind} distance by {name}: {count} videos on a side, and it takes {want} ({why}); measure more clips{other}"
        )


def frechet(real: np.ndarray, made: np.ndarray) -> float:
    """Squared Frechet distance of two normal distributions fitted to features (n, d), (m, d).

    The trace of the root of the product of the covariances is the sum of the singular values of R1 R2', where Q R are the centred
    features: no root of a matrix is taken, and a covariance of less than full rank is no special case.
    """
    real, made = real.astype(np.float64), made.astype(np.float64)
    apart = real.mean(0) - made.mean(0)
    factors = [np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (real, made)]
    spread = sum(float((r**2).sum()) for r in factors)
    shared = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return float(apart @ apart) + spread - 2 * shared


def kernel(real: np.ndarray, made: np.ndarray, seed: int = 0) -> float:
    """Squared maximum mean discrepancy with the kernel (x'y / d + 1)^3, without bias: below zero at times where there is none."""
    real, made = real.astype(np.float64), made.astype(np.float64)
    size = min(len(real), len(made))
    if size <= SUBSET:
        return _discrepancy(real, made)
    rng = np.random.default_rng(seed)
    draws = ((rng.choice(x, SUBSET, replace=False) for x in (real, made)) for _ in range(SUBSETS))
    return float(np.mean([_discrepancy(*pair) for pair in draws]))


DISTANCES: dict[Kind, Callable[[np.ndarray, np.ndarray], float]] = {"frechet": frechet, "kernel": kernel}


def measure(
    kind: Kind,
    real: np.ndarray,
    made: np.ndarray,
    real_files: Sequence[str],
    made_files: Sequence[str],
    name: str = "these features",
) -> Distance:
    """A distance with its interval: that of random halves of the files, without repetition, around their own mean.

    Half of a sample varies around the whole as the whole does around what it is a sample of, and nothing is counted twice, which
    would raise the distance itself. Near zero the interval is wider than need be.

    Args: real, made: features (n, d), (m, d); the files that they are of, whose clips stay together.
    Raises: DataError if there are too few; see `check_count`.
    """
    check_count(kind, min(len(real), len(made)), real.shape[1], name)
    distance = DISTANCES[kind]
    value = distance(real, made)
    rng = np.random.default_rng(0)
    sides = [(real, np.array(real_files)), (made, np.array(made_files))]
    if min(len(set(files)) for _, files in sides) < 4:
        return Distance(value, float("nan"), float("nan"))
    found = np.array([distance(*(_half(x, files, rng) for x, files in sides)) for _ in range(HALVES)])
    low, high = value + np.quantile(found - found.mean(), [0.025, 0.975])
    return Distance(value, max(0.0, float(low)) if kind == "frechet" else float(low), float(high))


def two_halves(files: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of clips in two parts of about one size that share no file; the second is empty if there is but one file.

    A file's side comes of a hash of its name, since neighbours in a folder are often of one kind.
    """
    counts = {name: files.count(name) for name in sorted(set(files))}
    sides: tuple[set[str], set[str]] = (set(), set())
    sizes = [0, 0]
    for name in sorted(counts, key=lambda name: (-counts[name], blake2b(name.encode()).digest())):
        side = int(sizes[1] < sizes[0])
        sides[side].add(name)
        sizes[side] += counts[name]
    first, second = ([i for i, name in enumerate(files) if name in side] for side in sides)
    return first, second


def _half(x: np.ndarray, files: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names = np.unique(files)
    return x[np.isin(files, rng.permutation(names)[: len(names) // 2])]


def _discrepancy(real: np.ndarray, made: np.ndarray) -> float:
    def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        k = a @ b.T / a.shape[1] + 1
        return k * k * k

    within = 0.0
    for x in (real, made):
        k = products(x, x)
        within += float(k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))
    return within - 2 * float(products(real, made).mean())
