"""Constraint-rectified policy optimisation (Xu, Liang & Lan 2021), on TRPO as OmniSafe's OnCRPO.

No multiplier: an iteration in which the measured episode cost is within the limit and a tolerance
(J_c <= d + η) takes TRPO's step for the reward, any other takes it against the cost.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from smpo_jax.algorithms import base, constrained, recipes, trust_region
from smpo_jax.core import episodes
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.Constrained, base.TrustRegion):
    """TRPO's, and when it turns against the cost."""

    tolerance: float = 2.0  # η: episode cost above the limit that is still let pass

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "tolerance")
        super().__post_init__()


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """CRPO for a problem."""
    settings = hyperparameters
    ac = recipes.actor_critic(spec, settings, critics=recipes.VALUES)

    def init(key: Key) -> LearnerState:
        return trust_region.init(ac, key).replace(aux=episodes.empty_window())

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        is_kept = window.cost <= spec.cost_limit + settings.tolerance
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        advantage = jnp.where(is_kept, found.reward, -found.cost)
        batch = constrained.to_batch(transition, estimates, found, advantage)
        learner, moved = trust_region.ascend(ac, settings, learner, batch)
        learner, fitted = trust_region.fit_critics(ac, learner, batch, key)
        return recipes.advance(ac, learner.replace(aux=window), transition), {
            **moved,
            **fitted,
            **metrics,
            "constraint/cost_return": window.cost,
            "constraint/slack": jnp.asarray(is_kept, window.cost.dtype),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
