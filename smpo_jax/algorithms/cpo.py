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

Of two constraints each has its own critic, gradient and violation; the step keeps both, and so does
the line search (see `trust_region.constrained_step_of_two`).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import optax

from smpo_jax.algorithms import base, constrained, improvers, recipes
from smpo_jax.algorithms.improvers import TrustRegion
from smpo_jax.core import constraints, episodes, optimise, trust_region
from smpo_jax.core.constraints import each
from smpo_jax.core.trust_region import (
    ConstrainedStep,
    Product,
    Vector,
    constrained_step,
    constrained_step_of_two,
)
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, PerCost, Rollout, Scalar, Spec


@dataclass(frozen=True, kw_only=True)
class CPO(base.Constrained, TrustRegion):
    """TRPO's, and those of costs."""

    learning_rate_decay: bool = True  # of the critics, linearly to 0 over the run
    backtracks: int = 20  # steps that the line search tries


class Directions(NamedTuple):
    """What a constrained step is made of."""

    gradient: Vector  # g
    cost_gradient: PerCost  # of a Vector, b
    natural: Vector  # F⁻¹g
    cost_natural: PerCost  # of a Vector, F⁻¹b
    fisher: Product  # v -> F v
    violation: PerCost  # of Float[Array, ""], c; > 0 where the limit is exceeded
    target_kl: Scalar


Rule = Callable[[Directions], tuple[Vector, Metrics]]


def make(spec: Spec, settings: CPO, networks: Networks = DEFAULT) -> Algorithm:
    """CPO for a problem of one constraint or two."""
    rule = RULES[constraints.count(spec.cost_limit)]
    return constrained_trpo(spec, settings, rule, networks)


def rule_of_one(known: Directions) -> tuple[Vector, Metrics]:
    """CPO's step under one constraint."""
    found = constrained_step(
        known.gradient @ known.natural,
        known.gradient @ known.cost_natural,
        known.cost_gradient @ known.cost_natural,
        known.violation,
        target_kl=known.target_kl,
    )
    step = found.along_reward * known.natural + found.along_cost * known.cost_natural
    return step, _case(found)


def rule_of_two(known: Directions) -> tuple[Vector, Metrics]:
    """CPO's step under two constraints."""
    gradients, naturals, violation = (
        jnp.stack(constraints.values(quantity))
        for quantity in (known.cost_gradient, known.cost_natural, known.violation)
    )
    found = constrained_step_of_two(
        known.gradient @ known.natural,
        naturals @ known.gradient,
        gradients @ naturals.T,
        violation,
        target_kl=known.target_kl,
    )
    step = found.along_reward * known.natural + found.along_cost @ naturals
    return step, _case(found)


RULES: dict[int, Rule] = {1: rule_of_one, 2: rule_of_two}  # by the number of constraints


def _case(found: ConstrainedStep) -> Metrics:
    return {
        "constraint/slack": jnp.asarray(found.is_slack, found.along_reward.dtype),
        "constraint/recovery": jnp.asarray(found.is_recovery, found.along_reward.dtype),
    }


def constrained_trpo(
    spec: Spec, settings: CPO, rule: Rule, networks: Networks = DEFAULT
) -> Algorithm:
    """TRPO with a step made of the gradients of reward and costs by any rule."""
    ac = recipes.actor_critic(spec, settings, networks, critics=constrained.critics(spec))

    def init(key: Key) -> LearnerState:
        window = episodes.empty_window(spec.cost_limit)
        return improvers.init_for_steps(ac, key).replace(aux=window)

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        window = episodes.remember(learner.aux, rollout.episodes, size=settings.episode_window)
        violation = each(operator.sub, window.cost, spec.cost_limit)
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        batch = constrained.to_batch(ac, transition, estimates, found, found.reward)

        with trust_region.full_precision():
            model = improvers.local_model(ac, learner, batch)
            cost_advantage = optimise.flatten(found.cost, spec.shards)
            gradient = model.gradient(batch.advantage)
            cost_gradient = each(model.gradient, cost_advantage)
            step, chosen = rule(
                Directions(
                    gradient,
                    cost_gradient,
                    model.solve(gradient),
                    each(model.solve, cost_gradient),
                    model.fisher,
                    violation,
                    model.target_kl,
                )
            )
            is_within = constraints.all_of(each(lambda own: own < 0.0, violation))
            bounds = improvers.Bounds(
                cost_advantage,
                least_gain=jnp.where(is_within, 0.0, -jnp.inf),
                most_cost=each(lambda own: jnp.maximum(-own, 0.0), violation),
            )
            learner, moved = improvers.take(ac, model, learner, step, bounds)
        learner, fitted = improvers.fit_critics(ac, learner, batch, key)
        return recipes.end_iteration(ac, learner.replace(aux=window), transition), {
            **moved,
            **fitted,
            **metrics,
            **chosen,
            "policy/gradient_norm": optax.tree.norm(gradient),
            **constraints.labelled(
                "policy/cost_gradient_norm", each(optax.tree.norm, cost_gradient)
            ),
            **constrained.report("cost_return", window.cost),
        }

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
