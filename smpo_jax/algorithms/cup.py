"""Constrained update projection (Yang et al. 2022): improve first, then project onto the limit.

Phase 1 is PPO on rewards, from π_k to π_{k+½}. Phase 2 goes back towards the limit without going
far from there (eq. 19 with the surrogate of section 4):

    min_θ  E [ KL(π_θ ‖ π_{k+½}) + ν (1 − γλ)/(1 − γ) ρ A_c ]

with the ratio ρ to the policy that acted, its generalised cost advantage A_c, and a Lagrange
multiplier ν by gradient ascent with an upper bound. With ν = 0 there is nothing to do in phase 2.

The policy has to keep some spread σ: phase 2 moves the mean by about ν σ² times the cost's slope,
phase 1 (on standardised advantages) by about σ. Where σ goes to 0 the price that holds the limit
goes to infinity, and ν is bounded; an entropy bonus keeps σ up.

Deviation: phase 2 has an optimiser of its own, since the moments of phase 1's gradients say nothing
about its gradients, and OmniSafe's carries them over.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.algorithms.improvers import FirstOrder
from smpo_jax.core import constraints, optimise, surrogate
from smpo_jax.core.constraints import each
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import (
    Algorithm,
    Distribution,
    Key,
    LearnerState,
    Metrics,
    Params,
    PerCost,
    Rollout,
    Spec,
)

PROJECTION = "projection"  # the entry of `opt_state` that is for phase 2


@dataclass(frozen=True, kw_only=True)
class CUP(base.Lagrangian, FirstOrder):
    """PPO's for both phases, and the multiplier's; OmniSafe's numbers."""

    target_kl: float = 0.01  # stop a phase once the policy has moved this far in it
    multiplier_maximum: float = 2.0  # ν is never above

    def __post_init__(self):
        base.require(self, ("from 0 to below 1", lambda x: 0 <= x < 1), "cost_discount")
        super().__post_init__()


def make(spec: Spec, settings: CUP, networks: Networks = DEFAULT) -> Algorithm:
    """CUP for a problem."""
    improver = settings.improver(spec, networks, critics=constrained.critics(spec))
    ac, dual = improver.ac, settings.dual()
    scale = (1.0 - settings.cost_discount * settings.cost_gae_lambda) / (
        1.0 - settings.cost_discount
    )

    def init(key: Key) -> LearnerState:
        learner = improver.init(key).replace(aux=constrained.start(dual, spec))
        return ac.with_optimiser(learner, PROJECTION, ("policy",))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        improve_key, project_key = jax.random.split(key)
        transition = rollout.transition
        aux, multiplier, measured = constrained.update_multiplier(
            dual, settings, learner.aux, rollout, spec.cost_limit
        )
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        batch = constrained.to_batch(ac, transition, estimates, found, found.reward)
        learner, improved = improver.improve(learner, batch, improve_key)

        halfway = ac.policy.apply(learner.params["policy"], batch.obs)
        costs = batch._replace(advantage=optimise.flatten(found.cost, spec.shards), dist=halfway)

        def to_the_limit(params: Params, some: recipes.Batch) -> tuple[Float[Array, ""], Metrics]:
            dist = ac.policy.apply(params["policy"], some.obs)
            price = each(lambda own: own * scale, multiplier)
            return projection(dist, some, price=price), {}

        learner, projected = recipes.descend(
            ac,
            to_the_limit,
            learner,
            costs,
            project_key,
            networks=("policy",),
            entry=PROJECTION,
            check=recipes.within_reach(ac, costs),
        )
        improved["policy/std"] = projected.pop("policy/std")
        return recipes.end_iteration(ac, learner.replace(aux=aux), transition), {
            **improved,
            **metrics,
            **measured,
            **{f"projection/{name.rpartition('/')[2]}": x for name, x in projected.items()},
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))


def projection(dist: Distribution, batch: recipes.Batch, *, price: PerCost) -> Float[Array, ""]:
    """Phase 2's loss.

    The batch has π_{k+½} for its `dist` and A_c, of each constraint, for its `advantage`.
    """
    ratio = surrogate.ratio(dist.log_prob(batch.action), batch.log_prob)
    paid = constraints.total(each(lambda own, a: own * ratio * a, price, batch.advantage))
    return jnp.mean(dist.kl(batch.dist) + paid)
