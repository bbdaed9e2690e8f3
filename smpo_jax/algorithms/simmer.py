"""Simmer (Sootla, Cowen-Rivers, Wang & Bou Ammar 2022): Sauté with a budget under control.

The share of the budget that an episode may spend follows the measured cost: a PI controller lowers
it while episodes cost more than it allows, and lets it rise again, up to the whole, while they cost
less (section 4.2). Everything else is `saute`, the method within PPO (`ppo_simmer`) or TRPO
(`trpo_simmer`).

Deviation: the share holds at once for episodes under way, not from their next start; there is no
derivative term, whose gain is 0 in OmniSafe.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, saute
from smpo_jax.core import episodes, multipliers
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, EpisodeStats, Scalar, Spec


@dataclass(frozen=True, kw_only=True)
class Control(base.Settings):
    """What Simmer adds to Sauté's settings; OmniSafe's numbers."""

    budget_start: float = 1.0  # share of the budget that may be spent at first
    budget_step: float = 1.0  # largest change per iteration, in units of cost
    proportional_gain: float = 5e-4  # change of the budget per unit of smoothed slack
    integral_gain: float = 1e-5  # and per unit of its sum over the last `integral_window`
    integral_window: int = 100  # iterations
    slack_smoothing: float = 0.995  # weight of the past in the slack's average
    episode_window: float = 100.0  # episodes that the measured cost is a mean of

    def __post_init__(self):
        base.require(self, base.FRACTION, "budget_start", "slack_smoothing")
        base.require(self, base.NONNEGATIVE, "proportional_gain", "integral_gain", "budget_step")
        base.require(self, base.COUNT, "integral_window")
        base.require(self, base.POSITIVE, "episode_window")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class PPOSimmer(Control, saute.PPOSaute):
    """Sauté PPO's, and the controller's."""


@dataclass(frozen=True, kw_only=True)
class TRPOSimmer(Control, saute.TRPOSaute):
    """Sauté TRPO's, and the controller's."""


class State(NamedTuple):
    """The controller's."""

    share: Float[Array, ""]  # of the limit
    window: episodes.Window  # J_c
    slacks: Float[Array, " W"]  # smoothed, the newest last; 0 before there were any


def make(spec: Spec, settings: PPOSimmer | TRPOSimmer, networks: Networks = DEFAULT) -> Algorithm:
    """Simmer for a problem with an account of its costs."""
    return saute.controlled(spec, settings, controller(settings, spec.cost_limit), networks)


def controller(settings: Control, cost_limit: Scalar) -> saute.Controller:
    """The rule of the share, for a whole budget of `cost_limit`."""

    def init() -> State:
        return State(
            jnp.asarray(settings.budget_start, jnp.result_type(float)),
            episodes.empty_window(),
            jnp.zeros(settings.integral_window),
        )

    def update(state: State, finished: EpisodeStats) -> State:
        window = episodes.remember(state.window, finished, size=settings.episode_window)
        slack = multipliers.excess(state.share * cost_limit, window.cost)
        keep = settings.slack_smoothing
        smooth = keep * state.slacks[-1] + (1.0 - keep) * slack
        slacks = jnp.append(state.slacks[1:], smooth)
        change = settings.proportional_gain * smooth + settings.integral_gain * jnp.sum(slacks)
        change = jnp.clip(change, -settings.budget_step, settings.budget_step)
        share = jnp.clip(state.share + change / jnp.maximum(cost_limit, 1e-6), 0.0, 1.0)
        moved = State(share, window, slacks)
        unmoved = state._replace(window=window)
        is_measured = window.count > 0
        return jax.tree.map(lambda new, old: jnp.where(is_measured, new, old), moved, unmoved)

    return saute.Controller(init, update)
