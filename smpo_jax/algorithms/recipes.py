"""What first-order actor-critic methods have in common, as functions that their `update` calls.

A method reads top to bottom in its own file: `estimate`, an advantage of its own making, `fit` on
its loss, `advance`. Nothing here calls back into a method.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.algorithms import base
from smpo_jax.core import distributions, moments, optimise, returns, surrogate
from smpo_jax.networks import ACTIVATIONS, Network, gaussian_policy, state_value
from smpo_jax.types import (
    DiagonalGaussian,
    Key,
    LearnerState,
    Metrics,
    Params,
    Policy,
    Scalar,
    Spec,
    Transition,
)


class ActorCritic(NamedTuple):
    """Policy and value, and how they learn.

    A learner's `params` have the entries `policy` and `value`, its `opt_state` `actor_critic`; a
    method adds its own beside them.
    """

    spec: Spec
    settings: base.FirstOrder
    policy: Network  # obs -> DiagonalGaussian
    value: Network  # obs -> V(s)
    optimiser: optax.GradientTransformation

    def init(self, key: Key) -> LearnerState:
        """The learner before its first update, of a method with nothing else to carry."""
        policy_key, value_key = jax.random.split(key)
        params = {"policy": self.policy.init(policy_key), "value": self.value.init(value_key)}
        return LearnerState(
            params=params,
            opt_state={"actor_critic": self.optimiser.init(params)},
            obs_moments=moments.start(self.spec.observation_size),
            aux=(),
            iteration=jnp.zeros((), jnp.int32),
        )

    def normalise(
        self, learner: LearnerState, obs: Float[Array, "*batch O"]
    ) -> Float[Array, "*batch O"]:
        """Observations as the networks see them."""
        if not self.settings.normalise_observations:
            return obs
        return moments.normalise(learner.obs_moments, obs, clip=self.settings.observation_clip)

    def acting(self, learner: LearnerState) -> Policy:
        """The policy of a learner state; it samples."""

        def act(obs, key):
            dist = self.policy.apply(learner.params["policy"], self.normalise(learner, obs))
            action = distributions.sample(dist, key)
            return action, distributions.log_prob(dist, action), dist

        return act

    def decayed(self, learning_rate: Scalar, learner: LearnerState) -> Scalar:
        """A learning rate as it is in this iteration."""
        if not self.settings.learning_rate_decay:
            return learning_rate
        return optimise.linear_decay(learning_rate, learner.iteration, self.spec.total_iterations)


class Estimates(NamedTuple):
    """A rollout as the critic of its time sees it."""

    obs: Float[Array, "T N O"]  # normalised, as the policy saw them
    next_obs: Float[Array, "T N O"]
    value: Float[Array, "T N"]
    next_value: Float[Array, "T N"]


class Batch(NamedTuple):
    """Samples for the actor-critic loss."""

    obs: Float[Array, "B O"]  # normalised
    action: Float[Array, "B A"]
    log_prob: Float[Array, " B"]  # of the behaviour policy
    dist: DiagonalGaussian  # the behaviour policy, [B, A]
    advantage: Float[Array, " B"]
    target: Float[Array, " B"]  # of V


Samples = TypeVar("Samples")  # a Batch, or a method's record with one inside; leaves [B, ...]
Loss = Callable[[Params, Samples], tuple[Float[Array, ""], Metrics]]


def _itself(samples: Any) -> Batch:
    return samples


def actor_critic(spec: Spec, settings: base.FirstOrder) -> ActorCritic:
    """Networks and optimiser of the sizes that problem and settings ask for."""
    base.require_divisible(spec, settings.minibatches)
    activation = ACTIVATIONS[settings.activation]
    return ActorCritic(
        spec=spec,
        settings=settings,
        policy=gaussian_policy(
            spec.observation_size,
            spec.action_size,
            hidden=settings.hidden,
            activation=activation,
            initial_log_std=settings.initial_log_std,
        ),
        value=state_value(spec.observation_size, hidden=settings.hidden, activation=activation),
        optimiser=optimise.adam(settings.max_gradient_norm),
    )


def estimate(ac: ActorCritic, learner: LearnerState, transition: Transition) -> Estimates:
    """Values of a rollout under the critic it was collected with."""
    obs = ac.normalise(learner, transition.obs)
    next_obs = ac.normalise(learner, transition.next_obs)
    params = learner.params["value"]
    return Estimates(obs, next_obs, ac.value.apply(params, obs), ac.value.apply(params, next_obs))


def advantages(
    ac: ActorCritic, reward: Float[Array, "T N"], transition: Transition, estimates: Estimates
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """(advantage, value target) of a stream of rewards along the rollout."""
    return returns.gae(
        reward,
        estimates.value,
        estimates.next_value,
        transition.terminated,
        transition.truncated,
        discount=ac.settings.discount,
        lambda_=ac.settings.gae_lambda,
    )


def to_batch(
    transition: Transition,
    estimates: Estimates,
    advantage: Float[Array, "T N"],
    target: Float[Array, "T N"],
) -> Batch:
    """The steps of a rollout as independent samples."""
    t = transition
    return optimise.flatten(Batch(estimates.obs, t.action, t.log_prob, t.dist, advantage, target))


def clipped_loss(
    ac: ActorCritic,
    *,
    policy_term: Callable[[DiagonalGaussian, Samples], Float[Array, ""]] | None = None,
    batch_of: Callable[[Samples], Batch] = _itself,
) -> Loss:
    """PPO's clipped surrogate with entropy bonus, and the value regression, to be minimised.

    One function, so that one sweep over a minibatch gives both networks' gradients.

    Args:
        ac: networks and coefficients.
        policy_term: what a method adds to the policy's loss, from the policy's output.
        batch_of: the `Batch` within a method's own record of samples.
    """
    settings = ac.settings

    def loss(params: Params, samples: Samples) -> tuple[Float[Array, ""], Metrics]:
        batch = batch_of(samples)
        dist = ac.policy.apply(params["policy"], batch.obs)
        ratio = surrogate.ratio(distributions.log_prob(dist, batch.action), batch.log_prob)
        gain = jnp.mean(surrogate.clipped(ratio, batch.advantage, clip=settings.clip))
        entropy = jnp.mean(distributions.entropy(dist))
        policy_loss = -gain - settings.entropy_coefficient * entropy
        if policy_term is not None:
            policy_loss += policy_term(dist, samples)
        value_loss = jnp.mean((ac.value.apply(params["value"], batch.obs) - batch.target) ** 2)
        squares = sum(jnp.sum(p**2) for p in jax.tree.leaves(params["value"]))
        return policy_loss + value_loss + settings.value_l2 * squares, {
            "policy/surrogate": gain,
            "policy/entropy": entropy,
            "policy/clip_share": surrogate.clip_share(ratio, clip=settings.clip),
            "value/loss": value_loss,
        }

    return loss


def fit(
    ac: ActorCritic,
    loss: Loss,
    learner: LearnerState,
    samples: Samples,
    key: Key,
    *,
    batch_of: Callable[[Samples], Batch] = _itself,
) -> tuple[LearnerState, Metrics]:
    """Minibatch passes on the loss until the policy has moved `target_kl`, or `epochs` are done.

    The divergence is that of the whole batch, measured after each pass, so that it costs a
    fraction of one and says exactly what the update did.
    """
    settings, batch = ac.settings, batch_of(samples)
    learning_rate = ac.decayed(settings.learning_rate, learner)

    def step(carry, minibatch):
        params, opt_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, minibatch)
        metrics["policy/gradient_norm"] = optimise.norm(gradients["policy"])
        metrics["value/gradient_norm"] = optimise.norm(gradients["value"])
        carry = optimise.descend(
            ac.optimiser, gradients, opt_state, params, learning_rate=learning_rate
        )
        return carry, metrics

    def check(carry):
        params, _ = carry
        dist = ac.policy.apply(params["policy"], batch.obs)
        kl = jnp.mean(distributions.kl(batch.dist, dist))
        return kl > settings.target_kl, {"policy/kl": kl}

    networks = {name: learner.params[name] for name in ("policy", "value")}
    (networks, opt_state), metrics = optimise.minibatch_passes(
        step,
        (networks, learner.opt_state["actor_critic"]),
        samples,
        key,
        minibatches=settings.minibatches,
        passes=settings.epochs,
        check=check,
    )
    metrics["policy/passes"] = metrics.pop("passes")
    metrics["policy/std"] = jnp.mean(jnp.exp(networks["policy"]["log_std"]))
    learner = learner.replace(
        params={**learner.params, **networks},
        opt_state={**learner.opt_state, "actor_critic": opt_state},
    )
    return learner, metrics


def explained_variance(
    prediction: Float[Array, "*batch"], target: Float[Array, "*batch"]
) -> Float[Array, ""]:
    """1 − Var(target − prediction) / Var(target): 1 is perfect, 0 no better than a constant."""
    return 1.0 - jnp.var(target - prediction) / jnp.maximum(jnp.var(target), 1e-8)


def advance(ac: ActorCritic, learner: LearnerState, transition: Transition) -> LearnerState:
    """Ends an iteration: counts it, and lets the normaliser see the rollout's observations.

    Only now, so that the policy that is improved is the one that acted.
    """
    if ac.settings.normalise_observations:
        learner = learner.replace(obs_moments=moments.update(learner.obs_moments, transition.obs))
    return learner.replace(iteration=learner.iteration + 1)
