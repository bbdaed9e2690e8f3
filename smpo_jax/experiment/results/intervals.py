"""Intervals that go with a mean, a share or an interquartile mean; all of 95 %."""

from typing import NamedTuple

import numpy as np
import scipy  # which brings its parts when they are asked for: statistics take a second
from jaxtyping import Float

LEVEL = 0.95
RESAMPLES = 2000  # of a bootstrap interval


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
    interval = scipy.stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(count / n, float(interval.low), float(interval.high))


def t_quantile(n: int) -> float:
    """How many standard errors the interval of a mean of `n` samples extends to either side."""
    return float(scipy.special.stdtrit(n - 1, 0.5 + LEVEL / 2))


def interquartile_mean(samples: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "..."]:
    """The mean of the middle half of `S` values, the quarters at both ends rounded down.

    Of three values it is their mean, of five that of the middle three (Agarwal et al. 2021, arXiv
    2108.13264).
    """
    return np.asarray(scipy.stats.trim_mean(samples, 0.25, axis=0))


def bootstrap(
    *strata: Float[np.ndarray, "S ..."],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """The interquartile mean over the values of all strata, with its stratified bootstrap interval.

    Values are drawn anew within each stratum, a task say, so that each keeps its weight; bounds are
    percentiles. The draws are the same every time. A stratum of one value leaves no interval (NaN).

    Args:
        strata: values along the first axis; what is done is done for every place of the others.

    Returns:
        The value, the lower and the upper bound.
    """
    value = interquartile_mean(np.concatenate(strata))
    if min(map(len, strata)) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)

    def statistic(*resampled: np.ndarray, axis: int) -> np.ndarray:
        return scipy.stats.trim_mean(np.concatenate(resampled, axis=axis), 0.25, axis=axis)

    interval = scipy.stats.bootstrap(
        strata,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        axis=0,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return value, np.asarray(interval.low), np.asarray(interval.high)


def interquartile_estimate(*strata: Float[np.ndarray, " S"]) -> Estimate:
    """`bootstrap` of single numbers."""
    return Estimate(*(float(each) for each in bootstrap(*strata)))
