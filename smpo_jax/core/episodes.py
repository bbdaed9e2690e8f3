"""Which episodes finished in a rollout, and what they cost."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.types import EpisodeStats, PerCost, Rollout, Transition


class Tracker(NamedTuple):
    """Sums over the episodes under way."""

    return_: Float[Array, " N"]
    cost: PerCost  # of Float[Array, " N"]
    length: Float[Array, " N"]
    partial: Float[Array, " N"]  # 1 where the episode had begun before it was watched


class Window(NamedTuple):
    """A running mean of episode cost over about the last `size` episodes (see `remember`)."""

    cost: PerCost  # of Float[Array, ""]
    count: Float[Array, ""]  # episodes in it


def start(
    num_envs: int,
    age: Float[Array, " N"] | Int[Array, " N"] | None = None,
    cost_names: Sequence[str] = constraints.ONE,
) -> Tracker:
    """Nothing has happened yet.

    Args:
        num_envs: how many environments are watched.
        age: steps that each has taken in its episode already, where clocks are staggered; a first
            episode that the time limit cuts is then a piece of one, and does not count.
        cost_names: what the costs are called.
    """
    zeros = jnp.zeros(num_envs)
    partial = zeros if age is None else jnp.asarray(age > 0, zeros.dtype)
    cost = constraints.made(cost_names, lambda: jnp.zeros(num_envs))
    return Tracker(zeros, cost, jnp.zeros(num_envs), partial)


def ends(
    terminated: Float[Array, "*batch"], truncated: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """1 where an episode is over, for either reason."""
    return jnp.maximum(terminated, truncated)


def advance(
    tracker: Tracker,
    reward: Float[Array, " N"],
    cost: PerCost,
    terminated: Float[Array, " N"],
    truncated: Float[Array, " N"],
) -> tuple[Tracker, Tracker, Float[Array, " N"]]:
    """One step on: (the tracker for the next step, sums with this step, 1 where one finished).

    An episode counts however long it was, unless it was cut and had begun before it was watched.
    """
    total = tracker._replace(
        return_=tracker.return_ + reward,
        cost=each(operator.add, tracker.cost, cost),
        length=tracker.length + 1.0,
    )
    end = ends(terminated, truncated)
    finished = end * jnp.maximum(terminated, 1.0 - tracker.partial)
    return jax.tree.map(lambda x: x * (1.0 - end), total), total, finished


def annotate(
    tracker: Tracker,
    transition: Transition,
    *,
    cost_limit: PerCost,
    lost: Float[Array, "T N"] | None = None,
) -> tuple[Tracker, Rollout]:
    """The rollout with each step's C_t and age, and the statistics of the episodes it finished.

    Args:
        tracker: before the first step.
        transition: the steps.
        cost_limit: of each cost, for the share of episodes above it.
        lost: 1 where the end of an episode does not count, as what played it was lost.
    """

    def step(before, inputs):
        after, total, finished = advance(before, *inputs)
        return after, (before, total, finished)

    inputs = (transition.reward, transition.cost, transition.terminated, transition.truncated)
    tracker, (before, totals, finished) = jax.lax.scan(step, tracker, inputs)
    if lost is not None:
        finished = finished * (1.0 - lost)

    count = jnp.sum(finished)

    def mean(x: Float[Array, "T N"]) -> Float[Array, ""]:
        return jnp.where(count > 0, jnp.sum(x * finished) / jnp.maximum(count, 1.0), jnp.nan)

    is_over = constraints.any_of(each(operator.gt, totals.cost, cost_limit))
    stats = EpisodeStats(
        return_=mean(totals.return_),
        cost=each(mean, totals.cost),
        length=mean(totals.length),
        over_limit=mean(jnp.asarray(is_over, totals.length.dtype)),
        count=count,
    )
    return tracker, Rollout(transition, before.cost, before.length, stats)


def empty_window(like: PerCost = 0.0) -> Window:
    """No episode seen; the cost is a placeholder until one is. `like` has the constraints' form."""
    return Window(each(lambda _: jnp.zeros(()), like), jnp.zeros(()))


def remember(window: Window, stats: EpisodeStats, *, size: float) -> Window:
    """Takes in the episodes that just finished, each with the weight of one in `size`.

    The mean of all episodes until `size` of them are seen, an exponential average after that.
    Unchanged, and never NaN, where none finished.
    """
    count = jnp.minimum(window.count + stats.count, size)
    weight = jnp.minimum(stats.count / jnp.maximum(count, 1.0), 1.0)

    def moved(cost: Float[Array, ""], of_finished: Float[Array, ""]) -> Float[Array, ""]:
        newest = jnp.where(stats.count > 0, of_finished, cost)
        return cost + weight * (newest - cost)

    return Window(each(moved, window.cost, stats.cost), count)
