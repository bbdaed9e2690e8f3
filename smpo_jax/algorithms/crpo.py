"""Constraint-rectified policy optimisation (Xu, Liang & Lan 2021), on TRPO as OmniSafe's OnCRPO.

No multiplier: an iteration in which the measured episode cost is within the limit and a tolerance
(J_c <= d + η) takes TRPO's step for the reward, any other takes it against the cost.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.algorithms.improvers import TrustRegion
from smpo_jax.core import episodes
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class CRPO(base.Constrained, TrustRegion):
    """TRPO's, and when it turns against the cost."""

    tolerance: float = 2.0  # η: episode cost above the limit that is still let pass

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "tolerance")
        super().__post_init__()


def make(spec: Spec, settings: CRPO, networks: Networks = DEFAULT) -> Algorithm:
    """CRPO for a problem."""
    improver = settings.improver(spec, networks, critics=recipes.VALUES)
    ac = improver.ac

    def init(key: Key) -> LearnerState:
        return improver.init(key).replace(aux=episodes.empty_window())

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        is_kept = window.cost <= spec.cost_limit + settings.tolerance
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        advantage = jnp.where(is_kept, found.reward, -found.cost)
        batch = constrained.to_batch(transition, estimates, found, advantage)
        learner, improved = improver.improve(learner, batch, key)
        return recipes.end_iteration(ac, learner.replace(aux=window), transition), {
            **improved,
            **metrics,
            "constraint/cost_return": window.cost,
            "constraint/slack": jnp.asarray(is_kept, window.cost.dtype),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
