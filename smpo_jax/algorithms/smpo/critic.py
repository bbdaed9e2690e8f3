"""The safety critic Q^c(s, a): expected SARSA on costs, kept small by a penalty (SMPO, eqs. 1-3).

    Q^c(s, a) = E[ Σ_k γ^k c_{t+k} | s_t = s, a_t = a ]                                         (1)
    y_t = c_t + γ (1 − terminated_t) E_{a'~π(·|s_{t+1})} Q^c(s_{t+1}, a')                       (2)
    loss = mean (Q^c(s_t, a_t) − y_t)² + λ mean Q^c(s_t, a_t)²                                  (3)

s_{t+1} is the true successor, also at a time limit. Targets may look further than one step
(`trace`), in which case y is the λ-return with that expectation as its value. Of several
constraints each has a critic of its own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.algorithms.constrained import COST_VALUE
from smpo_jax.algorithms.recipes import ActorCritic, Estimates
from smpo_jax.core import constraints, optimise, returns
from smpo_jax.core.constraints import each
from smpo_jax.networks import Network
from smpo_jax.types import (
    CostCritic,
    Distribution,
    Key,
    LearnerState,
    Metrics,
    Params,
    PerCost,
    Scalar,
    Transition,
)

Steps = Float[Array, "T N"]
Predict = Callable[[Float[Array, "*batch O"], Float[Array, "*batch A"]], Float[Array, "*batch"]]
# `(Q, obs, dist) -> [*batch]`: what Q is for the policy in a state, without drawing.
Average = Callable[[Predict, Float[Array, "*batch O"], Any], Float[Array, "*batch"]]


def at_mode(
    predict: Predict, obs: Float[Array, "*batch O"], dist: Distribution
) -> Float[Array, "*batch"]:
    """Q at the action without noise: the mean where Q is linear and the mode is the mean."""
    return predict(obs, dist.mode())


def over_choices(
    predict: Predict, obs: Float[Array, "*batch O"], dist: Distribution
) -> Float[Array, "*batch"]:
    """Σ_a π(a|s) Q(s, a) over discrete actions, as eqs. 2 and 11 have it; exact."""
    like = dist.mode()

    def of_choice(choice: Float[Array, " A"]) -> Float[Array, "*batch"]:
        action = jnp.broadcast_to(choice, like.shape)
        return jnp.exp(dist.log_prob(action)) * predict(obs, action)

    choices = jnp.eye(like.shape[-1], dtype=like.dtype)
    return jnp.sum(jax.vmap(of_choice)(choices), axis=0)


class Learning(NamedTuple):
    """How a safety critic learns."""

    discount: Scalar  # γ
    trace: Scalar  # λ of the return; 0 is one-step expected SARSA
    regularisation: Scalar  # λ of eq. 3
    samples: int  # actions for the expectation; 0 takes `average`
    rounds: int  # times that targets are computed per update
    epochs: int  # passes on each set of targets
    minibatches: int
    learning_rate: Scalar  # Adam's; decays as the policy's does
    average: Average = at_mode


class Regression(NamedTuple):
    """What the critic's loss learns from."""

    obs: Float[Array, "B O"]  # normalised
    action: Float[Array, "B A"]
    target: Float[Array, " B"]


class SafetyCritic(NamedTuple):
    """A network, its optimiser, and how it learns about the policy of an actor-critic."""

    ac: ActorCritic
    learning: Learning
    network: Network  # (obs, action) -> Q^c >= 0
    optimiser: optax.GradientTransformation
    entry: str = (
        COST_VALUE  # of the learner's params and opt_state, and what it is called in metrics
    )

    def init(self, learner: LearnerState, key: Key) -> LearnerState:
        """The learner with a fresh safety critic."""
        params = self.network.init(key)
        return learner.replace(
            params={**learner.params, self.entry: params},
            opt_state={**learner.opt_state, self.entry: self.optimiser.init({self.entry: params})},
        )

    def predict(self, learner: LearnerState) -> Predict:
        """Q^c of a learner, from normalised observations."""
        params = learner.params[self.entry]
        return lambda obs, action: self.network.apply(params, obs, action)


