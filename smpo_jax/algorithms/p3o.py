"""Penalised PPO (Zhang et al. 2022): an exact penalty on exceeding the limit, no multiplier.

PPO's loss plus κ max(0, E[max(ρ A_c, clip(ρ) A_c)] + w (J_c − d)), eq. 10: the clipped surrogate of
the cost, pessimistic like that of the reward, counts once the predicted cost is over the limit.

Deviation: w = 1 as in OmniSafe, whose numbers these are; in the paper w = 1 − γ, which brings the
episode's cost to the scale of the advantage. With w = 1 the penalty is in effect all on where
J_c > d and all off elsewhere.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.core import distributions, episodes, multipliers, optimise, surrogate
from smpo_jax.types import (
    Algorithm,
    DiagonalGaussian,
    Key,
    LearnerState,
    Metrics,
    Rollout,
    Scalar,
    Spec,
)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.Constrained, base.FirstOrder):
    """PPO's, and those of the penalty."""

    penalty_coefficient: float = 20.0  # κ; must be more than the multiplier at the optimum
    excess_weight: float = 1.0  # w: of the measured excess J_c - d beside the surrogate's change

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "penalty_coefficient", "excess_weight")
        super().__post_init__()


class Samples(NamedTuple):
    """PPO's samples, with costs."""

    batch: recipes.Batch
    cost_advantage: Float[Array, " B"]


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """P3O for a problem."""
    settings = hyperparameters
    ac = recipes.actor_critic(spec, settings, critics=recipes.VALUES)

    def init(key: Key) -> LearnerState:
        return ac.init(key).replace(aux=episodes.empty_window())

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        excess = multipliers.excess(window.cost, spec.cost_limit)
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        batch = constrained.to_batch(transition, estimates, found, found.reward)
        samples = Samples(batch, optimise.flatten(found.cost))

        def term(dist: DiagonalGaussian, some: Samples) -> Float[Array, ""]:
            return penalty(settings, dist, some, excess)

        objective = recipes.clipped_objective(ac, policy_term=term, batch_of=_batch_of)
        loss = recipes.actor_critic_loss(ac, objective, batch_of=_batch_of)
        learner, fitted = recipes.fit(ac, loss, learner, samples, key, batch_of=_batch_of)
        final = ac.policy.apply(learner.params["policy"], batch.obs)
        return recipes.advance(ac, learner.replace(aux=window), transition), {
            **fitted,
            **metrics,
            "constraint/cost_return": window.cost,
            "constraint/penalty": penalty(settings, final, samples, excess),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))


def penalty(
    settings: Hyperparameters, dist: DiagonalGaussian, samples: Samples, excess: Scalar
) -> Float[Array, ""]:
    """What is added to PPO's loss; `excess` is the measured J_c − d."""
    batch = samples.batch
    ratio = surrogate.ratio(distributions.log_prob(dist, batch.action), batch.log_prob)
    # max(ρ A, clip(ρ) A) = −min(ρ (−A), clip(ρ) (−A)): the pessimist's view of a cost.
    worse = -surrogate.clipped(ratio, -samples.cost_advantage, clip=settings.clip)
    over = jnp.mean(worse) + settings.excess_weight * excess
    return settings.penalty_coefficient * jnp.maximum(over, 0.0)


def _batch_of(samples: Samples) -> recipes.Batch:
    return samples.batch
