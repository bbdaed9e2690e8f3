"""What first-order actor-critic methods have in common, as functions that their `update` calls.

A method reads top to bottom in its own file: `estimate`, an advantage of its own making, `fit` on
its loss, `advance`. Nothing here calls back into a method. What only constrained methods share is
in `constrained`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

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

VALUE = ("value",)  # the critics of methods that ignore costs
VALUES = ("value", "cost_value")  # and of those that don't: V of rewards, V_c of costs
ALL = "actor_critic"  # the entry of `opt_state` that is for policy and critics together


class ActorCritic(NamedTuple):
    """Policy and critics, and how they learn.

    A learner's `params` have the entry `policy` and one for each critic, its `opt_state` the entry
    `actor_critic`; a method adds its own beside them.
    """

    spec: Spec
    settings: base.ActorCritic
    policy: Network  # obs -> DiagonalGaussian
    value: Network  # obs -> V(s); all critics are such networks
    critics: tuple[str, ...]  # `value`, and `cost_value` where costs have a critic too
    optimiser: optax.GradientTransformation

    def init(self, key: Key) -> LearnerState:
        """The learner before its first update, of a method with nothing else to carry."""
        policy_key, value_key = jax.random.split(key)
        params = {"policy": self.policy.init(policy_key), "value": self.value.init(value_key)}
        for i, name in enumerate(self.critics[1:], start=1):
            params[name] = self.value.init(jax.random.fold_in(key, i))
        return LearnerState(
            params=params,
            opt_state={ALL: self.optimiser.init(params)},
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

    def with_optimiser(
        self, learner: LearnerState, entry: str, networks: Sequence[str]
    ) -> LearnerState:
        """The learner with one more optimiser, for `descend` on some networks only."""
        chosen = {name: learner.params[name] for name in networks}
        opt_state = {**learner.opt_state, entry: self.optimiser.init(chosen)}
        return learner.replace(opt_state=opt_state)


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
    targets: dict[str, Float[Array, " B"]]  # of each critic


Samples = TypeVar("Samples")  # a Batch, or a method's record with one inside; leaves [B, ...]
Loss = Callable[[Params, Samples], tuple[Float[Array, ""], Metrics]]
# What the policy is to minimise, from its output.
Objective = Callable[[DiagonalGaussian, Samples], tuple[Float[Array, ""], Metrics]]


def _itself(samples: Any) -> Batch:
    return samples


def actor_critic(
    spec: Spec, settings: base.ActorCritic, *, critics: tuple[str, ...] = VALUE
) -> ActorCritic:
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
        critics=critics,
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
    **targets: Float[Array, "T N"],
) -> Batch:
    """The steps of a rollout as independent samples; `targets` are those of the critics by name."""
    t = transition
    return optimise.flatten(Batch(estimates.obs, t.action, t.log_prob, t.dist, advantage, targets))


def clipped_objective(
    ac: ActorCritic,
    *,
    policy_term: Callable[[DiagonalGaussian, Samples], Float[Array, ""]] | None = None,
    batch_of: Callable[[Samples], Batch] = _itself,
) -> Objective:
    """PPO's clipped surrogate with entropy bonus.

    Args:
        ac: networks and coefficients.
        policy_term: what a method adds to the policy's loss, from the policy's output.
        batch_of: the `Batch` within a method's own record of samples.
    """
    settings = ac.settings
    assert isinstance(settings, base.FirstOrder)

    def objective(dist: DiagonalGaussian, samples: Samples) -> tuple[Float[Array, ""], Metrics]:
        batch = batch_of(samples)
        ratio = surrogate.ratio(distributions.log_prob(dist, batch.action), batch.log_prob)
        gain = jnp.mean(surrogate.clipped(ratio, batch.advantage, clip=settings.clip))
        entropy = jnp.mean(distributions.entropy(dist))
        loss = -gain - settings.entropy_coefficient * entropy
        if policy_term is not None:
            loss += policy_term(dist, samples)
        return loss, {
            "policy/surrogate": gain,
            "policy/entropy": entropy,
            "policy/clip_share": surrogate.clip_share(ratio, clip=settings.clip),
        }

    return objective


def actor_critic_loss(
    ac: ActorCritic,
    objective: Objective,
    *,
    batch_of: Callable[[Samples], Batch] = _itself,
) -> Loss:
    """The policy's objective and the critics' regressions, to be minimised.

    One function, so that one sweep over a minibatch gives all networks' gradients.
    """
    regress = critic_loss(ac, batch_of=batch_of)

    def loss(params: Params, samples: Samples) -> tuple[Float[Array, ""], Metrics]:
        dist = ac.policy.apply(params["policy"], batch_of(samples).obs)
        policy_loss, policy_metrics = objective(dist, samples)
        errors, metrics = regress(params, samples)
        return policy_loss + errors, {**policy_metrics, **metrics}

    return loss


def critic_loss(ac: ActorCritic, *, batch_of: Callable[[Samples], Batch] = _itself) -> Loss:
    """Squared errors of all critics, and the penalty on their parameters."""

    def loss(params: Params, samples: Samples) -> tuple[Float[Array, ""], Metrics]:
        batch = batch_of(samples)
        total, metrics = jnp.zeros(()), {}
        for name in ac.critics:
            error = jnp.mean((ac.value.apply(params[name], batch.obs) - batch.targets[name]) ** 2)
            squares = sum(jnp.sum(p**2) for p in jax.tree.leaves(params[name]))
            total += error + ac.settings.value_l2 * squares
            metrics[f"{name}/loss"] = error
        return total, metrics

    return loss


def descend(
    ac: ActorCritic,
    loss: Loss,
    learner: LearnerState,
    samples: Samples,
    key: Key,
    *,
    networks: Sequence[str],
    entry: str,
    check: Callable[[Params], tuple[Bool[Array, ""], Metrics]] = optimise.never,
) -> tuple[LearnerState, Metrics]:
    """Minibatch passes on the loss, for some networks with their own entry in `opt_state`.

    `check` looks at the networks after each pass and says whether to stop.
    """
    settings = ac.settings
    learning_rate = ac.decayed(settings.learning_rate, learner)

    def step(carry, minibatch):
        params, opt_state = carry
        gradients, metrics = jax.grad(loss, has_aux=True)(params, minibatch)
        for name in networks:
            metrics[f"{name}/gradient_norm"] = optimise.norm(gradients[name])
        carry = optimise.descend(
            ac.optimiser, gradients, opt_state, params, learning_rate=learning_rate
        )
        return carry, metrics

    (params, opt_state), metrics = optimise.minibatch_passes(
        step,
        ({name: learner.params[name] for name in networks}, learner.opt_state[entry]),
        samples,
        key,
        minibatches=settings.minibatches,
        passes=settings.epochs,
        check=lambda carry: check(carry[0]),
    )
    return learner.replace(
        params={**learner.params, **params}, opt_state={**learner.opt_state, entry: opt_state}
    ), metrics


def moved_too_far(
    ac: ActorCritic, batch: Batch
) -> Callable[[Params], tuple[Bool[Array, ""], Metrics]]:
    """A check that stops once the policy is more than `target_kl` from the batch's.

    The divergence is that of the whole batch, measured after each pass, so that it costs a
    fraction of one and says exactly what the update did.
    """

    def check(params: Params) -> tuple[Bool[Array, ""], Metrics]:
        kl = jnp.mean(distributions.kl(batch.dist, ac.policy.apply(params["policy"], batch.obs)))
        return kl > ac.settings.target_kl, {"policy/kl": kl}

    return check


def fit(
    ac: ActorCritic,
    loss: Loss,
    learner: LearnerState,
    samples: Samples,
    key: Key,
    *,
    batch_of: Callable[[Samples], Batch] = _itself,
) -> tuple[LearnerState, Metrics]:
    """Passes for policy and critics, `epochs` or until the policy has moved `target_kl`."""
    learner, metrics = descend(
        ac,
        loss,
        learner,
        samples,
        key,
        networks=("policy", *ac.critics),
        entry=ALL,
        check=moved_too_far(ac, batch_of(samples)),
    )
    metrics["policy/passes"] = metrics.pop("passes")
    metrics["policy/std"] = jnp.mean(jnp.exp(learner.params["policy"]["log_std"]))
    return learner, metrics


def fit_critics(
    ac: ActorCritic, learner: LearnerState, batch: Batch, key: Key, *, entry: str
) -> tuple[LearnerState, Metrics]:
    """All passes for the critics alone, of methods that find the policy's step some other way.

    `entry` is the critics' own in `opt_state`, see `ActorCritic.with_optimiser`.
    """
    learner, metrics = descend(
        ac, critic_loss(ac), learner, batch, key, networks=ac.critics, entry=entry
    )
    del metrics["passes"]
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
