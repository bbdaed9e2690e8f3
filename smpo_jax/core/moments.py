"""Running mean and variance of a stream of batches, and the normalisation they give."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Moments(NamedTuple):
    """Mean and population variance of `count` samples; mean 0 and variance 1 before the first."""

    mean: Float[Array, " D"]
    variance: Float[Array, " D"]
    count: Float[Array, ""]


def start(size: int) -> Moments:
    """No samples yet: normalising changes nothing but the clip."""
    return Moments(jnp.zeros(size), jnp.ones(size), jnp.zeros(()))


def update(moments: Moments, samples: Float[Array, "*batch D"]) -> Moments:
    """Moments of the old samples and the new, all leading axes being samples.

    Chan, Golub & LeVeque (1979): the two groups' squared deviations add, plus the squared distance
    of their means times n m / (n + m). Stable in float32, unlike sums of squares.
    """
    flat = samples.reshape(-1, samples.shape[-1])
    size = flat.shape[0]
    mean = jnp.mean(flat, axis=0)
    deviations = jnp.sum((flat - mean[None]) ** 2, axis=0)
    total = moments.count + size
    distance = mean - moments.mean
    squares = (
        moments.variance * moments.count + deviations + distance**2 * (moments.count * size / total)
    )
    return Moments(moments.mean + distance * (size / total), squares / total, total)


def std(moments: Moments, *, smallest: float = 1e-2) -> Float[Array, " D"]:
    """Standard deviations to divide by.

    `smallest` keeps a component that has been constant so far from exploding when it moves.
    """
    return jnp.maximum(jnp.sqrt(moments.variance), smallest)


def normalise(
    moments: Moments, x: Float[Array, "*batch D"], *, clip: float
) -> Float[Array, "*batch D"]:
    """(x − mean) / std, clipped to ±`clip`."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    return jnp.clip((x - moments.mean.reshape(shape)) / std(moments).reshape(shape), -clip, clip)
