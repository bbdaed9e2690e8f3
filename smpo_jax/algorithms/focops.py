"""First-order constrained optimisation in policy space (Zhang, Vuong & Ross 2020).

The optimal policy of the constrained trust-region problem is known in closed form up to its
normaliser; projecting it back on the network is, per sample (eq. 13 and algorithm 1),

    min  [KL(π_θ ‖ π) − ρ (A − ν A_c) / λ]  1[KL(π_θ ‖ π) ≤ η]

with the probability ratio ρ and the policy π that acted. The indicator drops the states in which
the policy has already moved as far as it may. ν is a Lagrange multiplier by gradient ascent, with
an upper bound.

Deviation: the advantage is divided by 1 + ν, as in OmniSafe and as in `lagrangian`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, constrained, improvers, lagrangian, recipes
from smpo_jax.algorithms.improvers import FirstOrder
from smpo_jax.core import surrogate
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Distribution, Metrics, Spec


@dataclass(frozen=True, kw_only=True)
class FOCOPS(base.Lagrangian, FirstOrder):
    """PPO's (`clip` is only reported on), the multiplier's and FOCOPS's; OmniSafe's numbers."""

    multiplier_maximum: float = 2.0  # ν is never above
    temperature: float = 1.5  # λ: how much divergence a unit of advantage is worth
    state_kl: float = 0.02  # η: states further from the acting policy are left out

    def __post_init__(self):
        base.require(self, base.POSITIVE, "temperature", "state_kl")
        super().__post_init__()


def make(spec: Spec, settings: FOCOPS, networks: Networks = DEFAULT) -> Algorithm:
    """FOCOPS for a problem."""
    ac = recipes.actor_critic(spec, settings, networks, critics=constrained.critics(spec))

    def objective(dist: Distribution, batch: recipes.Batch) -> tuple[Float[Array, ""], Metrics]:
        return projection(settings, dist, batch)

    return lagrangian.penalised(settings, improvers.passes(ac, objective))


def projection(
    settings: FOCOPS, dist: Distribution, batch: recipes.Batch
) -> tuple[Float[Array, ""], Metrics]:
    """The loss above, `batch.advantage` being that of the Lagrangian."""
    ratio = surrogate.ratio(dist.log_prob(batch.action), batch.log_prob)
    kl = dist.kl(batch.dist)
    near = jnp.asarray(jax.lax.stop_gradient(kl) <= settings.state_kl, kl.dtype)
    gain = ratio * batch.advantage
    entropy = jnp.mean(dist.entropy())
    loss = jnp.mean(near * (kl - gain / settings.temperature))
    return loss - settings.entropy_coefficient * entropy, {
        "policy/surrogate": jnp.mean(gain),
        "policy/entropy": entropy,
        "policy/clip_share": surrogate.clip_share(ratio, clip=settings.clip),
        "policy/near_share": jnp.mean(near),
    }
