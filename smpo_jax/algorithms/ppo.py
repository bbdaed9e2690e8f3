"""Proximal policy optimisation (Schulman et al. 2017): the unconstrained baseline; ignores costs.

Settings and semantics follow OmniSafe's PPO, for large vectorised batches: advantages standardised
once over the rollout, passes stopped by the divergence of the whole batch, gradients clipped per
network, learning rate decayed linearly.

Deviation: minibatches are about 2 000 samples instead of 64, and passes at most 5 instead of 40,
which is what keeps two CPU cores (or a GPU) busy; the step size is the same.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, recipes
from smpo_jax.core import surrogate
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.FirstOrder):
    """PPO has only what all first-order methods have."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """PPO for a problem."""
    ac = recipes.actor_critic(spec, hyperparameters)
    loss = recipes.actor_critic_loss(ac, recipes.clipped_objective(ac))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        estimates = recipes.estimate(ac, learner, transition)
        advantage, target = recipes.advantages(ac, transition.reward, transition, estimates)
        advantage = surrogate.standardise(advantage)
        batch = recipes.to_batch(transition, estimates, advantage, value=target)
        learner, metrics = recipes.fit(ac, loss, learner, batch, key)
        metrics["value/explained_variance"] = recipes.explained_variance(estimates.value, target)
        return recipes.advance(ac, learner, transition), metrics

    return Algorithm(ac.init, ac.acting, update)
