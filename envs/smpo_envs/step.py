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
