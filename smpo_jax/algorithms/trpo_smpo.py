"""SMPO with natural-gradient steps: everything is `smpo`'s, but how the policy moves.

The surrogate of the modulated advantage is maximised within a trust region, as in TRPO, instead of
in clipped passes. Where these move the policy by a divergence of 0.002 to 0.005 an iteration, the
natural gradient makes use of all it is allowed, which learns twice as fast at first.

Deviation: the paper has PPO's clipped surrogate.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp

from smpo_jax.algorithms import base, recipes, smpo, trust_region
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.TrustRegion, smpo.Modulation):
    """TRPO's, and SMPO's choices."""

    final_target_kl: float = 0.01  # target_kl falls geometrically to this over the run

    def __post_init__(self):
        base.require(self, base.POSITIVE, "final_target_kl")
        super().__post_init__()


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """SMPO for a problem, with natural-gradient steps."""
    settings = hyperparameters
    ac = recipes.actor_critic(spec, settings)
    fall = settings.final_target_kl / settings.target_kl

    def improve(learner, samples, policy_term, key):
        progress = jnp.clip(learner.iteration / spec.total_iterations, 0.0, 1.0)
        reach: dict[str, Any] = {"target_kl": settings.target_kl * fall**progress}
        now = dataclasses.replace(settings, **reach)
        pays = None if policy_term is None else lambda dist: policy_term(dist, samples)
        learner, moved = trust_region.ascend(ac, now, learner, samples.batch, policy_term=pays)
        learner, fitted = trust_region.fit_critics(ac, learner, samples.batch, key)
        return learner, {**moved, **fitted}

    how = smpo.Improvement(partial(trust_region.init, ac), improve)
    return smpo.modulated(ac, settings, how)
