"""Trust region policy optimisation (Schulman et al. 2015): unconstrained; ignores costs.

    max E[π(a|s)/π_old(a|s) A]  subject to  E KL(π_old || π) <= δ

by one step along the natural gradient (appendix C), of the length at which the quadratic model of
the divergence is δ, shortened until the true one is within δ and the surrogate has not fallen.
Settings follow OmniSafe's TRPO.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, recipes, trust_region
from smpo_jax.core import surrogate
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.TrustRegion):
    """TRPO has only what all trust-region methods have."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """TRPO for a problem."""
    settings = hyperparameters
    ac = recipes.actor_critic(spec, settings)

    def init(key: Key) -> LearnerState:
        return trust_region.init(ac, key)

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        estimates = recipes.estimate(ac, learner, transition)
        advantage, target = recipes.advantages(ac, transition.reward, transition, estimates)
        batch = recipes.to_batch(
            transition, estimates, surrogate.standardise(advantage), value=target
        )
        learner, moved = trust_region.ascend(ac, settings, learner, batch)
        learner, fitted = trust_region.fit_critics(ac, learner, batch, key)
        fitted["value/explained_variance"] = recipes.explained_variance(estimates.value, target)
        return recipes.advance(ac, learner, transition), {**moved, **fitted}

    return Algorithm(init, ac.acting, update)
