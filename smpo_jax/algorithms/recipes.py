"""What actor-critic methods have in common, as functions that their `update` calls.

A method reads top to bottom in its own file: `estimate`, an advantage of its own making,
`to_batch`, an improver (see `improvers`), `end_iteration`. Nothing here calls back into a method.
What only constrained methods share is in `constrained`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from smpo_jax import networks as nets
from smpo_jax.algorithms import base
from smpo_jax.core import optimise, returns
from smpo_jax.networks import ACTIVATIONS, DEFAULT, Network, Networks, Normaliser
from smpo_jax.types import (
    Distribution,
    Key,
    LearnerState,
    Metrics,
    Params,
    Policy,
    Scalar,
    Spec,
    Transition,
)

VALUE = ("value",)  # the critics of methods that ignore costs; `constrained.critics`: of others

# No update moves the policy further than this times `target_kl`; a policy that is nearly
# deterministic went on to thousands of it. In default runs on PointGoal1 the furthest were 0.4 of
# it by PPO's passes (1e7 steps), 1.6 by RCPO's whole steps and 2.6 by CUP's projection (3e6).
FARTHEST = 5.0

SettingsT = TypeVar("SettingsT", bound=base.ActorCriticSettings, covariant=True)


@dataclass(frozen=True)
class ActorCritic(Generic[SettingsT]):
    """Policy and critics, and how they learn.

    A learner's `params` have the entry `policy` and one for each critic; a method adds its own
    beside them.
    """

    spec: Spec
    settings: SettingsT
    policy: Network  # obs -> Distribution
    value: Network  # obs -> V(s); all critics are such networks
    normaliser: Normaliser  # of observations, before all networks
    critics: tuple[str, ...]  # `value`, and `cost_value` (of each) where costs have critics too
    optimiser: optax.GradientTransformation

    def init(self, key: Key) -> LearnerState:
        """Networks before their first update, of a method with nothing else to carry.

        No optimiser yet: see `with_optimiser`.
        """
        keys = jax.random.split(key, 1 + len(self.critics))
        params = {"policy": self.policy.init(keys[0])}
        for i, name in enumerate(self.critics, start=1):
            params[name] = self.value.init(keys[i])
        return LearnerState(
            params=params,
            opt_state={},
            obs_moments=self.normaliser.init(self.spec.observation_size),
            aux=(),
            iteration=jnp.zeros((), jnp.int32),
        )

    def normalise(
        self, learner: LearnerState, obs: Float[Array, "*batch O"]
    ) -> Float[Array, "*batch O"]:
        """Observations as the networks see them."""
        return self.normaliser.apply(learner.obs_moments, obs)

    def acting(self, learner: LearnerState) -> Policy:
        """The policy of a learner state; it samples."""

        def act(obs, key):
            dist = self.policy.apply(learner.params["policy"], self.normalise(learner, obs))
            action = dist.sample(key)
            return action, dist.log_prob(action), dist

        return act

    def decayed(self, learning_rate: Scalar, learner: LearnerState) -> Scalar:
        """A learning rate as it is in this iteration."""
        if not self.settings.learning_rate_decay:
            return learning_rate
        return optimise.linear_decay(learning_rate, learner.iteration, self.spec.total_iterations)

    def project(self, params: Params) -> Params:
        """The same with the policy's, if it is among them, within its bounds."""
        if "policy" not in params:
            return params
        return {**params, "policy": self.policy.project(params["policy"])}

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
    """Samples that policy and critics learn from."""

    obs: Float[Array, "B O"]  # normalised
    action: Float[Array, "B A"]
    log_prob: Float[Array, " B"]  # of the behaviour policy
    dist: Distribution  # the behaviour policy, [B, A]
    advantage: Float[Array, " B"]
    targets: dict[str, Float[Array, " B"]]  # of each critic
    extra: Any = ()  # a pytree of the method's own, leaves [B, ...]


Loss = Callable[[Params, Any], tuple[Float[Array, ""], Metrics]]  # of parameters and samples
# From the networks before and after a pass: those to go on from, whether to stop, metrics.
Check = Callable[[Params, Params], tuple[Params, Bool[Array, ""], Metrics]]


def actor_critic(
    spec: Spec,
    settings: SettingsT,
    networks: Networks = DEFAULT,
    *,
    critics: tuple[str, ...] = VALUE,
) -> ActorCritic[SettingsT]:
    """Networks and optimiser of the sizes that problem and settings ask for.

    Args:
        spec: the problem.
        settings: of networks and learning.
        networks: those that take the place of what the settings say.
        critics: the entries of `params` that are critics.

    Raises:
        ValueError: a rollout cannot be cut in `minibatches` equal parts; observations are pictures
            and a network is not given; or actions are discrete and are to be squashed.
    """
    base.require_divisible(spec, settings.minibatches)
    networks = on_pictures(spec, networks, "policy", "value")
    activation = ACTIVATIONS[settings.activation]
    normaliser = nets.UNCHANGED
    if settings.normalise_observations:
        normaliser = nets.running_normaliser(settings.observation_clip)
    return ActorCritic(
        spec=spec,
        settings=settings,
        policy=networks.policy or policy_network(spec, settings),
        value=networks.value
        or nets.state_value(spec.observation_size, hidden=settings.hidden, activation=activation),
        normaliser=networks.normaliser or normaliser,
        critics=critics,
        optimiser=optimise.adam(settings.max_gradient_norm),
    )


