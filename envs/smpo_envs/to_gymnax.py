"""Our environments in gymnax's style, for trainers written for it; gymnax isn't imported.

The five values of a step are those that gymnax 0.0.x returned, and that trainers such as PureJaxRL
and rejax expect. What gymnax 1.0 tells besides (an end or a cut, the true successor) is in `info`
under its names.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from smpo_envs.contract import check_shapes
from smpo_envs.keys import typed_key
from smpo_envs.safe_env import SafeEnv, State
from smpo_envs.sparse import apply_where

Obs = Float[Array, " O"]
Outcome = tuple[Obs, "GymnaxState", Float[Array, ""], Bool[Array, ""], dict[str, Any]]


class Params(struct.PyTreeNode):
    """What may be changed of an environment: its time limit, in steps."""

    max_steps_in_episode: int


class GymnaxState(struct.PyTreeNode):
    """The environment's own state, and the steps made in this episode."""

    env: State
    time: Int[Array, ""]


class Box(NamedTuple):
    """Vectors between two bounds."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: PRNGKeyArray) -> Float[Array, " D"]:
        """One of them, uniformly; the bounds must be finite."""
        return jax.random.uniform(key, self.shape, self.dtype, self.low, self.high)

    def contains(self, x: Float[Array, " D"]) -> Bool[Array, ""]:
        """Whether it is within the bounds."""
        return jnp.all((x >= self.low) & (x <= self.high))


def to_gymnax(env: SafeEnv) -> "GymnaxEnv":
    """The same environment in gymnax's style: actions of [-1, 1], the cost in `info["cost"]`.

    Raises:
        ValueError: the environment breaks the contract (see `contract.check_shapes`).
    """
    check_shapes(env)
    return GymnaxEnv(env)


class GymnaxEnv:
    """An environment with the methods of `gymnax.environments.environment.Environment`."""

    def __init__(self, env: SafeEnv):
        self._env = env

    @property
    def name(self) -> str:
        """For people."""
        return type(self).__name__

    @property
    def num_actions(self) -> int:
        """Length of an action."""
        return self._env.action_size

    @property
    def default_params(self) -> Params:
        """The environment's own time limit."""
        return Params(self._env.episode_length)

    def action_space(self, params: Params | None = None) -> Box:
        """Vectors `[A]` of -1 to 1."""
        del params
        return Box(-1.0, 1.0, (self._env.action_size,), jnp.result_type(float))

    def observation_space(self, params: Params | None = None) -> Box:
        """Vectors `[O]` without bounds."""
        del params
        size = self._env.observation_size
        return Box(-float("inf"), float("inf"), (size,), jnp.result_type(float))

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[Obs, GymnaxState]:
        """The first observation and state of an episode."""
        return self.reset_env(key, self.default_params if params is None else params)

    def step(
        self, key: jax.Array, state: GymnaxState, action: jax.Array, params: Params | None = None
    ) -> Outcome:
        """`step_env`, and the beginning of a new episode, drawn with the key, if one is over.

        `obs` and `state` are then the first ones of that; all else is of the step that was made.
        Under `vmap` a reset costs what the environments that need it cost.
        """
        step_key, reset_key = jax.random.split(typed_key(key))
        params = self.default_params if params is None else params
        obs, state, reward, done, info = self.step_env(step_key, state, action, params)
        obs, state = apply_where(self._restart, done, (obs, state), reset_key)
        return obs, state, reward, done, info

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Obs, GymnaxState]:
        """The first observation and state of an episode."""
        del params
        first = self._env.reset(typed_key(key))
        return first.obs, GymnaxState(first, jnp.zeros((), jnp.int32))

    def step_env(
        self, key: jax.Array, state: GymnaxState, action: jax.Array, params: Params
    ) -> Outcome:
        """Observation, state, reward, whether the episode is over, and info; never resets.

        Args:
            key: unused: an episode's randomness was drawn with the key of its reset.
            state: before the step.
            action: `[A]`; of a single number a scalar will do.
            params: the time limit.

        Returns:
            `info` has the `cost` of the step, whether the episode was `terminated` or `truncated`
            (cut by the time limit), and `final_observation`, the true successor.
        """
        del key
        after = self._env.step(state.env, jnp.reshape(action, (self._env.action_size,)))
        time = state.time + 1
        terminated = after.done > 0
        truncated = (time >= params.max_steps_in_episode) & ~terminated
        info = {
            "cost": after.info["cost"],
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": after.obs,
        }
        return after.obs, GymnaxState(after, time), after.reward, terminated | truncated, info

    def _restart(self, over: tuple[Obs, GymnaxState], key: PRNGKeyArray) -> tuple[Obs, GymnaxState]:
        """The beginning of the next episode in place of the end of one."""
        del over
        return self.reset_env(key, self.default_params)
