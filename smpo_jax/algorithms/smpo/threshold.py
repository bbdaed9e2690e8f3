"""The threshold d' of the cost-aware weight, which tightens with time (SMPO, section 4.5).

A `Threshold` is two pure functions, as optimisers are in optax. There are two: the paper's
schedule, and a schedule that is steered on the measured cost.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.core import episodes
from smpo_jax.types import EpisodeStats, Scalar

LARGEST_SLACK = 1e6  # in units of cost; keeps an infinite limit from making NaN


class State(NamedTuple):
    """What a threshold carries from one iteration to the next."""

    window: episodes.Window  # J_c, the measured episode cost
    threshold_offset: Float[Array, ""]  # what feedback has added to the schedule


class Threshold(NamedTuple):
    """A rule for d'.

    Attributes:
        init: the state before the first iteration.
        update: `(state, episodes that finished, epoch) -> (state, d')`.
    """

    init: Callable[[], State]
    update: Callable[[State, EpisodeStats, Scalar], tuple[State, Float[Array, ""]]]


class Range(NamedTuple):
    """Where d' stays, and how J_c is measured.

    Attributes:
        limit: d, cost of an episode.
        minimum: d' is never below, cost of an episode.
        maximum: d' is never above, in multiples of the limit.
        window: episodes that J_c is a mean of.
    """

    limit: Scalar
    minimum: Scalar
    maximum: Scalar
    window: float

    def clip(self, threshold: Float[Array, ""]) -> Float[Array, ""]:
        """The nearest threshold in the range."""
        largest = jnp.maximum(self.maximum * self.limit, self.minimum)
        return jnp.clip(threshold, self.minimum, largest)


class Fall(NamedTuple):
    """From `factor` (η) times the limit down to the limit, within `epochs` (e_max)."""

    factor: Scalar
    epochs: Scalar

    def at(self, limit: Scalar, epoch: Scalar) -> Float[Array, ""]:
        """D (η − (η − 1) min(e, e_max) / e_max), e being the epoch."""
        epochs = jnp.maximum(self.epochs, 1e-9)
        progress = jnp.where(self.epochs > 0, jnp.clip(epoch / epochs, 0.0, 1.0), 1.0)
        return limit * (self.factor - (self.factor - 1.0) * progress)


class Feedback(NamedTuple):
    """How d' answers the measured cost.

    Attributes:
        target: the cost that is aimed at.
        integral: added to d' for good, per epoch and unit of slack.
        proportional: added to d' while there is slack, per unit of it.
        bound: on the slack, in multiples of the limit.
        start: epochs before it begins.
        epochs_per_update: how long an iteration is.
    """

    target: Fall
    integral: Scalar
    proportional: Scalar
    bound: Scalar
    start: Scalar
    epochs_per_update: Scalar


def _init() -> State:
    return State(episodes.empty_window(), jnp.zeros(()))


def scheduled(within: Range, fall: Fall) -> Threshold:
    """The paper's: d'(e) falls from η d to d in e_max epochs and stays there."""

    def update(
        state: State, finished: EpisodeStats, epoch: Scalar
    ) -> tuple[State, Float[Array, ""]]:
        window = episodes.remember(state.window, finished, size=within.window)
        return state._replace(window=window), within.clip(fall.at(within.limit, epoch))

    return Threshold(_init, update)


def steered(within: Range, fall: Fall, feedback: Feedback) -> Threshold:
    """A schedule that is moved by the cost measured since (a PI controller on it).

    A fixed weight leaves the episode cost wherever it leaves it; this one ends at the target.

    Deviation: not in the paper, whose threshold knows nothing of the measured cost.
    """

    def update(
        state: State, finished: EpisodeStats, epoch: Scalar
    ) -> tuple[State, Float[Array, ""]]:
        window = episodes.remember(state.window, finished, size=within.window)
        schedule = fall.at(within.limit, epoch)
        is_measured = (epoch >= feedback.start) & (window.count > 0)
        left = slack(
            feedback.target.at(within.limit, epoch),
            window.cost,
            bound=feedback.bound * jnp.maximum(within.limit, within.minimum),
        )
        left = jnp.where(is_measured, left, 0.0)
        integral = feedback.integral * feedback.epochs_per_update * left
        threshold = within.clip(schedule + state.threshold_offset + integral)
        # The offset is what was used, not what was asked for: at a bound it must not wind up.
        # Without a limit there is nothing to be off from.
        used = jnp.where(jnp.isfinite(schedule), threshold - schedule, 0.0)
        offset = jnp.where(is_measured, used, state.threshold_offset)
        return State(window, offset), within.clip(threshold + feedback.proportional * left)

    return Threshold(_init, update)


def slack(target: Scalar, measured: Scalar, *, bound: Scalar) -> Float[Array, ""]:
    """What the measured episode cost leaves of its target: target − J_c, within ± `bound`.

    A fixed weight leaves the episode cost wherever it leaves it. A threshold to which a multiple of
    this is added in every epoch (an integral controller) moves until the measured cost is the
    target; bounded, a cost of eight times the target tightens it no faster than one of twice.
    """
    bound = jnp.minimum(bound, LARGEST_SLACK)
    return jnp.clip(jnp.asarray(target - measured), -bound, bound)
