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
import jax.numpy as jnp
import numpy as np
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

    One whose actions are discrete also has `discrete`, which is True: an action then is one-hot,
    the choice `jnp.argmax(action)` of `action_size`. One that lacks it has continuous actions.

    One with several costs may have `cost_names`, a text for each; otherwise they are called
    `cost_1`, `cost_2` and so on.
    """

    @property
    def observation_size(self) -> int:
        """Length `O` of an observation."""
        ...

    @property
    def action_size(self) -> int:
        """Length `A` of an action, whose components act within [-1, 1]; number of choices."""
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

    Attributes:
        reset: see `SafeEnv`.
        step: see `SafeEnv`.
        observation_size: `O`.
        action_size: `A`.
        episode_length: steps after which an episode is cut.
        drawing: how it looks.
        shift: what it was built with, in full.
        cost_names: for those with several costs.
        discrete: actions are one-hot, see `SafeEnv`.
        observation_names: of the parts that an observation is made of, in order; () if of one.
        observation_shape: of a picture, whose entries are the observation; () for vectors.
    """

    reset: Callable[[PRNGKeyArray], State]
    step: Callable[[State, Float[Array, " A"]], State]
    observation_size: int
    action_size: int
    episode_length: int
    drawing: Drawing | None = field(default=None, compare=False)
    shift: Shift | None = field(default=None, compare=False)
    cost_names: tuple[str, ...] = ()
    discrete: bool = False
    observation_names: tuple[str, ...] = ()
    observation_shape: tuple[int, ...] = ()
    readings: tuple[Reading, ...] = field(default=(), compare=False)  # an observation's, in order


class Kind(NamedTuple):
    """What an environment, or many, may say of itself beside its sizes, and need not.

    Attributes:
        discrete: see `SafeEnv`.
        observation_names: see `Environment`.
        observation_shape: see `Environment`.
    """

    discrete: bool
    observation_names: tuple[str, ...]
    observation_shape: tuple[int, ...]


def kind(env: Any) -> Kind:
    """What an environment says, and what is true of one that says nothing.

    Raises:
        ValueError: `discrete` is neither True nor False.
    """
    discrete = getattr(env, "discrete", False)
    if not isinstance(discrete, bool | np.bool_):
        raise ValueError(
            f"discrete={discrete!r} must be True or False; action_size is the number of choices"
        )
    names, shape = getattr(env, "observation_names", ()), getattr(env, "observation_shape", ())
    return Kind(bool(discrete), tuple(names), tuple(shape))


def random_action(env: Any, key: PRNGKeyArray, batch: tuple[int, ...] = ()) -> jax.Array:
    """Uniformly random actions, `[*batch, A]`, of an environment or of many."""
    if kind(env).discrete:
        choice = jax.random.randint(key, batch, 0, env.action_size)
        return jax.nn.one_hot(choice, env.action_size, dtype=jnp.result_type(float))
    return jax.random.uniform(key, (*batch, env.action_size), minval=-1.0, maxval=1.0)
