"""Many environments at once that start a new episode, with a new layout, whenever one ends."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smpo_envs.safe_env import SafeEnv, State, Step
from smpo_envs.sparse import apply_where

Tree = TypeVar("Tree")


class Course(NamedTuple):
    """What episodes begin with, as training goes on; a value `c` that travels with the state.

    Attributes:
        reset: the first state of an episode that begins at `c`.
        start: `c` before the first step, a pytree of arrays.
        advance: `c` after a step of all environments.
    """

    reset: Callable[[PRNGKeyArray, Any], State]
    start: Any
    advance: Callable[[Any], Any] = lambda c: c


class VectorState(struct.PyTreeNode):
    """`N` environments under way.

    Attributes:
        env: what the environments carry, leaves `[N, ...]`. After the end of an episode its
            `pipeline_state` and `obs` are those of the next one; `reward`, `done`, `metrics` and
            `info` still tell of the step that ended it.
        steps: taken in the current episode.
        key: for the episodes to come; an environment's key advances only when it resets.
        course: where the course is; None if there is none.
    """

    env: State
    steps: Int[Array, " N"]
    key: PRNGKeyArray
    course: Any = None

    @property
    def obs(self) -> Float[Array, "N O"]:
        """What to act on next."""
        return self.env.obs


_AXIS = "envs"
_DEALT, _COPIED = PartitionSpec(_AXIS), PartitionSpec()  # how arrays lie on several devices
_PLACES = VectorState(_DEALT, _DEALT, _DEALT, _COPIED)  # type: ignore[arg-type]


class VectorEnv:
    """`num_envs` copies of an environment, with a time limit and automatic resets.

    Every episode has a fresh random layout. A reset costs what the environments that need it cost,
    also under a further `vmap`, for instance over seeds.

    With `stagger`, the clocks of the first episodes start at evenly spread times, so that later
    on a few environments reset at every step instead of all at once. First episodes are
    then shorter than the time limit; they are part of no fair estimate of the episode cost.

    With a `course`, its reset takes the place of the environment's, whose `step` must serve all
    states that it leads to. It is part of the state, so that a run that is resumed goes on with it.

    With `devices`, the environments are shared out over that many of JAX's devices, which step them
    independently of each other. A core of a CPU is such a device if `jax_num_cpu_devices` says so.
    What happens in an environment depends on `devices` only by rounding.
    """

    def __init__(
        self,
        env: SafeEnv,
        num_envs: int,
        stagger: bool = True,
        course: Course | None = None,
        devices: int = 1,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs} must be at least 1")
        self.mesh = _mesh(devices, num_envs)
        self.env = env
        self.num_envs = num_envs
        self.stagger = stagger
        self.course = course
        self.observation_size = env.observation_size
        self.action_size = env.action_size
        self.episode_length = env.episode_length

    def reset(self, key: PRNGKeyArray) -> VectorState:
        """The first state of all environments."""
        reset_keys, next_keys = _split_each(jax.random.split(key, self.num_envs))
        index = jnp.arange(self.num_envs, dtype=jnp.int32)
        steps = index * self.episode_length // self.num_envs if self.stagger else 0 * index
        start = None if self.course is None else self.course.start
        # Arrays of their own: a state may be donated.
        at = jax.tree.map(lambda x: jnp.array(x, copy=True), start)
        begin = jax.vmap(self._first, in_axes=(0, None))
        first = self._on_each_device(begin, (_DEALT, _COPIED), _DEALT)(reset_keys, at)
        return self.spread(VectorState(first, steps, next_keys, at))

    def step(self, state: VectorState, action: Float[Array, "N A"]) -> tuple[VectorState, Step]:
        """Acts, and starts a new episode wherever one has ended."""
        step = self._on_each_device(self._step, (_PLACES, _DEALT), (_PLACES, _DEALT))
        return step(state, action)

    def spread(self, state: VectorState) -> VectorState:
        """The state, dealt out to the devices as `step` takes and leaves it."""
        if self.mesh is None:
            return state
        return self._on_each_device(lambda state: state, (_PLACES,), _PLACES)(state)

    def gather(self, tree: Tree) -> Tree:
        """Arrays, whole on each of the devices."""
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, _COPIED))

    def _step(self, state: VectorState, action: Float[Array, "N A"]) -> tuple[VectorState, Step]:
        """A step of the environments that one device has."""
        env = jax.vmap(self.env.step)(state.env, action)
        steps = state.steps + 1
        course = state.course if self.course is None else self.course.advance(state.course)
        terminated = env.done
        truncated = jnp.where(steps >= self.episode_length, 1 - terminated, 0)
        seen = Step(env.reward, env.info["cost"], terminated, truncated, next_obs=env.obs)

        over = terminated + truncated > 0
        # Staggered episodes end evenly, so there needn't be room for twice as many as expected.
        restart = partial(apply_where, self._restart, rate=1 / (2 * self.episode_length))
        carried = (env.pipeline_state, env.obs, steps, state.key)
        batch = jax.vmap(restart, in_axes=(0, 0, None))
        pipeline_state, obs, steps, keys = batch(over, carried, course)
        env = env.replace(pipeline_state=pipeline_state, obs=obs)
        return VectorState(env, steps, keys, course), seen

    def _on_each_device(self, f: Callable[..., Any], in_specs: Any, out_specs: Any):
        """The function of the environments of one device, on all of them."""
        if self.mesh is None:
            return f
        return jax.shard_map(
            f, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def _first(self, key: PRNGKeyArray, at: Any) -> State:
        return self.env.reset(key) if self.course is None else self.course.reset(key, at)

    def _restart(self, carried, at):
        """The first state of a new episode in place of the last of an old one; a single one."""
        _, _, steps, key = carried
        reset_key, next_key = jax.random.split(key)
        first = self._first(reset_key, at)
        return first.pipeline_state, first.obs, jnp.zeros_like(steps), next_key


def _mesh(devices: int, num_envs: int) -> Mesh | None:
    """The first `devices` of JAX's devices; None if one is enough."""
    if devices == 1:
        return None
    if devices < 1 or num_envs % devices:
        raise ValueError(f"devices={devices} must be at least 1 and divide num_envs={num_envs}")
    there = jax.devices()
    if len(there) < devices:
        raise ValueError(
            f"devices={devices} are not there, only {len(there)} ({there[0].platform}); cores of a "
            f"CPU become devices with JAX_NUM_CPU_DEVICES={devices} in the environment"
        )
    return jax.make_mesh((devices,), (_AXIS,), (AxisType.Auto,), devices=there[:devices])


def _split_each(keys: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]
