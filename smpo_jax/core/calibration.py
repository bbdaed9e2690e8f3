"""How well a critic of costs knows what is to come: predictions against what was realised."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TAIL = 0.01  # of a discounted sum's weight that may lie behind the end of what was seen


class Calibration(NamedTuple):
    """Means within bins of equal number, by increasing prediction; a perfect critic has equal ones.

    A slope below 1 of realised over predicted is a critic that exaggerates differences.
    """

    predicted: Float[Array, " Q"]
    realised: Float[Array, " Q"]
    count: Float[Array, " Q"]


def by_quantile(
    predicted: Float[Array, " B"], realised: Float[Array, " B"], *, bins: int = 10
) -> Calibration:
    """A reliability curve: samples in bins by the quantile of their prediction.

    Bin q holds the samples of rank i (from 0, ties in the order given) with ⌊i Q / B⌋ = q, so sizes
    differ by one at most.

    Raises:
        ValueError: there are fewer samples than bins.
    """
    size = len(predicted)
    if size < bins:
        raise ValueError(f"{size} samples cannot fill {bins} bins")
    order = jnp.argsort(predicted, stable=True)
    of = jnp.asarray(np.arange(size) * bins // size, jnp.int32)

    def total(x: Float[Array, " B"]) -> Float[Array, " Q"]:
        return jax.ops.segment_sum(x, of, num_segments=bins, indices_are_sorted=True)

    count = total(jnp.ones_like(predicted))
    return Calibration(total(predicted[order]) / count, total(realised[order]) / count, count)


def settled(length: int, discount: float) -> int:
    """Of `length` steps, how many know their discounted sum: all but 1 % of its weight was seen.

    At least half of them, so that a short window has an answer, too.
    """
    horizon = length if discount >= 1.0 else math.ceil(math.log(TAIL) / math.log(discount))
    return length - min(horizon, length // 2)