def cost_critic(critics: PerCost) -> CostCritic:
    """Q^c as a prediction of the costs to come, what the penalty takes from it given back."""

    def predict(learner, obs, action):
        def of_cost(critic: SafetyCritic) -> Float[Array, "*batch"]:
            q = critic.predict(learner)(critic.ac.normalise(learner, obs), action)
            return q * shrinkage(critic.learning)

        return each(of_cost, critics)

    return CostCritic(constraints.values(critics)[0].learning.discount, predict)


class Seen(NamedTuple):
    """A rollout as the safety critic of its time sees it."""

    value: Steps  # Q^c(s_t, a_t)
    next_value: Steps  # Q^c(s_{t+1}, ·), averaged
    advantage: Steps  # how much more the action cost than the policy was predicted to


def see(
    critic: SafetyCritic, learner: LearnerState, transition: Transition, estimates: Estimates
) -> Seen:
    """What Q^c says of a rollout, under the policy that acted."""
    predict = critic.predict(learner)
    next_dist = critic.ac.policy.apply(learner.params["policy"], estimates.next_obs)
    next_value = critic.learning.average(predict, estimates.next_obs, next_dist)
    return Seen(
        value=predict(estimates.obs, transition.action),
        next_value=next_value,
        advantage=advantage(critic.learning, predict, transition, estimates, next_value),
    )


def expectation(
    predict: Predict,
    obs: Float[Array, "*batch O"],
    dist: Distribution,
    key: Key,
    *,
    samples: int,
    average: Average = at_mode,
) -> Float[Array, "*batch"]:
    """E_{a~dist} Q^c(s, a): the mean over `samples` draws, or `average`, without variance, if 0."""
    if samples == 0:
        return average(predict, obs, dist)
    draws = jax.vmap(lambda k: predict(obs, dist.sample(k)))
    return jnp.mean(draws(jax.random.split(key, samples)), axis=0)


def targets(learning: Learning, transition: Transition, next_value: Steps) -> Steps:
    """Y of eq. 2, `next_value` being E_{a'} Q^c(s_{t+1}, a'); no gradient flows through it."""
    return returns.lambda_return(
        transition.cost,
        next_value,
        transition.terminated,
        transition.truncated,
        discount=learning.discount,
        lambda_=learning.trace,
    )


def loss(
    critic: SafetyCritic, params: Params, samples: Regression
) -> tuple[Float[Array, ""], Metrics]:
    """Eq. 3 on samples with their targets; `params` are those of Q^c."""
    q = critic.network.apply(params, samples.obs, samples.action)
    error = jnp.mean((q - samples.target) ** 2)
    penalty = critic.learning.regularisation * jnp.mean(q**2)
    return error + penalty, {f"{critic.entry}/loss": error}


def fit(
    critic: SafetyCritic,
    learner: LearnerState,
    transition: Transition,
    estimates: Estimates,
    key: Key,
) -> tuple[LearnerState, Metrics]:
    """Rounds of: compute the targets, make passes on them.

    The policy that is evaluated is the learner's, which may be newer than the one that acted: that
    is what makes expected SARSA more than an average of what was seen.
    """
    ac, learning, entry = critic.ac, critic.learning, critic.entry
    next_dist = ac.policy.apply(learner.params["policy"], estimates.next_obs)
    learning_rate = ac.decayed(learning.learning_rate, learner)

    gradients_of = jax.grad(lambda params, some: loss(critic, params[entry], some), has_aux=True)

    def step(carry, minibatch):
        params, opt_state = carry
        gradients, metrics = optimise.mean_over_shards(
            partial(gradients_of, params), minibatch, ac.spec.shards
        )
        metrics[f"{entry}/gradient_norm"] = optax.tree.norm(gradients)
        carry = optimise.descend(
            critic.optimiser, gradients, opt_state, params, learning_rate=learning_rate
        )
        return carry, metrics

    def one_round(carry, _):
        params, opt_state, key = carry
        action_key, shuffle_key, key = jax.random.split(key, 3)

        def predict(obs, action):
            return critic.network.apply(params[entry], obs, action)

        next_value = expectation(
            predict,
            estimates.next_obs,
            next_dist,
            action_key,
            samples=learning.samples,
            average=learning.average,
        )
        target = targets(learning, transition, next_value)
        (params, opt_state), metrics = optimise.minibatch_passes(
            step,
            (params, opt_state),
            optimise.flatten(Regression(estimates.obs, transition.action, target), ac.spec.shards),
            shuffle_key,
            minibatches=learning.minibatches,
            passes=learning.epochs,
            shards=ac.spec.shards,
        )
        return (params, opt_state, key), metrics

    start = ({entry: learner.params[entry]}, learner.opt_state[entry], key)
    (params, opt_state, _), metrics = jax.lax.scan(one_round, start, length=learning.rounds)
    metrics = {name: x[-1] for name, x in metrics.items() if name != "passes"}
    return learner.replace(
        params={**learner.params, **params}, opt_state={**learner.opt_state, entry: opt_state}
    ), metrics


