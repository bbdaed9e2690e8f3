"""Ordinary differential equations, solved to a tolerance.

The pair of Dormand and Prince (1980), J. Comput. Appl. Math. 6(1), 19-26, of orders 5 and 4: the
difference of the two estimates how wrong a step is, and the next is made as long as that allows.
Steps of one length would not do: a reactor that runs away heats up by 100 K within a thousandth of
the time between two decisions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_STAGES = (  # of each slope after the first, the weights of those before it
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the next state itself
)
_DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SHORTEST = 1e-4  # share of the whole that a step is at least; so there is an end to them
_MARGIN, _SHRINK, _GROW = 0.9, 0.2, 5.0


def integrate(
    rates: Callable[[Float[Array, " S"]], Float[Array, " S"]],
    state: Float[Array, " S"],
    duration: float,
) -> Float[Array, " S"]:
    """The state some time later.

    The error of a step is kept below 1e-11 in float64, and below about 1e-5 in float32; relative to
    the state, and absolute where that is below 1. Not for derivatives backwards in time, as the
    number of steps depends on the state.

    Args:
        rates: d state / d time, of the state alone.
        state: now.
        duration: how much later, in the unit of time of `rates`.
    """
    tolerance = float(jnp.finfo(state.dtype).eps) ** 0.7

    def attempt(carry):
        time, length, x, slope = carry
        length = jnp.minimum(length, 1.0 - time)
        after, last, error = _step(rates, x, slope, length * duration)
        size = error / (tolerance * jnp.maximum(1.0, jnp.maximum(jnp.abs(x), jnp.abs(after))))
        wrong = jnp.sqrt(jnp.mean(size**2))
        # What is not finite compares as false: such a step is refused, and a shorter one is tried.
        is_taken = (wrong <= 1.0) | (length <= _SHORTEST)
        change = jnp.clip(_MARGIN * wrong**-0.2, _SHRINK, _GROW)
        change = jnp.where(jnp.isfinite(wrong), change, _SHRINK)
        # Compared with what is left, so that rounding leaves nothing over.
        is_last = length >= 1.0 - time
        moved = jnp.where(is_last, 1.0, time + length)
        return (
            jnp.where(is_taken, moved, time),
            jnp.maximum(length * change, _SHORTEST),
            jnp.where(is_taken, after, x),
            jnp.where(is_taken, last, slope),
        )

    zero = jnp.zeros((), state.dtype)
    start = (zero, zero + 0.25, state, rates(state))
    return jax.lax.while_loop(lambda carry: carry[0] < 1.0, attempt, start)[2]


def _step(rates, state, slope, duration):
    """The state after a step of order 5, the slope there, and by how much order 4 differs."""
    slopes, after = [slope], state
    for weights in _STAGES:
        move = sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
        after = state + duration * move
        slopes.append(rates(after))
    error = sum(w * k for w, k in zip(_DIFFERENCE, slopes, strict=True) if w)
    return after, slopes[-1], duration * error
