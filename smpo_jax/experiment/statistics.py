"""Intervals that go with a mean or a share; all of 95 %."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

LEVEL = 0.95


class Estimate(NamedTuple):
    """A number and the interval that it is known to."""

    value: float
    low: float
    high: float


def mean(samples: Float[np.ndarray, " E"]) -> Estimate:
    """The mean with Student's t interval; a single sample has no interval (NaN)."""
    n, centre = len(samples), float(np.mean(samples))
    if n < 2:
        return Estimate(centre, float("nan"), float("nan"))
    half = t_quantile(n) * float(np.std(samples, ddof=1)) / n**0.5
    return Estimate(centre, centre - half, centre + half)


def share(count: int, n: int) -> Estimate:
    """`count / n` with Wilson's score interval, which stays within [0, 1] and works at 0 and 1."""
    z = float(special.ndtri(0.5 + LEVEL / 2))
    p = count / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return Estimate(p, centre - half, centre + half)


def t_quantile(n: int) -> float:
    """How many standard errors the interval of a mean of `n` samples extends to either side."""
    return float(special.stdtrit(n - 1, 0.5 + LEVEL / 2))
