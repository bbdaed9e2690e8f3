"""Constraint-rectified policy optimisation (Xu, Liang & Lan 2021), on TRPO as OmniSafe's OnCRPO.

No multiplier: an iteration in which the measured episode cost is within the limit and a tolerance
(J_c <= d + η) takes TRPO's step for the reward, any other takes it against the cost. Of several
constraints that are exceeded the paper lets any be chosen (algorithm 1); here it is the one that is
exceeded most, in units of cost.
"""

import functools
import operator
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.algorithms.improvers import TrustRegion
from smpo_jax.core import constraints, episodes
from smpo_jax.core.constraints import each
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
    improver = settings.improver(spec, networks, critics=constrained.critics(spec))
    ac, limits = improver.ac, spec.cost_limit

    def init(key: Key) -> LearnerState:
        return improver.init(key).replace(aux=episodes.empty_window(spec.cost_limit))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        is_kept = constraints.all_of(
            each(lambda cost, limit: cost <= limit + settings.tolerance, window.cost, limits)
        )
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        worst = functools.reduce(
            _worse, constraints.zipped(each(operator.sub, window.cost, limits), found.cost)
        )
        advantage = jnp.where(is_kept, found.reward, -worst[1])
        batch = constrained.to_batch(ac, transition, estimates, found, advantage)
        learner, improved = improver.improve(learner, batch, key)
        return recipes.end_iteration(ac, learner.replace(aux=window), transition), {
            **improved,
            **metrics,
            **constrained.report("cost_return", window.cost),
            "constraint/slack": jnp.asarray(is_kept, window.count.dtype),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))


Exceeded = tuple[jax.Array, jax.Array]  # by how much, and the cost's advantage


def _worse(a: Exceeded, b: Exceeded) -> Exceeded:
    """The one that is exceeded more; of equals the first."""
    return jax.tree.map(lambda x, y: jnp.where(b[0] > a[0], y, x), a, b)
