"""What is reported of a step. Without JAX, because worker processes use it, too."""

from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")  # jax.Array, or np.ndarray from environments outside JAX


class Step(NamedTuple, Generic[A]):
    """What happened in one step of `N` environments; flags are float 0/1.

    Attributes:
        reward: `[N]`.
        cost: `[N]`, >= 0.
        terminated: `[N]`, the episode ended in a state of no future.
        truncated: `[N]`, the episode was cut by the time limit.
        next_obs: `[N, O]`, the true successor, never the observation after a reset.
    """

    reward: A
    cost: A
    terminated: A
    truncated: A
    next_obs: A


class HostStep(NamedTuple, Generic[A]):
    """What happened in one step of environments outside JAX; flags are float 0/1.

    Attributes:
        reward: `[N]`.
        cost: `[N]`, >= 0.
        terminated: `[N]`, see `Step`.
        truncated: `[N]`, see `Step`.
        next_obs: `[N, O]`, see `Step`.
        lost: `[N]`, the episode is of no account, because the process that played it has died; the
            step is cut, where it began.
    """

    reward: A
    cost: A
    terminated: A
    truncated: A
    next_obs: A
    lost: A
