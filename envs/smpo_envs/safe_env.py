"""The environment contract: brax's `reset`/`step` on a `State`, plus a cost.

`State` has the fields of `brax.envs.State`, so brax-style wrappers and trainers can read it, but
nothing here imports brax (importing `brax.envs` takes seconds). One sentence is added to brax's
contract: `state.info["cost"]` is the cost of this step, a float >= 0; or a vector of several costs,
`[K]`, each with a limit of its own, that are called as the environment's `cost_names` say.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.drawing import Drawing
from smpo_envs.shift import Shift


class State(struct.PyTreeNode):
    """What an environment carries from one step to the next, and what it shows.

    Attributes:
        pipeline_state: the physics and task state (an environment's own pytree).
        obs: observation, `[O]`.
        reward: reward of the step that led here; 0 after a reset.
        done: 1 if the episode is over (terminated; a batched env also counts truncation).
        metrics: scalars a person looks at, the same keys after every step.
        info: `cost` (this step's cost, or the vector of them), and whatever wrappers add.
    """

    pipeline_state: Any
    obs: Float[Array, " O"]
    reward: Float[Array, ""]
    done: Float[Array, ""]
    metrics: dict[str, jax.Array] = struct.field(default_factory=dict)
    info: dict[str, Any] = struct.field(default_factory=dict)


class SafeEnv(Protocol):
    """One environment of two pure functions. `step` never resets; wrappers do.

    One with several costs may have `cost_names`, a text for each; otherwise they are called
    `cost_1`, `cost_2` and so on.
    """

    @property
    def observation_size(self) -> int:
        """Length `O` of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Length `A` of an action; every component acts within [-1, 1]."""
        ...

    @property
    def episode_length(self) -> int:
        """Steps after which an episode is cut by the time limit."""
        ...

    @property
    def reset(self) -> Callable[[PRNGKeyArray], State]:
        """The first state of a new episode, drawn with a key."""
        ...

    @property
    def step(self) -> Callable[[State, Float[Array, " A"]], State]:
        """The state after one action. `done` is 1 only if the episode terminated."""
        ...


class Reading(NamedTuple):
    """Entries of an observation that belong together, for people."""

    name: str
    size: int
    unit: str  # "1" if it has none


@dataclass(frozen=True)
class Environment:
    """A `SafeEnv` as a value: its two functions, its sizes, and how to draw it, if one can.

    `cost_names` are for those with several costs.
    """

    reset: Callable[[PRNGKeyArray], State]
    step: Callable[[State, Float[Array, " A"]], State]
    observation_size: int
    action_size: int
    episode_length: int
    drawing: Drawing | None = field(default=None, compare=False)
    shift: Shift | None = field(default=None, compare=False)  # what it was built with, in full
    cost_names: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = field(default=(), compare=False)  # an observation's, in order
