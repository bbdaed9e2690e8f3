"""Many environments at once that start a new episode, with a new layout, whenever one ends."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smpo_envs.contract import check_shapes, whole
from smpo_envs.safe_env import SafeEnv, State, kind
from smpo_envs.sparse import apply_where
from smpo_envs.step import Step, by_name


class Curriculum(NamedTuple):
    """What episodes begin with, as training goes on; a value `c` that travels with the state.

    Attributes:
        reset: the first state of an episode that begins at `c`.
        start: `c` before the first step, a pytree of arrays.
        update: `c` after a step. Every environment has a `c` of its own, the same for all.
    """

    reset: Callable[[PRNGKeyArray, Any], State]
    start: Any
    update: Callable[[Any], Any] = lambda c: c


class VectorState(struct.PyTreeNode):
    """`N` environments under way; all leaves have a leading axis `N`.

    Attributes:
        env: what the environments carry. After the end of an episode its `pipeline_state` and `obs`
            are those of the next one; `reward`, `done`, `metrics` and `info` still tell of the step
            that ended it.
        steps: taken in the current episode.
        key: for the episodes to come; an environment's key advances only when it resets.
        curriculum: where the curriculum is, in each environment; None if there is none.
    """

    env: State
    steps: Int[Array, " N"]
    key: PRNGKeyArray
    curriculum: Any = None

    @property
    def obs(self) -> Float[Array, "N O"]:
        """What to act on next."""
        return self.env.obs


class VectorEnv:
    """`num_envs` copies of an environment, with a time limit and automatic resets.

    Every episode has a fresh random layout. A reset costs what the environments that need it cost,
    also under a further `vmap`, for instance over seeds.

    With `stagger`, the clocks of the first episodes start at evenly spread times, so that later
    on a few environments reset at every step instead of all at once. First episodes are
    then shorter than the time limit; they are part of no fair estimate of the episode cost.

    With a `curriculum`, its reset takes the place of the environment's, whose `step` must serve all
    states that it leads to. It is part of the state, so that a run that is resumed goes on with it.

    Of an environment that is known to keep the contract, as tasks of this package are,
    `known_costs` says what its costs are called. Whether it does is then not looked at before it is
    stepped; tracing that takes seconds.

    `step` takes a state of any number of environments, such as those that one device has of all.

    Raises:
        ValueError: the environment breaks the contract (see `contract.check_shapes`), or there are
            none.
    """

    def __init__(
        self,
        env: SafeEnv,
        num_envs: int,
        stagger: bool = True,
        curriculum: Curriculum | None = None,
        *,
        known_costs: tuple[str, ...] | None = None,
    ):
        self.cost_names = check_shapes(env) if known_costs is None else known_costs
        self.env = env
        self.num_envs = whole("num_envs", num_envs)
        self.stagger = stagger
        self.curriculum = curriculum
        self.observation_size = env.observation_size
        self.action_size = env.action_size
        self.episode_length = whole("episode_length", env.episode_length)
        self.discrete, self.observation_names, self.observation_shape = kind(env)

    def reset(self, key: PRNGKeyArray) -> VectorState:
        """The first state of all environments."""
        return self.reset_each(jax.random.split(key, self.num_envs))

    def reset_each(self, keys: PRNGKeyArray) -> VectorState:
        """The same, each environment's episodes drawn with a key `[N]` of its own."""
        reset_keys, next_keys = _split_each(keys)
        index = jnp.arange(self.num_envs, dtype=jnp.int32)
        steps = index * self.episode_length // self.num_envs if self.stagger else 0 * index
        start = None if self.curriculum is None else self.curriculum.start
        at = jax.tree.map(self._for_each, start)
        return VectorState(jax.vmap(self._first)(reset_keys, at), steps, next_keys, at)

    def step(
        self, state: VectorState, action: Float[Array, "N A"]
    ) -> tuple[VectorState, Step[jax.Array]]:
        """Acts, and starts a new episode wherever one has ended."""
        env = jax.vmap(self.env.step)(state.env, action)
        steps, at = state.steps + 1, state.curriculum
        if self.curriculum is not None:
            at = jax.vmap(self.curriculum.update)(at)
        terminated = env.done
        truncated = jnp.where(steps >= self.episode_length, 1 - terminated, 0)
        cost = env.info["cost"]
        if math.prod(cost.shape[1:]) != len(self.cost_names):
            shape = list(cost.shape[1:])
            raise ValueError(f"known_costs={self.cost_names}: info['cost'] has shape {shape}")
        cost = by_name(cost, self.cost_names)
        seen = Step(env.reward, cost, terminated, truncated, next_obs=env.obs)

        over = terminated + truncated != 0  # NaN is passed on for others to report
        # Staggered episodes end evenly, so there needn't be room for twice as many as expected.
        restart = partial(apply_where, self._restart, rate=1 / (2 * self.episode_length))
        carried = (env.pipeline_state, env.obs, steps, state.key)
        with jax.named_scope("reset"):
            pipeline_state, obs, steps, keys = jax.vmap(restart)(over, carried, at)
        env = env.replace(pipeline_state=pipeline_state, obs=obs)
        return VectorState(env, steps, keys, at), seen

    def _for_each(self, leaf: Any) -> jax.Array:
        """The same for each environment, in an array of its own: a state may be donated."""
        leaf = jnp.asarray(leaf)
        return jnp.array(jnp.broadcast_to(leaf, (self.num_envs, *leaf.shape)), copy=True)

    def _first(self, key: PRNGKeyArray, at: Any) -> State:
        return self.env.reset(key) if self.curriculum is None else self.curriculum.reset(key, at)

    def _restart(self, carried, at):
        """The first state of a new episode in place of the last of an old one; a single one."""
        _, _, steps, key = carried
        reset_key, next_key = jax.random.split(key)
        first = self._first(reset_key, at)
        return first.pipeline_state, first.obs, jnp.zeros_like(steps), next_key


def _split_each(keys: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]
