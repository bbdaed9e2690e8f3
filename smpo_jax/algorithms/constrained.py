"""What constrained methods have in common: the cost's critic, the measured cost, the multiplier.

Methods of either family use it: those that descend on minibatches and those that take one step
within a trust region.
"""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, recipes
from smpo_jax.core import constraints, episodes, returns, surrogate
from smpo_jax.core.constraints import each
from smpo_jax.core.multipliers import Dual
from smpo_jax.types import CostCritic, LearnerState, Metrics, PerCost, Rollout, Spec, Transition

COST_VALUE = "cost_value"  # the critic of a cost, V_c; of several, `cost_value/NAME`
CONSTRAINT = "constraint"  # what is reported of a constraint; of several, `constraint/NAME`


class Aux(NamedTuple):
    """What a method with a multiplier carries from one iteration to the next."""

    window: episodes.Window  # J_c, the measured episode cost
    dual: PerCost  # the multiplier's state


class Advantages(NamedTuple):
    """Of rewards and of costs along a rollout, and the critics' targets."""

    reward: Float[Array, "T N"]  # standardised
    cost: PerCost  # of Float[Array, "T N"], centred, in units of cost
    target: Float[Array, "T N"]  # of V
    cost_target: PerCost  # of Float[Array, "T N"], of V_c


def critics(spec: Spec) -> tuple[str, ...]:
    """The critics of a constrained method: of rewards, and of each cost."""
    return (*recipes.VALUE, *constraints.values(constraints.named(COST_VALUE, spec.cost_limit)))


def advantages(
    ac: recipes.ActorCritic,
    settings: base.Constrained,
    learner: LearnerState,
    transition: Transition,
    estimates: recipes.Estimates,
) -> tuple[Advantages, Metrics]:
    """Generalised advantages of rewards and costs under the critics of the time, and their fit.

    As in OmniSafe, rewards' are standardised and costs' only centred: a multiplier is then a price
    per unit of cost in standard deviations of the reward's advantage.
    """
    reward, target = recipes.advantages(ac, transition.reward, transition, estimates)
    metrics: Metrics = {}

    def of_cost(cost: Float[Array, "T N"], name: str) -> tuple[jax.Array, jax.Array]:
        params = learner.params[name]
        cost_value = ac.value.apply(params, estimates.obs)
        advantage, cost_target = returns.gae(
            cost,
            cost_value,
            ac.value.apply(params, estimates.next_obs),
            transition.terminated,
            transition.truncated,
            discount=settings.cost_discount,
            lambda_=settings.cost_gae_lambda,
        )
        metrics[f"{name}/mean"] = jnp.mean(cost_value)
        fit = recipes.explained_variance(cost_value, cost_target)
        metrics[f"{name}/explained_variance"] = fit
        return advantage, cost_target

    names = constraints.named(COST_VALUE, transition.cost)
    of_costs = each(of_cost, transition.cost, names)
    found = Advantages(
        reward=surrogate.standardise(reward),
        cost=each(lambda own: surrogate.centre(own[0]), of_costs),
        target=target,
        cost_target=each(operator.itemgetter(1), of_costs),
    )
    fit = recipes.explained_variance(estimates.value, target)
    return found, {"value/explained_variance": fit, **metrics}


def cost_critic(ac: recipes.ActorCritic, settings: base.Constrained) -> CostCritic:
    """V_c as a prediction of the costs to come."""
    names = constraints.named(COST_VALUE, ac.spec.cost_limit)

    def predict(learner, obs, action):
        del action
        seen = ac.normalise(learner, obs)
        return each(lambda name: ac.value.apply(learner.params[name], seen), names)

    return CostCritic(settings.cost_discount, predict)


def to_batch(
    ac: recipes.ActorCritic,
    transition: Transition,
    estimates: recipes.Estimates,
    found: Advantages,
    advantage: Float[Array, "T N"],
    extra: Any = (),
) -> recipes.Batch:
    """Samples with targets for all critics, and an advantage of the method's making."""
    targets = {"value": found.target, **constraints.labelled(COST_VALUE, found.cost_target)}
    return recipes.to_batch(ac, transition, estimates, advantage, targets, extra)


def start(dual: Dual, spec: Spec) -> Aux:
    """Nothing measured yet; a multiplier for each constraint."""
    limit = spec.cost_limit
    return Aux(episodes.empty_window(limit), each(lambda _: dual.init(), limit))


def update_multiplier(
    dual: Dual, settings: base.Constrained, aux: Aux, rollout: Rollout, limit: PerCost
) -> tuple[Aux, PerCost, Metrics]:
    """Takes in the cost of the episodes that finished, then moves each multiplier once.

    Nothing moves until the first episode has been measured.

    Returns:
        What to carry on, the multiplier λ of each constraint, metrics.
    """
    window = episodes.remember(aux.window, rollout.episodes, size=settings.episode_window)
    moved = each(dual.update, aux.dual, window.cost, limit)
    is_measured = window.count > 0
    state = jax.tree.map(lambda new, old: jnp.where(is_measured, new, old), moved, aux.dual)
    multiplier = each(lambda own: own.value, state)
    metrics = {**report("cost_return", window.cost), **report("multiplier", multiplier)}
    return Aux(window, state), multiplier, metrics


def report(what: str, quantity: PerCost) -> Metrics:
    """The quantity as `constraint/what`; of several, `constraint/NAME/what`."""
    names = constraints.named(CONSTRAINT, quantity)
    return {f"{name}/{what}": value for name, value in constraints.zipped(names, quantity)}
