"""Sauté RL (Sootla et al. 2022): the budget that is left is part of what the agent sees.

The share z of the episode's budget that is left becomes part of the state (eq. 4), and a step that
ends with nothing left earns a fixed low reward instead of its own (eq. 5), which turns a constraint
on every episode into an unconstrained problem that any method can solve:

    z₀ = s,  zₜ₊₁ = (zₜ − cₜ/B) / γ_s,    r̃ₜ = rₜ if zₜ₊₁ > 0, else `unsafe_reward`

with the whole budget B and its share s, 1 here and controlled in `simmer`. z is linear in s: the
environment accounts for the discounted cost spent and the growth γ_s^−t, from which a learner reads
its own z. So the environment knows neither the limit nor the share.

The method within is PPO (`ppo_saute`) or TRPO (`trpo_saute`); all of theirs is in `unconstrained`.
Return and cost of episodes are reported as the environment gives them. As in OmniSafe on the Goal
tasks, observations are not normalised.

Deviation: at most 10 passes over a rollout where OmniSafe makes 80 on the Goal tasks (and its PPO
40), for the reasons given in `unconstrained`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, unconstrained
from smpo_jax.augmentation import Account, Augmentation
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import (
    Algorithm,
    EpisodeStats,
    Key,
    LearnerState,
    Metrics,
    Policy,
    Rollout,
    Scalar,
    Spec,
)

ENTRIES = 2  # of the account, at the end of an observation: spent, growth
LEAST_SHARE = -5.0  # z as networks see it is never below; how far beyond does not matter


@dataclass(frozen=True, kw_only=True)
class Budget(base.Settings):
    """What Sauté adds to a method's settings; OmniSafe's numbers for the Goal tasks."""

    budget_discount: float = 0.9999  # γ_s; 1 or a little less
    unsafe_reward: float = -0.2  # of a step that ends with no budget left

    def __post_init__(self):
        base.require(self, ("above 0, to 1", lambda x: 0 < x <= 1), "budget_discount")
        base.require(self, base.FINITE, "unsafe_reward")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class PPOSaute(Budget, unconstrained.PPO):
    """PPO's and Sauté's."""

    epochs: int = 10  # passes over a rollout, at most
    normalise_observations: bool = False  # by running mean and standard deviation


@dataclass(frozen=True, kw_only=True)
class TRPOSaute(Budget, unconstrained.TRPO):
    """TRPO's and Sauté's."""

    normalise_observations: bool = False  # by running mean and standard deviation


class Controller(NamedTuple):
    """Which share of the budget an episode may spend.

    Attributes:
        init: the state before the first iteration; its field `share` is s.
        update: `(state, episodes that finished) -> state`.
    """

    init: Callable[[], Any]
    update: Callable[[Any, EpisodeStats], Any]


class Fixed(NamedTuple):
    """The state of a controller that has nothing to do."""

    share: Float[Array, ""]


class Aux(NamedTuple):
    """What is carried from one iteration to the next."""

    inner: Any  # of the method within
    controller: Any


WHOLE = Controller(init=lambda: Fixed(jnp.ones(())), update=lambda state, episodes: state)


def augmentation(settings: Budget, cost_limit: float) -> Augmentation:
    """The account (Σ c_i γ_s^(i−t), γ_s^−t), shown as it is."""
    del cost_limit

    def step(z: Account, cost: Float[Array, "*batch"]) -> Account:
        spent, growth = z[..., 0] + cost, z[..., 1]
        return jnp.stack([spent, growth], axis=-1) / settings.budget_discount

    return Augmentation(
        start=(0.0, 1.0),
        step=step,
        size=ENTRIES,
        observe=lambda z: z,
        is_over=lambda z: jnp.zeros(z.shape[:-1], bool),
    )


def whole_budget(cost_limit: Scalar, discount: Scalar, episode_length: int) -> Scalar:
    """B such that spending the limit evenly over an episode ends at z = 0.

    d (1 − γ_s^T) / ((1 − γ_s) T), which is d for γ_s = 1; never 0, so that it can be divided by.
    """
    gap = 1.0 - discount
    safe_gap = jnp.where(gap > 0.0, gap, 1.0) * episode_length
    share = -jnp.expm1(episode_length * jnp.log(discount)) / safe_gap
    return jnp.maximum(cost_limit * jnp.where(gap > 0.0, share, 1.0), 1e-6)


def see(obs: Float[Array, "*batch P"], share: Scalar, budget: Scalar) -> Float[Array, "*batch Q"]:
    """Observations with z in place of the account, `Q = P − 1`."""
    own, spent, growth = obs[..., :-ENTRIES], obs[..., -2], obs[..., -1]
    z = jnp.maximum(share * growth - spent / budget, LEAST_SHARE)
    return jnp.concatenate([own, z[..., None]], axis=-1)


def reshape(
    reward: Float[Array, "T N"], next_obs: Float[Array, "T N Q"], *, unsafe_reward: Scalar
) -> Float[Array, "T N"]:
    """Rewards as the agent is to feel them; `next_obs` with z at its end."""
    return jnp.where(next_obs[..., -1] > 0.0, reward, unsafe_reward)


def make(spec: Spec, settings: PPOSaute | TRPOSaute, networks: Networks = DEFAULT) -> Algorithm:
    """Sauté for a problem with an account of its costs, whose whole budget may be spent."""
    return controlled(spec, settings, WHOLE, networks)


def controlled(
    spec: Spec,
    settings: PPOSaute | TRPOSaute,
    controller: Controller,
    networks: Networks = DEFAULT,
) -> Algorithm:
    """A method that sees its budget, from one that needs not know of it.

    What its networks see is one entry shorter than the problem's observation: z in place of the
    two entries of the account.
    """
    seen = spec._replace(observation_size=spec.observation_size - ENTRIES + 1)
    inner = unconstrained.make(seen, settings, networks)
    budget = whole_budget(spec.cost_limit, settings.budget_discount, spec.episode_length)

    def init(key: Key) -> LearnerState:
        learner = inner.init(key)
        return learner.replace(aux=Aux(learner.aux, controller.init()))

    def policy(learner: LearnerState) -> Policy:
        act = inner.policy(learner.replace(aux=learner.aux.inner))
        share = learner.aux.controller.share
        return lambda obs, key: act(see(obs, share, budget), key)

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        state, transition = learner.aux.controller, rollout.transition
        next_obs = see(transition.next_obs, state.share, budget)
        transition = transition._replace(
            obs=see(transition.obs, state.share, budget),
            next_obs=next_obs,
            reward=reshape(transition.reward, next_obs, unsafe_reward=settings.unsafe_reward),
        )
        learner, metrics = inner.update(
            learner.replace(aux=learner.aux.inner), rollout._replace(transition=transition), key
        )
        aux = Aux(learner.aux, controller.update(state, rollout.episodes))
        return learner.replace(aux=aux), {
            **metrics,
            "budget/share": state.share,
            "budget/spent_share": jnp.mean(jnp.asarray(next_obs[..., -1] <= 0.0, next_obs.dtype)),
        }

    return Algorithm(init, policy, update)
