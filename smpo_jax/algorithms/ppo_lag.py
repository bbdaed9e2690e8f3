"""PPO-Lagrangian (Ray, Achiam & Amodei 2019), and PPO with any other rule for the multiplier.

PPO on the advantage of the Lagrangian, (A − λ A_c) / (1 + λ), where λ follows the measured episode
cost: up while it exceeds the limit, down while it does not. With λ = 0 this is PPO.

Deviation: λ moves once per iteration, as in OmniSafe, but an iteration is larger here (32 000 steps
by default instead of 20 000); minibatches and passes are those of `ppo`.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.core import surrogate
from smpo_jax.core.multipliers import Dual
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.Lagrangian, base.FirstOrder):
    """PPO's, and those of a multiplier by gradient ascent."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """PPO-Lagrangian for a problem."""
    ac = recipes.actor_critic(spec, hyperparameters, critics=recipes.VALUES)
    objective = recipes.clipped_objective(ac)
    return penalised(ac, hyperparameters, hyperparameters.dual(), objective)


def penalised(
    ac: recipes.ActorCritic,
    settings: base.Constrained,
    dual: Dual,
    objective: recipes.Objective,
) -> Algorithm:
    """A policy that pays λ per unit of cost, for any rule that sets λ.

    `objective` is what the policy minimises; its batch's advantage is the Lagrangian's.
    """
    loss = recipes.actor_critic_loss(ac, objective)

    def init(key: Key) -> LearnerState:
        return ac.init(key).replace(aux=constrained.start(dual))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        aux, multiplier, measured = constrained.ascend(
            dual, settings, learner.aux, rollout, ac.spec.cost_limit
        )
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        advantage = surrogate.penalised(found.reward, found.cost, multiplier)
        batch = constrained.to_batch(transition, estimates, found, advantage)
        learner, fitted = recipes.fit(ac, loss, learner, batch, key)
        learner = recipes.advance(ac, learner.replace(aux=aux), transition)
        return learner, {**fitted, **metrics, **measured}

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
