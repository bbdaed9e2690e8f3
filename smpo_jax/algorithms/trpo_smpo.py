"""SMPO with natural-gradient steps: everything is `smpo`'s, but how the policy moves.

The surrogate of the modulated advantage is maximised within a trust region, as in TRPO, instead of
in clipped passes. Where these move the policy by a divergence of 0.002 to 0.005 an iteration, the
natural gradient makes use of all it is allowed, which learns twice as fast at first.

Deviation: the paper has PPO's clipped surrogate.
"""

from dataclasses import dataclass
from functools import partial

from smpo_jax.algorithms import base, recipes, smpo, trust_region
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.TrustRegion, smpo.Modulation):
    """TRPO's, and SMPO's choices."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """SMPO for a problem, with natural-gradient steps."""
    ac = recipes.actor_critic(spec, hyperparameters)

    def improve(learner, samples, policy_term, key):
        pays = None if policy_term is None else lambda dist: policy_term(dist, samples)
        learner, moved = trust_region.ascend(
            ac, hyperparameters, learner, samples.batch, policy_term=pays
        )
        learner, fitted = trust_region.fit_critics(ac, learner, samples.batch, key)
        return learner, {**moved, **fitted}

    how = smpo.Improvement(partial(trust_region.init, ac), improve)
    return smpo.modulated(ac, hyperparameters, how)
