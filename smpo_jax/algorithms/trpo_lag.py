"""TRPO-Lagrangian (Ray, Achiam & Amodei 2019), RCPO, and TRPO with any other multiplier's rule.

TRPO on the advantage of the Lagrangian, (A − λ A_c) / (1 + λ), where λ follows the measured episode
cost: up while it exceeds the limit, down while it does not. With λ = 0 this is TRPO.

The preset `rcpo` is what OmniSafe calls RCPO (after Tessler, Mankowitz & Mannor 2019): the same
natural gradient and the same λ, but the step is taken whole, without a line search.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, constrained, recipes, trust_region
from smpo_jax.core import surrogate
from smpo_jax.core.multipliers import Dual
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.Lagrangian, base.TrustRegion):
    """TRPO's, and those of a multiplier by gradient ascent."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """TRPO-Lagrangian for a problem."""
    return penalised_trpo(spec, hyperparameters, hyperparameters, hyperparameters.dual())


def penalised_trpo(
    spec: Spec, settings: base.TrustRegion, costs: base.Constrained, dual: Dual
) -> Algorithm:
    """TRPO that pays λ per unit of cost, for any rule that sets λ."""
    ac = recipes.actor_critic(spec, settings, critics=recipes.VALUES)

    def init(key: Key) -> LearnerState:
        return trust_region.init(ac, key).replace(aux=constrained.start(dual))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        aux, multiplier, measured = constrained.ascend(
            dual, costs, learner.aux, rollout, spec.cost_limit
        )
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, costs, learner, transition, estimates)
        advantage = surrogate.penalised(found.reward, found.cost, multiplier)
        batch = constrained.to_batch(transition, estimates, found, advantage)
        learner, moved = trust_region.ascend(ac, settings, learner, batch)
        learner, fitted = trust_region.fit_critics(ac, learner, batch, key)
        learner = recipes.advance(ac, learner.replace(aux=aux), transition)
        return learner, {**moved, **fitted, **metrics, **measured}

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, costs))
