"""What is reported of a step. Without JAX, because worker processes use it, too."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

A = TypeVar("A")  # jax.Array, or np.ndarray from environments outside JAX


class Step(NamedTuple, Generic[A]):
    """What happened in one step of `N` environments; flags are float 0/1.

    Attributes:
        reward: `[N]`.
        cost: `[N]`, >= 0; of an environment with several costs, each by its name.
        terminated: `[N]`, the episode ended in a state of no future.
        truncated: `[N]`, the episode was cut by the time limit.
        next_obs: `[N, O]`, the true successor, never the observation after a reset.
    """

    reward: A
    cost: Any  # A, or {name: A}
    terminated: A
    truncated: A
    next_obs: A


def by_name(cost: Any, names: Sequence[str]) -> Any:
    """Costs `[..., K]` as one array for each name; the only one as it is."""
    return cost if len(names) == 1 else {name: cost[..., i] for i, name in enumerate(names)}


class HostStep(NamedTuple, Generic[A]):
    """What happened in one step of environments outside JAX; flags are float 0/1.

    Attributes:
        reward: `[N]`.
        cost: `[N]`, or each by its name, see `Step`.
        terminated: `[N]`, see `Step`.
        truncated: `[N]`, see `Step`.
        next_obs: `[N, O]`, see `Step`.
        lost: `[N]`, the episode is of no account, because the process that played it has died; the
            step is cut, where it began.
    """

    reward: A
    cost: Any  # A, or {name: A}
    terminated: A
    truncated: A
    next_obs: A
    lost: A