def advantage(
    learning: Learning,
    predict: Predict,
    transition: Transition,
    estimates: Estimates,
    next_value: Steps,
) -> Steps:
    """How much more an action cost than the policy was predicted to.

    Generalised advantages of the costs that were measured, with Q^c(s, ·) averaged for V^c(s), from
    which what the penalty takes is given back. `next_value` is that of s_{t+1}.
    """
    grown = shrinkage(learning)
    return returns.gae(
        transition.cost,
        grown * learning.average(predict, estimates.obs, transition.dist),
        grown * next_value,
        transition.terminated,
        transition.truncated,
        discount=learning.discount,
        lambda_=learning.trace,
    )[0]


def cost_per_step(learning: Learning) -> Scalar:
    """κ such that κ Q^c is the cost per step, for a steady cost.

    With the target's discount γ and trace λ and the penalty ρ mean(Q²), a constant cost c has the
    fixed point (1 + ρ) Q = (c + γ (1 − λ) Q) / (1 − γλ), that is Q = c / κ with

        κ = 1 − γ + ρ (1 − γλ).

    Without the penalty this is the familiar 1 − γ; one-step targets (λ = 0) with γ = 0.99 and
    ρ = 0.1 shrink Q^c eleven times over, to a horizon of 9 steps.
    """
    return (
        1.0
        - learning.discount
        + learning.regularisation * (1.0 - learning.discount * learning.trace)
    )


def shrinkage(learning: Learning) -> Scalar:
    """How many times smaller the penalty makes Q^c, for a steady cost: κ / (1 − γ), see above.

    Q^c times this is the discounted cost-to-go; 1 without the penalty, also for γ = 1.
    """
    kept = jnp.maximum(1.0 - learning.discount, 1e-9)
    return 1.0 + learning.regularisation * (1.0 - learning.discount * learning.trace) / kept


def calibration(critic: SafetyCritic, seen: Seen, transition: Transition) -> Metrics:
    """How predictions compare with the discounted cost that then followed in the rollout.

    What followed is the Monte-Carlo sum to the end of the window, and `next_value` from there on.
    `ratio` is that of the means (below 1: the critic predicts too little, as a penalised one must),
    0 where nothing cost anything; `correlation` is over all steps.
    """
    followed = targets(critic.learning._replace(trace=1.0), transition, seen.next_value)
    mean_p, mean_f = jnp.mean(seen.value), jnp.mean(followed)
    covariance = jnp.mean((seen.value - mean_p) * (followed - mean_f))
    spread = jnp.std(seen.value) * jnp.std(followed)
    is_costly, name = mean_f > 1e-6, critic.entry
    return {
        f"{name}/mean": mean_p,
        f"{name}/ratio": jnp.where(is_costly, mean_p / jnp.where(is_costly, mean_f, 1.0), 0.0),
        f"{name}/correlation": covariance / jnp.maximum(spread, 1e-8),
    }
