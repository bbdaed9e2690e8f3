"""What constrained methods have in common: the cost's critic, the measured cost, the multiplier.

Methods of either family use it: those that descend on minibatches and those that take one step
within a trust region.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, recipes
from smpo_jax.core import episodes, returns, surrogate
from smpo_jax.core.multipliers import Dual
from smpo_jax.types import CostCritic, LearnerState, Metrics, Rollout, Scalar, Transition


class Aux(NamedTuple):
    """What a method with a multiplier carries from one iteration to the next."""

    window: episodes.Window  # J_c, the measured episode cost
    dual: Any  # the multiplier's state


class Advantages(NamedTuple):
    """Of rewards and of costs along a rollout, and the critics' targets."""

    reward: Float[Array, "T N"]  # standardised
    cost: Float[Array, "T N"]  # centred, in units of cost
    target: Float[Array, "T N"]  # of V
    cost_target: Float[Array, "T N"]  # of V_c


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
    params = learner.params["cost_value"]
    cost_value = ac.value.apply(params, estimates.obs)
    cost, cost_target = returns.gae(
        transition.cost,
        cost_value,
        ac.value.apply(params, estimates.next_obs),
        transition.terminated,
        transition.truncated,
        discount=settings.cost_discount,
        lambda_=settings.cost_gae_lambda,
    )
    found = Advantages(surrogate.standardise(reward), surrogate.centre(cost), target, cost_target)
    return found, {
        "value/explained_variance": recipes.explained_variance(estimates.value, target),
        "cost_value/mean": jnp.mean(cost_value),
        "cost_value/explained_variance": recipes.explained_variance(cost_value, cost_target),
    }


def cost_critic(ac: recipes.ActorCritic, settings: base.Constrained) -> CostCritic:
    """V_c as a prediction of the costs to come."""

    def predict(learner, obs, action):
        del action
        return ac.value.apply(learner.params["cost_value"], ac.normalise(learner, obs))

    return CostCritic(settings.cost_discount, predict)


def to_batch(
    transition: Transition,
    estimates: recipes.Estimates,
    found: Advantages,
    advantage: Float[Array, "T N"],
    extra: Any = (),
) -> recipes.Batch:
    """Samples with targets for both critics, and an advantage of the method's making."""
    targets = {"value": found.target, "cost_value": found.cost_target}
    return recipes.to_batch(transition, estimates, advantage, targets, extra)


def start(dual: Dual) -> Aux:
    """Nothing measured yet."""
    return Aux(episodes.empty_window(), dual.init())


def update_multiplier(
    dual: Dual, settings: base.Constrained, aux: Aux, rollout: Rollout, limit: Scalar
) -> tuple[Aux, Float[Array, ""], Metrics]:
    """Takes in the cost of the episodes that finished, then moves the multiplier once.

    Nothing moves until the first episode has been measured.

    Returns:
        What to carry on, the multiplier λ, metrics.
    """
    window = episodes.remember(aux.window, rollout.episodes, size=settings.episode_window)
    moved = dual.update(aux.dual, window.cost, limit)
    is_measured = window.count > 0
    state = jax.tree.map(lambda new, old: jnp.where(is_measured, new, old), moved, aux.dual)
    metrics = {"constraint/cost_return": window.cost, "constraint/multiplier": state.value}
    return Aux(window, state), state.value, metrics
