"""How far a figure of a sample can be trusted: 95% intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

Z = 1.96
"""Of the normal distribution, 95% lie within so many deviations."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval; all NaN if nothing was measured."""

    value: float
    low: float
    high: float


def share(values: Sequence[bool]) -> Estimate:
    """The share of those that hold, with Wilson's interval (1927), which is right near 0 and 1, too."""
    n = len(values)
    if not n:
        return Estimate(*(float("nan"),) * 3)
    p = sum(map(bool, values)) / n
    middle, reach = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = (middle - reach) / (1 + Z**2 / n), (middle + reach) / (1 + Z**2 / n)
    return Estimate(*(round(x, 4) for x in (p, max(0.0, low), min(1.0, high))))


def median(values: Sequence[float]) -> Estimate:
    """The median of the finite values, with the percentile interval of the bootstrap (Efron 1979), the same for the same values."""
    known = np.array([x for x in values if np.isfinite(x)])
    if not len(known):
        return Estimate(*(float("nan"),) * 3)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(known, (RESAMPLES, len(known))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Estimate(*(round(float(x), 4) for x in (np.median(known), low, high)))


def mean(values: Sequence[float], groups: Sequence[str]) -> Estimate:
    """The mean of the finite values, with the percentile interval of a bootstrap that draws groups and not values: what is of one
    group, such as clips of a file, is alike, and is no further evidence. Of one group there is no interval."""
    known = [(x, group) for x, group in zip(values, groups, strict=True) if np.isfinite(x)]
    if not known:
        return Estimate(*(float("nan"),) * 3)
    names = sorted({group for _, group in known})
    place = {name: i for i, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for x, group in known:
        sums[place[group]] += x
        counts[place[group]] += 1
    value = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Estimate(round(value, 4), float("nan"), float("nan"))
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(*(round(float(x), 4) for x in (value, low, high)))
