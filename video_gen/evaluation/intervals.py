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