def policy_network(spec: Spec, settings: base.ActorCriticSettings) -> Network:
    """The policy network for the problem's actions.

    Raises:
        ValueError: they are discrete and the settings want them squashed.
    """
    sizes = (spec.observation_size, spec.action_size)
    layers: Any = {"hidden": settings.hidden, "activation": ACTIVATIONS[settings.activation]}
    if not spec.discrete:
        kind = nets.GAUSSIANS[settings.policy]
        log_std = settings.initial_log_std
        return nets.gaussian_policy(*sizes, **layers, initial_log_std=log_std, kind=kind)
    if settings.policy != base.ActorCriticSettings.policy:
        raise ValueError(
            f"policy={settings.policy!r} is for continuous actions, and these are discrete: leave "
            "it out"
        )
    return nets.categorical_policy(*sizes, **layers)


def on_pictures(spec: Spec, networks: Networks, *needed: str) -> Networks:
    """The networks as they take observations that are vectors; themselves where these are no more.

    Raises:
        ValueError: observations are pictures, and one of the needed networks is not given.
    """
    if not spec.observation_shape:
        return networks
    missing = [name for name in needed if getattr(networks, name) is None]
    if missing:
        raise ValueError(
            f"observations are pictures, {list(spec.observation_shape)}, and the built-in network "
            f"for {missing[0]} takes vectors only: give one of your own, as in sx.make(..., "
            f"networks=sx.Networks({missing[0]}=sx.Network(init, apply))), or as "
            "`networks: MODULE:FUNCTION` of a run"
        )

    def seeing(network: Network | None) -> Network | None:
        return None if network is None else nets.seeing(network, spec.observation_shape)

    return networks._replace(
        policy=seeing(networks.policy),
        value=seeing(networks.value),
        action_value=seeing(networks.action_value),
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
    ac: ActorCritic,
    transition: Transition,
    estimates: Estimates,
    advantage: Float[Array, "T N"],
    targets: dict[str, Float[Array, "T N"]],
    extra: Any = (),
) -> Batch:
    """The steps of a rollout as independent samples; `targets` are those of the critics by name."""
    t = transition
    return optimise.flatten(
        Batch(estimates.obs, t.action, t.log_prob, t.dist, advantage, targets, extra),
        ac.spec.shards,
    )


def critic_loss(ac: ActorCritic) -> Loss:
    """Squared errors of all critics, and the penalty on their parameters."""

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
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
    batch: Batch,
    key: Key,
    *,
    networks: Sequence[str],
    entry: str,
    check: Check = optimise.never,
) -> tuple[LearnerState, Metrics]:
    """Minibatch passes on the loss, for some networks with their own entry in `opt_state`.

    `check` sees the networks before and after each pass (see `optimise.minibatch_passes`).
    """
    settings = ac.settings
    learning_rate = ac.decayed(settings.learning_rate, learner)

    def step(carry, minibatch):
        params, opt_state = carry
        gradients, metrics = optimise.mean_over_shards(
            partial(jax.grad(loss, has_aux=True), params), minibatch, ac.spec.shards
        )
        for name in networks:
            metrics[f"{name}/gradient_norm"] = optax.tree.norm(gradients[name])
        params, opt_state = optimise.descend(
            ac.optimiser, gradients, opt_state, params, learning_rate=learning_rate
        )
        return (ac.project(params), opt_state), metrics

    def check_networks(before, after):
        params, stop, metrics = check(before[0], after[0])
        return (params, after[1]), stop, metrics

    (params, opt_state), metrics = optimise.minibatch_passes(
        step,
        ({name: learner.params[name] for name in networks}, learner.opt_state[entry]),
        batch,
        key,
        minibatches=settings.minibatches,
        passes=settings.epochs,
        shards=ac.spec.shards,
        check=check_networks,
    )
    return learner.replace(
        params={**learner.params, **params}, opt_state={**learner.opt_state, entry: opt_state}
    ), metrics


def within_reach(ac: ActorCritic, batch: Batch) -> Check:
    """A check that stops once the policy is more than `target_kl` from the batch's.

    The divergence is that of the whole batch, measured after each pass, so that it costs a
    fraction of one and says exactly what the update did. A pass that ends beyond `FARTHEST` times
    `target_kl` is taken back, as far as need be (the policy's part of it, not the critics'): near
    determinism, where a step of the learning rate's size is many standard deviations, the policy
    then goes as far as it may in the direction of the pass.
    """
    target_kl = ac.settings.target_kl

    def divergence(policy: Params) -> Float[Array, ""]:
        return jnp.mean(batch.dist.kl(ac.policy.apply(policy, batch.obs)))

    def check(before: Params, after: Params) -> tuple[Params, Bool[Array, ""], Metrics]:
        policy, kl = optimise.retreat(
            before["policy"], after["policy"], divergence, bound=FARTHEST * target_kl
        )
        std = ac.policy.apply(policy, batch.obs).std()
        metrics = {"policy/kl": kl, "policy/std": jnp.mean(std)}
        return {**after, "policy": policy}, kl > target_kl, metrics

    return check


def explained_variance(
    prediction: Float[Array, "*batch"], target: Float[Array, "*batch"]
) -> Float[Array, ""]:
    """1 − Var(target − prediction) / Var(target): 1 is perfect, 0 no better than a constant."""
    return 1.0 - jnp.var(target - prediction) / jnp.maximum(jnp.var(target), 1e-8)


def end_iteration(ac: ActorCritic, learner: LearnerState, transition: Transition) -> LearnerState:
    """Counts the iteration, and lets the normaliser see the rollout's observations.

    Only now, so that the policy that is improved is the one that acted.
    """
    # So that devices keep theirs also where the normaliser flattens the leading axes.
    obs = optimise.by_shard(transition.obs, ac.spec.shards)
    return learner.replace(
        obs_moments=ac.normaliser.update(learner.obs_moments, obs),
        iteration=learner.iteration + 1,
    )
