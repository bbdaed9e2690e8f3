"""The price of a unit of episode cost, found by feedback on the measured cost.

A `Dual` is two pure functions, as optimisers are in optax; what it carries has a field `value`, the
multiplier λ ≥ 0. `update` is called once per iteration, before the policy learns, with the measured
episode cost J_c and the limit d. A limit of infinity is no constraint: λ goes to 0 and stays there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.types import Scalar

LARGEST_EXCESS = 1e6  # in units of cost; keeps an infinite limit from making NaN


class Dual(NamedTuple):
    """A rule for the multiplier.

    Attributes:
        init: the state before the first measurement.
        update: `(state, J_c, d) -> state`.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Scalar, Scalar], Any]


class LagrangeState(NamedTuple):
    """Of `lagrange`."""

    value: Float[Array, ""]
    adam: Any


class PIDState(NamedTuple):
    """Of `pid`."""

    value: Float[Array, ""]
    proportional: Float[Array, ""]  # smoothed J_c - d
    integral: Float[Array, ""]  # ki times the sum of J_c - d, within [0, maximum]
    past: Float[Array, " D"]  # smoothed J_c of the last D updates, the oldest first


class BarrierState(NamedTuple):
    """Of `barrier`."""

    value: Float[Array, ""]


def excess(cost: Scalar, limit: Scalar) -> Float[Array, ""]:
    """J_c − d, bounded so that an infinite limit does no harm."""
    return jnp.clip(cost - limit, -LARGEST_EXCESS, LARGEST_EXCESS)


def lagrange(*, start: Scalar, learning_rate: Scalar, maximum: Scalar) -> Dual:
    """Gradient ascent on λ (J_c − d) by Adam, then projected to [0, maximum].

    Adam's steps have the size of the learning rate whatever the unit of cost is.
    """
    adam = optax.scale_by_adam()

    def init() -> LagrangeState:
        value = jnp.asarray(start, jnp.result_type(float))
        return LagrangeState(value, adam.init(value))

    def update(state: LagrangeState, cost: Scalar, limit: Scalar) -> LagrangeState:
        direction, adam_state = adam.update(excess(cost, limit), state.adam)
        step = learning_rate * jnp.asarray(direction)  # optax promises no more than a tree
        value = jnp.clip(state.value + step, 0.0, maximum)
        return LagrangeState(value, adam_state)

    return Dual(init, update)


def pid(
    *,
    start: Scalar,
    proportional: Scalar,
    integral: Scalar,
    derivative: Scalar,
    smoothing: tuple[Scalar, Scalar],
    delay: int,
    maximum: Scalar,
) -> Dual:
    """A PID controller on the constraint (Stooke, Achiam & Abbeel 2020, algorithm 2).

        Δₖ = J_c − d,  Iₖ = (Iₖ₋₁ + ki Δₖ)₊,  λ = (kp Δ̄ₖ + Iₖ + kd (J̄ₖ − J̄ₖ₋D)₊)₊

    Bars are exponential averages from 0 with the weights `smoothing` of the past (of Δ, of J_c), so
    that J̄ is 0 before the first update. The integral never goes below 0 (nothing is saved up while
    the limit is kept) nor above `maximum`, where λ itself ends: it does not wind up at either.

    Deviation: OmniSafe bounds λ by `maximum` only where its advantages are not divided by 1 + λ,
    and never the integral.
    """
    keep_error, keep_cost = smoothing

    def init() -> PIDState:
        zero = jnp.zeros(())
        return PIDState(zero, zero, jnp.asarray(start, zero.dtype), jnp.zeros(delay))

    def update(state: PIDState, cost: Scalar, limit: Scalar) -> PIDState:
        error = excess(cost, limit)
        smooth_error = keep_error * state.proportional + (1.0 - keep_error) * error
        smooth_cost = keep_cost * state.past[-1] + (1.0 - keep_cost) * cost
        total = jnp.clip(state.integral + integral * error, 0.0, maximum)
        rise = jnp.maximum(smooth_cost - state.past[0], 0.0)
        value = jnp.clip(proportional * smooth_error + total + derivative * rise, 0.0, maximum)
        past = jnp.append(state.past[1:], smooth_cost)
        return PIDState(value, smooth_error, total, past)

    return Dual(init, update)


def barrier(*, coefficient: Scalar, maximum: Scalar) -> Dual:
    """The slope of a logarithmic barrier, −κ log(d − J_c) (Liu, Ding & Liu 2020, eq. 7).

        λ = κ / (d − J_c),  or `maximum` where that is larger or the limit is exceeded.

    Not an ascent: it remembers nothing, and is never 0 for a finite limit.
    """

    def init() -> BarrierState:
        return BarrierState(jnp.zeros(()))

    def update(state: BarrierState, cost: Scalar, limit: Scalar) -> BarrierState:
        slack = -excess(cost, limit)
        is_inside = slack > 0.0
        slope = coefficient / jnp.where(is_inside, slack, 1.0)
        value = jnp.where(is_inside, jnp.minimum(slope, maximum), maximum)
        return BarrierState(jnp.asarray(value, state.value.dtype))

    return Dual(init, update)
