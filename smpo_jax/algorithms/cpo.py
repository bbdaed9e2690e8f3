"""Constrained policy optimisation (Achiam et al. 2017).

TRPO whose step also keeps a linear model of the constraint,

    max gᵀd  subject to  c + bᵀd <= 0,  ½ dᵀF d <= δ,

with g and b the gradients of the surrogate reward and cost, and c = J_c − d. Where no step
satisfies both, the step cuts cost alone. The line search takes nothing that raises the cost beyond
the slack, nor, within the limit, anything that lowers the reward. With an infinite limit this is
TRPO exactly. Settings follow OmniSafe's CPO.

Deviation: c is not divided by the episode's length, which the unit of bᵀd, cost per step, asks for
and Achiam's code does, as OmniSafe's early versions did. The cut that the division asks for is
small enough for the linear model to find it in the noise of the advantages (PointGoal1, seed 0: the
cost stayed at 47 for 3.4 million steps, limit 25). Undivided, a policy beyond the limit only cuts
cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, constrained, improvers, recipes
from smpo_jax.algorithms.improvers import TrustRegion
from smpo_jax.core import episodes, optimise
from smpo_jax.core.trust_region import Product, Vector, constrained_step
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Scalar, Spec


@dataclass(frozen=True, kw_only=True)
class CPO(base.Constrained, TrustRegion):
    """TRPO's, and those of costs."""

    learning_rate_decay: bool = True  # of the critics, linearly to 0 over the run
    backtracks: int = 20  # steps that the line search tries


class Directions(NamedTuple):
    """What a constrained step is made of."""

    gradient: Vector  # g
    cost_gradient: Vector  # b
    natural: Vector  # F⁻¹g
    cost_natural: Vector  # F⁻¹b
    fisher: Product  # v -> F v
    violation: Float[Array, ""]  # c; > 0 where the limit is exceeded
    target_kl: Scalar


Rule = Callable[[Directions], tuple[Vector, Metrics]]


def make(spec: Spec, settings: CPO, networks: Networks = DEFAULT) -> Algorithm:
    """CPO for a problem."""

    def rule(known: Directions) -> tuple[Vector, Metrics]:
        found = constrained_step(
            known.gradient @ known.natural,
            known.gradient @ known.cost_natural,
            known.cost_gradient @ known.cost_natural,
            known.violation,
            target_kl=known.target_kl,
        )
        step = found.along_reward * known.natural + found.along_cost * known.cost_natural
        return step, {
            "constraint/slack": jnp.asarray(found.is_slack, step.dtype),
            "constraint/recovery": jnp.asarray(found.is_recovery, step.dtype),
        }

    return constrained_trpo(spec, settings, rule, networks)


def constrained_trpo(
    spec: Spec, settings: CPO, rule: Rule, networks: Networks = DEFAULT
) -> Algorithm:
    """TRPO with a step made of two gradients by any rule."""
    ac = recipes.actor_critic(spec, settings, networks, critics=recipes.VALUES)

    def init(key: Key) -> LearnerState:
        return improvers.init_for_steps(ac, key).replace(aux=episodes.empty_window())

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        violation = window.cost - spec.cost_limit
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        batch = constrained.to_batch(transition, estimates, found, found.reward)

        model = improvers.local_model(ac, learner, batch)
        cost_advantage = optimise.flatten(found.cost)
        gradient, cost_gradient = model.gradient(batch.advantage), model.gradient(cost_advantage)
        step, chosen = rule(
            Directions(
                gradient,
                cost_gradient,
                model.solve(gradient),
                model.solve(cost_gradient),
                model.fisher,
                violation,
                model.target_kl,
            )
        )
        bounds = improvers.Bounds(
            cost_advantage,
            least_gain=jnp.where(violation < 0.0, 0.0, -jnp.inf),
            most_cost=jnp.maximum(-violation, 0.0),
        )
        learner, moved = improvers.take(ac, model, learner, step, bounds)
        learner, fitted = improvers.fit_critics(ac, learner, batch, key)
        return recipes.end_iteration(ac, learner.replace(aux=window), transition), {
            **moved,
            **fitted,
            **metrics,
            **chosen,
            "policy/gradient_norm": optax.tree.norm(gradient),
            "policy/cost_gradient_norm": optax.tree.norm(cost_gradient),
            "constraint/cost_return": window.cost,
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
