"""From what happened in a rollout to what an update learns from, wherever it was collected."""

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.core import constraints, episodes
from smpo_jax.types import Algorithm, Rollout, Spec, Transition


def start_tracking(spec: Spec) -> episodes.Tracker:
    """Sums over the episodes under way, before the first step of `spec.num_envs` environments."""
    return episodes.start(spec.num_envs, cost_names=constraints.names(spec.cost_limit))


def track(
    spec: Spec,
    tracker: episodes.Tracker,
    transition: Transition,
    lost: Float[Array, "T N"] | None = None,
) -> tuple[episodes.Tracker, Rollout]:
    """A rollout for `Algorithm.update`, from the steps of a loop of one's own.

    Args:
        spec: says how large a rollout is and what an episode may cost.
        tracker: of `start_tracking` at first, then what the last call returned: episodes may begin
            in one rollout and end in another.
        transition: `spec.rollout_length` steps of `spec.num_envs` environments, `[T, N, ...]`.
        lost: 1 where the end of an episode does not count: what played it was lost, or it is none
            of those that the method reports.

    Raises:
        ValueError: the steps have other costs than the spec has limits.
        AssertionError: a leaf of the transition has other leading axes; it is named.

    Returns:
        The tracker to go on with, and the rollout: the steps with each one's cost so far and age,
        and the statistics of the episodes that ended.
    """
    given, limited = constraints.names(transition.cost), constraints.names(spec.cost_limit)
    if set(given) != set(limited):
        raise ValueError(
            f"the costs of the steps are {', '.join(given)}, the limits are of "
            f"{', '.join(limited)}: several costs are a dictionary by name"
        )
    chex.assert_tree_shape_prefix(transition, (spec.rollout_length, spec.num_envs))
    return episodes.annotate(tracker, transition, cost_limit=spec.cost_limit, lost=lost)


def not_counted(algorithm: Algorithm, transition: Transition) -> Float[Array, "T N"] | None:
    """The `lost` of `track`, 1 in episodes that the method does not report; or None."""
    if algorithm.is_counted is None:
        return None
    return 1.0 - jnp.asarray(algorithm.is_counted(transition.obs), transition.reward.dtype)
