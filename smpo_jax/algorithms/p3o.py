"""Penalised PPO (Zhang et al. 2022): an exact penalty on exceeding the limit, no multiplier.

PPO's loss plus κ max(0, E[max(ρ A_c, clip(ρ) A_c)] + w (J_c − d)), eq. 10: the clipped surrogate of
the cost, pessimistic like that of the reward, counts once the predicted cost is over the limit. Of
several constraints the penalties are added, as in the paper.

Deviation: w = 1 as in OmniSafe, whose numbers these are; in the paper w = 1 − γ, which brings the
episode's cost to the scale of the advantage. With w = 1 the penalty is in effect all on where
J_c > d and all off elsewhere. On several devices E is of a device's samples, each minibatch's
penalty the mean of theirs.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.algorithms.improvers import FirstOrder
from smpo_jax.core import constraints, episodes, multipliers, surrogate
from smpo_jax.core.constraints import each
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import (
    Algorithm,
    Distribution,
    Key,
    LearnerState,
    Metrics,
    PerCost,
    Rollout,
    Scalar,
    Spec,
)


@dataclass(frozen=True, kw_only=True)
class P3O(base.Constrained, FirstOrder):
    """PPO's, and those of the penalty."""

    penalty_coefficient: float = 20.0  # κ; must be more than the multiplier at the optimum
    excess_weight: float = 1.0  # w: of the measured excess J_c - d beside the surrogate's change

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "penalty_coefficient", "excess_weight")
        super().__post_init__()


def make(spec: Spec, settings: P3O, networks: Networks = DEFAULT) -> Algorithm:
    """P3O for a problem."""
    improver = settings.improver(spec, networks, critics=constrained.critics(spec))
    ac = improver.ac

    def init(key: Key) -> LearnerState:
        return improver.init(key).replace(aux=episodes.empty_window(spec.cost_limit))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        excess = each(multipliers.excess, window.cost, spec.cost_limit)
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        batch = constrained.to_batch(
            ac, transition, estimates, found, found.reward, extra=found.cost
        )

        def term(dist: Distribution, some: recipes.Batch) -> Float[Array, ""]:
            return penalty(settings, dist, some, excess)

        learner, improved = improver.improve(learner, batch, key, term)
        final = ac.policy.apply(learner.params["policy"], batch.obs)
        return recipes.end_iteration(ac, learner.replace(aux=window), transition), {
            **improved,
            **metrics,
            **constrained.report("cost_return", window.cost),
            "constraint/penalty": penalty(settings, final, batch, excess),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))


def penalty(
    settings: P3O, dist: Distribution, batch: recipes.Batch, excess: PerCost
) -> Float[Array, ""]:
    """What is added to PPO's loss; `excess` is the measured J_c − d, `batch.extra` holds A_c."""
    ratio = surrogate.ratio(dist.log_prob(batch.action), batch.log_prob)

    def of_cost(advantage: Float[Array, " B"], excess: Scalar) -> Float[Array, ""]:
        # max(ρ A, clip(ρ) A) = −min(ρ (−A), clip(ρ) (−A)): the pessimist's view of a cost.
        worse = -surrogate.clipped(ratio, -advantage, clip=settings.clip)
        over = jnp.mean(worse) + settings.excess_weight * excess
        return settings.penalty_coefficient * jnp.maximum(over, 0.0)

    return constraints.total(each(of_cost, batch.extra, excess))
