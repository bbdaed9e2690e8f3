"""Which cost limits a run has, and which of them each step is under.

There is one, or several that one policy learns to keep: each episode of training is under one of
them, drawn when it begins, which the policy sees (`augmentation`). What is measured over a rollout
is then measured for each limit by itself, as if each had a run of its own.

Deviation: the paper has one limit for a run.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_jax.algorithms.smpo.threshold import Threshold
from smpo_jax.augmentation import Account, Augmentation
from smpo_jax.core.episodes import ends
from smpo_jax.core.surrogate import Mean
from smpo_jax.ranges import LARGE
from smpo_jax.types import EpisodeStats, Key, PerCost, Rollout, Scalar

ENTRIES = 1  # at the end of an observation: the limit, as `shown`
SAME = 1e-4  # limits that are shown nearer to each other are the same: 0.01 % apart


class Levels(NamedTuple):
    """The limits of a run. What is said `[*K]` is a scalar for one limit, `[K]` for several.

    Attributes:
        labels: of each limit, to be put before the names of its metrics.
        threshold: of the rule of one limit's threshold d', given d: that of each limit's, whose
            state, episodes and d' are `[*K]`.
        finished: `rollout -> EpisodeStats`, cost and count of each limit's episodes, `[*K]`.
        at: `(x [*K], rollout) -> [] or [T, N]`, what holds under the limit of each step.
        mean: `rollout -> Mean`, over the steps that are under the same limit.
    """

    labels: tuple[str, ...]
    threshold: Callable[[Callable[[Scalar], Threshold]], Threshold]
    finished: Callable[[Rollout], EpisodeStats]
    at: Callable[[Any, Rollout], Any]
    mean: Callable[[Rollout], Mean]

    def labelled(self, x: Float[Array, "*K"]) -> list[tuple[str, Float[Array, ""]]]:
        """Each limit's label and entry."""
        return list(zip(self.labels, jnp.reshape(x, len(self.labels)), strict=True))


def one(limit: Scalar) -> Levels:
    """All of a run under the same limit."""
    return Levels(
        labels=("",),
        threshold=lambda rule: rule(limit),
        finished=lambda rollout: rollout.episodes,
        at=lambda x, rollout: x,
        mean=lambda rollout: jnp.mean,
    )


def several(limits: Sequence[Scalar], episode_length: int) -> Levels:
    """Each episode under the limit that its observations end with; the first is the run's own."""
    known = jnp.stack([jnp.asarray(limit, float) for limit in limits])

    def threshold(rule: Callable[[Scalar], Threshold]) -> Threshold:
        return Threshold(
            init=lambda: jax.vmap(lambda limit: rule(limit).init())(known),
            update=lambda state, finished, epoch: jax.vmap(
                lambda limit, own, its: rule(limit).update(own, its, epoch)
            )(known, state, finished),
        )

    def level(rollout: Rollout) -> Int[Array, "T N"]:
        seen = rollout.transition.obs[..., -1:]
        return jnp.argmin(jnp.abs(seen - shown(known)[None, None]), axis=-1)

    def finished(rollout: Rollout) -> EpisodeStats:
        t = rollout.transition
        # As `core.episodes` counts them: not those that are cut, and had begun unseen.
        is_whole = jnp.maximum(t.terminated, rollout.elapsed + 1.0 >= episode_length)
        over = is_under(rollout) * (ends(t.terminated, t.truncated) * is_whole)[None]
        count = jnp.sum(over, axis=(1, 2))
        total = jnp.sum(over * (rollout.cost_so_far + t.cost)[None], axis=(1, 2))
        cost = jnp.where(count > 0, total / jnp.maximum(count, 1.0), jnp.nan)
        unknown = jnp.full_like(cost, jnp.nan)
        return EpisodeStats(unknown, cost, length=unknown, over_limit=unknown, count=count)

    def is_under(rollout: Rollout) -> Float[Array, "K T N"]:
        found = level(rollout)[None] == jnp.arange(len(limits))[:, None, None]
        return jnp.asarray(found, known.dtype)

    def mean(rollout: Rollout) -> Mean:
        own, found = is_under(rollout), level(rollout)
        count = jnp.maximum(jnp.sum(own, axis=(1, 2)), 1.0)
        return lambda x: (jnp.sum(own * x[None], axis=(1, 2)) / count)[found]

    return Levels(
        labels=("", *(f"limit={limit:g}/" for limit in limits[1:])),
        threshold=threshold,
        finished=finished,
        at=lambda x, rollout: x[level(rollout)],
        mean=mean,
    )


def known_limits(settings: Any, cost_limit: PerCost) -> tuple[Scalar, ...]:
    """The limits of the episodes of training: the run's own, then the others."""
    return cost_limit, *(limit for limit in settings.other_limits if _differs(limit, cost_limit))


def augmentation(settings: Any, cost_limit: PerCost) -> Augmentation:
    """The limit of the episode is shown: in training one of several, else the run's own.

    Episodes of training raise a ValueError if the run's own is only known when its program runs:
    resets are the same for all runs of a program.
    """
    known = known_limits(settings, cost_limit)

    def draw(key: Key) -> Account:
        if isinstance(cost_limit, jax.core.Tracer):
            raise ValueError(
                "cost_limit is traced, and environments that show it need a number: runs of "
                "smpo-limits with different ones are different programs"
            )
        of_all = jnp.stack([jnp.asarray(shown(limit), float) for limit in known])
        return jax.random.choice(key, of_all, (ENTRIES,))

    return Augmentation(
        start=(shown(cost_limit),),
        step=lambda z, cost: z,
        size=ENTRIES,
        observe=lambda z: z,
        is_over=lambda z: jnp.zeros(z.shape[:-1], bool),
        limits=known,
        draw=draw,
    )


def shown(limit: Any) -> Any:
    """A limit as networks see it, log(1 + d): equal ratios are about equally far apart.

    That of no limit is finite, too.
    """
    if isinstance(limit, jax.Array):
        return jnp.log1p(jnp.minimum(limit, LARGE))
    return math.log1p(min(limit, LARGE))


def is_counted(obs: Float[Array, "*batch O"], cost_limit: Scalar) -> Bool[Array, "*batch"]:
    """Whether a step is of an episode under the run's own limit."""
    return jnp.abs(obs[..., -1] - shown(cost_limit)) < SAME


def _differs(limit: Scalar, other: Scalar) -> bool:
    """Whether it is another limit; of one that is only known when the program runs, it is."""
    if isinstance(limit, jax.Array) or isinstance(other, jax.Array):
        return True
    return abs(shown(limit) - shown(other)) > SAME
