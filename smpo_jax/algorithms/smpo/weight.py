"""The cost-aware weight f, and what it makes of rewards (SMPO, Definition 1, eqs. 5-6).

With the cost C_t that the episode has spent, the predicted cost Q^c and the threshold d',

    x = C_t + clip(Q^c, 0, d') − d',    f(x) = (1 − b^x) / (1 − b^(−d')),    M(r) = f r,

so that f is 1 where nothing is spent or expected, 0 where the whole budget is, negative beyond. Of
several constraints each has a weight, and the weights are multiplied (see `product`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_jax.core import constraints, returns
from smpo_jax.core.constraints import each
from smpo_jax.core.episodes import ends
from smpo_jax.types import PerCost, Rollout, Scalar, Transition

Steps = Float[Array, "T N"]
Threshold = Scalar | Float[Array, "*batch"]  # d' of all steps, or of each


class Weight(NamedTuple):
    """f(x) and df/dx."""

    value: Float[Array, "*batch"]  # at most 1 for x >= -d'
    slope: Float[Array, "*batch"]  # < 0


def cost_aware_weight(
    x: Float[Array, "*batch"],
    threshold: Threshold,
    *,
    base: Scalar,
    temperature: Scalar = 1.0,
    floor: Scalar = -5.0,
) -> Weight:
    """How much of the reward a step keeps, given by how much it is over budget (eqs. 5-6).

        f(x) = (1 − b^(x/τ)) / (1 − b^(−d'/τ))

    1 at x = −d' (nothing spent, nothing expected), 0 at x = 0, and never below `floor` (< 1). The
    floor is imposed on x, at f⁻¹(floor), so that nothing overflows whatever b, d', x are; what is
    beyond it has the slope of the floor, not 0: cost is no cheaper there. `threshold` is d' > 0.
    """
    rate = jnp.log(base) / temperature
    full = jnp.expm1(-rate * threshold)  # in (-1, 0)
    exponent = jnp.minimum(rate * x, jnp.log1p(floor * full))
    return Weight(jnp.expm1(exponent) / full, rate * jnp.exp(exponent) / full)


def twice_budget_weight(
    x: Float[Array, "*batch"],
    threshold: Threshold,
    *,
    base: Scalar,
    temperature: Scalar = 1.0,
    floor: Scalar = -5.0,
) -> Weight:
    """The weight of the author's earlier published experiments, which the paper does not have.

        f(x) = 1 − b^((x − d')/τ),   x = min(C_t, d') + min(V_c, d') − d'

    which with b = e and τ = 1 is 1 − e^(min(V_c, d') + min(C_t, d') − 2 d'). It is 0 only where the
    budget d' is spent and as much again is expected, and near 1 up to the last units before. With
    x so clipped it is never negative; whatever x is, it is never below `floor` (< 1), which is
    imposed as in `cost_aware_weight`. `threshold` is d' > 0.
    """
    rate = jnp.log(base) / temperature
    exponent = jnp.minimum(rate * (x - threshold), jnp.log1p(-floor))
    return Weight(-jnp.expm1(exponent), -rate * jnp.exp(exponent))


def product(weights: PerCost) -> tuple[Float[Array, "*batch"], PerCost]:
    """What the weights of all constraints come to together, and the slope of that in each Q^c.

        f = Πᵢ max(fᵢ, 0) + Σᵢ min(fᵢ, 0)

    The product within all budgets; beyond some, what those make of it. Never rising in any cost.

    Deviation: a plain product of two negative weights would pay for exceeding both budgets.

    Args:
        weights: a `Weight` for each constraint.

    Returns:
        The weight, and for each constraint its own with the slope ∂f/∂fᵢ ∂fᵢ/∂Q^cᵢ.
    """
    values = each(lambda own: own.value, weights)

    def slope_in(i: int, own: Weight) -> Weight:
        others = [f for j, f in enumerate(constraints.values(values)) if j != i]
        # Beyond its own budget a weight is added: its slope is its own.
        slope = functools.reduce(
            lambda slope, f: slope * jnp.where(own.value < 0.0, 1.0, jnp.maximum(f, 0.0)),
            others,
            own.slope,
        )
        return own._replace(slope=slope)

    order = iter(range(len(constraints.values(weights))))
    return (
        functools.reduce(_joined, constraints.values(values)),
        each(lambda own: slope_in(next(order), own), weights),
    )


def _joined(a: Float[Array, "*batch"], b: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    beyond = jnp.minimum(a, 0.0) + jnp.minimum(b, 0.0)
    return jnp.maximum(a, 0.0) * jnp.maximum(b, 0.0) + beyond


class Modulation(NamedTuple):
    """Definition 1 with its open choices made.

    Attributes:
        f: the weight of x, given d'.
        spent: `(rollout, threshold) -> [T, N]`, C_t of each step.
        scale: of Q^c, to the cost of a whole episode.
        prediction_clip: bound on the scaled Q^c, in multiples of d'.
        shift: what is added to rewards before f multiplies, so that none is negative.
        reward: `(r, f, shift) -> M(r)`.
        advantage: `(standardised A, f) -> A` as the policy is paid.
        at_stake: `(r + shift, transition) -> [T, N]`, what f puts at stake at each step.
    """

    f: Callable[[Steps, Threshold], Weight]
    spent: Callable[[Rollout, Threshold], Steps]
    scale: Scalar
    prediction_clip: Scalar
    shift: Callable[[Transition], Steps]
    reward: Callable[[Steps, Steps, Steps], Steps]
    advantage: Callable[[Steps, Steps], Steps]
    at_stake: Callable[[Steps, Transition], Steps]

    def weigh(
        self, rollout: Rollout, q: Steps, threshold: Threshold, *, is_on: Bool[Array, ""]
    ) -> Weight:
        """F of every step and its slope in Q^c(s_t, a_t); 1 and 0 while SMPO is not on yet.

        The clip on the prediction guards f; like f's floor it does not make further cost free, so
        that the slope is kept.
        """
        predicted = jnp.clip(self.scale * q, 0.0, self.prediction_clip * threshold)
        weight = self.f(self.spent(rollout, threshold) + predicted - threshold, threshold)
        return Weight(
            jnp.where(is_on, weight.value, 1.0), jnp.where(is_on, self.scale * weight.slope, 0.0)
        )

    def charge(self, weight: Weight, transition: Transition) -> Steps:
        """−r ∂f/∂Q^c: what a unit of Q^c(s_t, a_t) takes from the modulated reward of step t."""
        return -weight.slope * self.at_stake(transition.reward + self.shift(transition), transition)


# What counts as spent


def episode_cost(rollout: Rollout, threshold: Threshold) -> Steps:
    """C_t as in the paper: the cost of the episode before step t."""
    del threshold
    return rollout.cost_so_far


def capped_cost(rollout: Rollout, threshold: Threshold) -> Steps:
    """min(C_t, d'), as in the author's earlier published experiments."""
    return jnp.minimum(rollout.cost_so_far, threshold)


def nothing(rollout: Rollout, threshold: Threshold) -> Steps:
    """C_t = 0: f looks ahead only."""
    del threshold
    return jnp.zeros_like(rollout.cost_so_far)


# What is modulated. f (r + shift) − shift is written so that f = 1 leaves r exactly.


def modulated_reward(reward: Steps, f: Steps, shift: Steps) -> Steps:
    """M(r) = f (r + shift) − shift."""
    return reward + (f - 1.0) * (reward + shift)


def is_paid_for_excess(reward: Steps, f: Steps, shift: Steps) -> Bool[Array, "T N"]:
    """Where a step beyond the budget earns: f < 0 times r + shift < 0 is a gain.

    It should be nowhere, since the shift is there to leave no reward negative. Where it is, further
    cost raises the modulated reward, so that the limit is worked against.
    """
    return (f < 0.0) & (reward + shift < 0.0)


def shifted_reward(reward: Steps, f: Steps, shift: Steps) -> Steps:
    """The reward itself, where f multiplies the advantage."""
    del f
    return reward + shift


def unchanged(advantage: Steps, f: Steps) -> Steps:
    """The advantage itself, where f has multiplied the reward."""
    del f
    return advantage


def modulated_advantage(advantage: Steps, f: Steps) -> Steps:
    """F A, as in the author's published code."""
    return f * advantage


# The shift that leaves no reward negative


def constant_shift(amount: Scalar) -> Callable[[Transition], Steps]:
    """The same for all steps."""
    return lambda transition: jnp.full_like(transition.reward, amount)


def running_minimum_shift(transition: Transition) -> Steps:
    """What lifts the least reward of the episode so far to 0, as in the author's published code."""
    end = ends(transition.terminated, transition.truncated)
    return jnp.maximum(-running_minimum(transition.reward, end), 0.0)


def running_minimum(x: Float[Array, "T N"], end: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """The least x of the episode up to and with each step, as far as the rollout shows it."""

    def step(before, inputs):
        x_t, end_t = inputs
        least = jnp.minimum(before, x_t)
        return jnp.where(end_t > 0, jnp.inf, least), least

    _, least = jax.lax.scan(step, jnp.full_like(x[0], jnp.inf), (x, end))
    return least


# What is at stake


def reward_of_step(reward: Steps, transition: Transition) -> Steps:
    """The reward of the step, as in the paper."""
    del transition
    return reward


def reward_to_go(discount: Scalar) -> Callable[[Steps, Transition], Steps]:
    """The discounted reward from the step on, as in the author's published code."""
    return lambda reward, transition: returns.to_go(
        reward, transition.terminated, transition.truncated, discount=discount
    )
