"""Several devices that share the environments of a run, and make each update together.

A device is a GPU, or a core of a CPU if `jax_num_cpu_devices` says so. Each steps its own
environments, and keeps what happened in them: of `[T, N, ...]` its own part of the N. Networks and
all else are the same on every device. Updates are written as if there were one device; the compiler
sees where the samples are, lets each device compute on its own, and adds up what is a sum or a mean
over all of them.

For it to find a way on which no sample moves, minibatches must take as much from each device. That
is what `Spec.shards` says: environments are in so many equal parts, each of which is shuffled
within itself. What comes out depends on the shards, and on the devices only by rounding: one device
with two shards does what two devices do.
"""

from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from smpo_jax.core import constraints
from smpo_jax.types import Key, StepLike, VectorEnv

Tree = TypeVar("Tree")


def make_mesh(devices: int, num_envs: int) -> Mesh | None:
    """The first `devices` of JAX's devices, for the functions of `loop`; None if one is enough.

    Raises:
        ValueError: they are not there, or cannot share the environments evenly.
    """
    if devices == 1:
        return None
    _require_even(devices, num_envs)
    there = jax.devices()
    if len(there) < devices:
        raise ValueError(
            f"devices={devices} are not there, only {len(there)} ({there[0].platform}); cores of a "
            f"CPU become devices with JAX_NUM_CPU_DEVICES={devices} in the environment"
        )
    return jax.make_mesh((devices,), ("envs",), (AxisType.Auto,), devices=there[:devices])


def sharded(env: VectorEnv, mesh: Mesh | None) -> VectorEnv:
    """The environments, dealt out to the devices of a mesh; themselves if there is none.

    Args:
        env: its `step` takes any number of environments, and all leaves of its states have their
            number as leading axis.
        mesh: of one axis, or None.

    Raises:
        ValueError: the mesh has more axes, or the devices cannot share the environments evenly.
    """
    return env if mesh is None else ShardedVectorEnv(env, mesh)


class ShardedVectorEnv:
    """Environments that devices share; the same functions as those of any `VectorEnv`."""

    def __init__(self, env: VectorEnv, mesh: Mesh):
        if len(mesh.axis_names) != 1:
            raise ValueError(f"the mesh has axes {mesh.axis_names}; environments are dealt along 1")
        _require_even(mesh.size, env.num_envs)
        self.num_envs = env.num_envs
        self.observation_size = env.observation_size
        self.action_size = env.action_size
        self.episode_length = env.episode_length
        self.discrete = getattr(env, "discrete", False)
        self.observation_shape = getattr(env, "observation_shape", ())
        self.cost_names = constraints.names_of(env)
        self._env = env
        self._mesh = mesh

    def reset(self, key: Key) -> Any:
        """The first state of all environments."""
        return shard_state(replicate(self._env.reset(key), self._mesh), self._mesh, self.num_envs)

    def step(self, state: Any, action: Float[Array, "N A"]) -> tuple[Any, StepLike[jax.Array]]:
        """Acts, and starts a new episode wherever one has ended: each device in its own."""
        return _on_each_device(self._env.step, self._mesh)(state, action)


def shard_state(state: Any, mesh: Mesh | None, num_envs: int) -> Any:
    """A state of environments, with those of each device on that device.

    Raises:
        ValueError: a leaf does not have the environments as its leading axis.
    """
    if mesh is None:
        return state
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape[:1] != (num_envs,):
            raise ValueError(
                f"the environments' state{jax.tree_util.keystr(path)} has shape {leaf.shape}; to "
                f"be shared by devices it needs a leading axis of num_envs={num_envs}"
            )
    return _on_each_device(lambda state: state, mesh)(state)


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays, whole on each of the devices."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(_auto(mesh), PartitionSpec()))


def dealt(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays `[T, N, ...]`, with those of each device's environments on that device."""
    if mesh is None:
        return tree
    along_envs = NamedSharding(_auto(mesh), PartitionSpec(None, *mesh.axis_names))
    return jax.lax.with_sharding_constraint(tree, along_envs)


def require_shards(mesh: Mesh | None, shards: int) -> None:
    """Raises a ValueError unless each device of the mesh has as many of the spec's shards."""
    if mesh is not None and shards % mesh.size:
        raise ValueError(
            f"the mesh has {mesh.size} devices and the spec shards={shards}, so that they cannot "
            f"make updates together: make_spec(..., shards={mesh.size})"
        )


def _on_each_device(f: Any, mesh: Mesh) -> Any:
    """The function of the environments of one device, on all of them."""
    dealt = PartitionSpec(*mesh.axis_names)
    return jax.shard_map(f, mesh=_auto(mesh), in_specs=dealt, out_specs=dealt, check_vma=False)


def _auto(mesh: Mesh) -> Mesh:
    """The mesh, outside of `_on_each_device` left to the compiler, as all that the trainer does."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def _require_even(devices: int, num_envs: int) -> None:
    if devices < 1 or num_envs % devices:
        raise ValueError(f"devices={devices} must be at least 1 and divide num_envs={num_envs}")
