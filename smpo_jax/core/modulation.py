"""SMPO's maths: the cost-aware weight, its threshold, and the price it puts on predicted cost.

Zhang & Guo, "Safety Modulation", arXiv 2504.03040; equation numbers are the paper's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.core.episodes import ends
from smpo_jax.types import Scalar

LARGEST_SLACK = 1e6  # in units of cost; keeps an infinite limit from making NaN


class Weight(NamedTuple):
    """f(x) and df/dx."""

    value: Float[Array, "*batch"]  # at most 1 for x >= -d'
    slope: Float[Array, "*batch"]  # < 0


def cost_aware_weight(
    x: Float[Array, "*batch"],
    threshold: Scalar,
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


def scheduled_threshold(limit: Scalar, epoch: Scalar, *, factor: Scalar, epochs: Scalar) -> Scalar:
    """d'(e) = d (η − (η − 1) min(e, e_max) / e_max): from `factor` d down to d (section 4.5)."""
    progress = jnp.where(epochs > 0, jnp.clip(epoch / jnp.maximum(epochs, 1e-9), 0.0, 1.0), 1.0)
    return limit * (factor - (factor - 1.0) * progress)


def slack(target: Scalar, measured: Scalar, *, bound: Scalar) -> Float[Array, ""]:
    """What the measured episode cost leaves of its target: target − J_c, within ± `bound`.

    A fixed weight leaves the episode cost wherever it leaves it. A threshold to which a multiple of
    this is added in every epoch (an integral controller) moves until the measured cost is the
    target; bounded, a cost of eight times the target tightens it no faster than one of twice.
    """
    bound = jnp.minimum(bound, LARGEST_SLACK)
    return jnp.clip(jnp.asarray(target - measured), -bound, bound)


def cost_per_step(discount: Scalar, trace: Scalar, regularisation: Scalar) -> Scalar:
    """κ such that κ Q^c is the cost per step, for a steady cost.

    With the target's discount γ and trace λ and the penalty ρ mean(Q²), a constant cost c has the
    fixed point (1 + ρ) Q = (c + γ (1 − λ) Q) / (1 − γλ), that is Q = c / κ with

        κ = 1 − γ + ρ (1 − γλ).

    Without the penalty this is the familiar 1 − γ; one-step targets (λ = 0) with γ = 0.99 and
    ρ = 0.1 shrink Q^c eleven times over, to a horizon of 9 steps.
    """
    return 1.0 - discount + regularisation * (1.0 - discount * trace)


def shrinkage(discount: Scalar, trace: Scalar, regularisation: Scalar) -> Scalar:
    """How many times smaller the penalty makes Q^c, for a steady cost: κ / (1 − γ), see above.

    Q^c times this is the discounted cost-to-go; 1 without the penalty, also for γ = 1.
    """
    kept = jnp.maximum(1.0 - discount, 1e-9)
    return 1.0 + regularisation * (1.0 - discount * trace) / kept


def running_minimum(x: Float[Array, "T N"], end: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """The least x of the episode up to and with each step, as far as the rollout shows it."""

    def step(before, inputs):
        x_t, end_t = inputs
        least = jnp.minimum(before, x_t)
        return jnp.where(end_t > 0, jnp.inf, least), least

    _, least = jax.lax.scan(step, jnp.full_like(x[0], jnp.inf), (x, end))
    return least


def price(
    charge: Float[Array, "T N"],
    elapsed: Float[Array, "T N"],
    terminated: Float[Array, "T N"],
    truncated: Float[Array, "T N"],
    *,
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "T N"]:
    """What a unit of Q^c(s_τ, a_τ) costs the objective, from the steps before τ (eqs. 10-13).

    Step t loses `charge`_t = −r_t df/dQ^c per unit of its Q^c(s_t, a_t), whose gradient is that of
    the costs to come: γ E ∇Q^c(s_{t+1}, ·) in the action chosen there, and so on along the episode.
    Gathered by the state whose action it is,

        W_{τ+1} = γ (charge_τ + trace W_τ) (1 − end_τ),

    `trace` = 0 being the paper's single step and 1 the gradient with no term cut off, which is up
    to 1 / (1 − γ) times larger. A rollout that begins within an episode starts from what the mean
    charge would have left after that many steps.
    """
    decay = discount * trace
    steady = jnp.where(
        decay < 1.0,
        (1.0 - decay ** elapsed[0]) / jnp.maximum(1.0 - decay, 1e-9),
        elapsed[0],
    )
    first = discount * jnp.mean(charge) * steady

    def step(w, inputs):
        charge_t, end_t = inputs
        return discount * (charge_t + trace * w) * (1.0 - end_t), w

    _, weights = jax.lax.scan(step, first, (charge, ends(terminated, truncated)))
    return weights
