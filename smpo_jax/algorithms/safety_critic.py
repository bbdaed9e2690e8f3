"""The safety critic Q^c(s, a): expected SARSA on costs, kept small by a penalty (SMPO, eqs. 1-3).

    y_t = c_t + γ (1 − terminated_t) E_{a'~π(·|s_{t+1})} Q^c(s_{t+1}, a')
    loss = mean (Q^c(s_t, a_t) − y_t)² + ρ mean Q^c(s_t, a_t)²

s_{t+1} is the true successor, also at a time limit. Targets may look further than one step
(`trace`), in which case y is the λ-return with that expectation as its value.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.algorithms.recipes import Estimates
from smpo_jax.core import distributions, modulation, optimise, returns
from smpo_jax.networks import ACTIVATIONS, Network, nonnegative_action_value
from smpo_jax.types import DiagonalGaussian, Key, Metrics, Params, Scalar, Spec, Transition

Predict = Callable[[Float[Array, "*batch O"], Float[Array, "*batch A"]], Float[Array, "*batch"]]


class Settings(NamedTuple):
    """How a safety critic learns; units and defaults are those of SMPO's hyperparameters."""

    discount: float  # γ
    trace: float  # λ of the return
    regularisation: float  # ρ
    samples: int  # actions for the expectation; 0 takes the mean action
    rounds: int  # times that targets are computed per update
    epochs: int  # passes on each set of targets
    minibatches: int


class SafetyCritic(NamedTuple):
    """A network, its optimiser, and how it learns."""

    settings: Settings
    network: Network  # (obs, action) -> Q^c >= 0
    optimiser: optax.GradientTransformation

    def predict(self, params: Params) -> Predict:
        """Q^c with these parameters."""
        return lambda obs, action: self.network.apply(params, obs, action)


class Samples(NamedTuple):
    """What the critic's loss learns from."""

    obs: Float[Array, "B O"]  # normalised
    action: Float[Array, "B A"]
    target: Float[Array, " B"]


def make(
    spec: Spec,
    settings: Settings,
    *,
    hidden: tuple[int, ...],
    activation: str,
    max_gradient_norm: float,
) -> SafetyCritic:
    """A critic for a problem."""
    network = nonnegative_action_value(
        spec.observation_size,
        spec.action_size,
        hidden=hidden,
        activation=ACTIVATIONS[activation],
    )
    return SafetyCritic(settings, network, optimise.adam(max_gradient_norm))


def expectation(
    predict: Predict,
    obs: Float[Array, "*batch O"],
    dist: DiagonalGaussian,
    key: Key,
    *,
    samples: int,
) -> Float[Array, "*batch"]:
    """E_{a~dist} Q^c(s, a): the mean over `samples` draws, or Q^c at the mean action if 0.

    The latter is exact where Q^c is linear in the action, and has no variance.
    """
    if samples == 0:
        return predict(obs, dist.mean)
    draws = jax.vmap(lambda k: predict(obs, distributions.sample(dist, k)))
    return jnp.mean(draws(jax.random.split(key, samples)), axis=0)


def fit(
    critic: SafetyCritic,
    params: Params,
    opt_state: optax.OptState,
    transition: Transition,
    estimates: Estimates,
    next_dist: DiagonalGaussian,
    key: Key,
    *,
    learning_rate: Scalar,
) -> tuple[Params, optax.OptState, Metrics]:
    """Rounds of: compute the targets, make passes on them.

    `next_dist` is the policy to be evaluated, at the successors; it may be newer than the one that
    acted, which is what makes expected SARSA more than an average of what was seen.
    """
    settings = critic.settings

    def loss(params: Params, samples: Samples) -> tuple[Float[Array, ""], Metrics]:
        q = critic.network.apply(params["cost_value"], samples.obs, samples.action)
        error = jnp.mean((q - samples.target) ** 2)
        penalty = settings.regularisation * jnp.mean(q**2)
        return error + penalty, {"cost_value/loss": error}

    def step(carry, minibatch):
        params, opt_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, minibatch)
        metrics["cost_value/gradient_norm"] = optimise.norm(gradients)
        carry = optimise.descend(
            critic.optimiser, gradients, opt_state, params, learning_rate=learning_rate
        )
        return carry, metrics

    def one_round(carry, _):
        networks, opt_state, key = carry
        action_key, shuffle_key, key = jax.random.split(key, 3)
        predict = critic.predict(networks["cost_value"])
        next_value = expectation(
            predict, estimates.next_obs, next_dist, action_key, samples=settings.samples
        )
        target = returns.lambda_return(
            transition.cost,
            next_value,
            transition.terminated,
            transition.truncated,
            discount=settings.discount,
            lambda_=settings.trace,
        )
        samples = optimise.flatten(Samples(estimates.obs, transition.action, target))
        (networks, opt_state), metrics = optimise.minibatch_passes(
            step,
            (networks, opt_state),
            samples,
            shuffle_key,
            minibatches=settings.minibatches,
            passes=settings.epochs,
        )
        return (networks, opt_state, key), metrics

    start = ({"cost_value": params}, opt_state, key)
    (networks, opt_state, _), metrics = jax.lax.scan(one_round, start, length=settings.rounds)
    metrics = {name: x[-1] for name, x in metrics.items() if name != "passes"}
    return networks["cost_value"], opt_state, metrics


def advantage(
    critic: SafetyCritic,
    predict: Predict,
    transition: Transition,
    estimates: Estimates,
    next_dist: DiagonalGaussian,
) -> Float[Array, "T N"]:
    """How much more an action cost than the policy's mean action was predicted to.

    Generalised advantages of the costs that were measured, with V^c(s) = Q^c(s, mean action), from
    which what the penalty takes is given back. By the policy gradient theorem E[∇log π(a|s) A^c] is
    the whole gradient of the cost to come, where ∇_a Q^c has that of one action only.
    """
    settings = critic.settings
    grown = modulation.shrinkage(settings.discount, settings.trace, settings.regularisation)
    return returns.gae(
        transition.cost,
        grown * predict(estimates.obs, transition.dist.mean),
        grown * predict(estimates.next_obs, next_dist.mean),
        transition.terminated,
        transition.truncated,
        discount=settings.discount,
        lambda_=settings.trace,
    )[0]


def calibration(
    predicted: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    transition: Transition,
    *,
    discount: float,
) -> Metrics:
    """How predictions compare with the discounted cost that then followed in the rollout.

    What followed is the Monte-Carlo sum to the end of the window, and `next_value` from there on.
    `ratio` is that of the means (below 1: the critic predicts too little, as a penalised one must),
    0 where nothing cost anything; `correlation` is over all steps.
    """
    followed = returns.lambda_return(
        transition.cost,
        next_value,
        transition.terminated,
        transition.truncated,
        discount=discount,
        lambda_=1.0,
    )
    mean_p, mean_f = jnp.mean(predicted), jnp.mean(followed)
    covariance = jnp.mean((predicted - mean_p) * (followed - mean_f))
    spread = jnp.std(predicted) * jnp.std(followed)
    is_costly = mean_f > 1e-6
    return {
        "cost_value/mean": mean_p,
        "cost_value/ratio": jnp.where(is_costly, mean_p / jnp.where(is_costly, mean_f, 1.0), 0.0),
        "cost_value/correlation": covariance / jnp.maximum(spread, 1e-8),
    }
