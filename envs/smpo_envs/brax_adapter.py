"""Our environments as `brax.envs.Env`, for brax's own trainers. The only module to import brax."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env
from brax.envs.base import State as BraxState

from smpo_envs.safe_env import SafeEnv, State


def to_brax(env: SafeEnv) -> Env:
    """The same environment behind brax's interface; the cost stays in `info["cost"]`.

    brax's trainers know nothing of costs, and their auto-reset plays the first layout of each
    environment for ever: use `VectorEnv` for fresh ones. They also call
    `jax.device_put_replicated`, which jax 0.10 has dropped and brax 0.14.2, the newest, still
    needs: where jax has none, it gets one here.
    """
    if not hasattr(jax, "device_put_replicated"):
        setattr(jax, "device_put_replicated", _device_put_replicated)  # noqa: B010 - jax has no such name
    return _BraxEnv(env)


class _BraxEnv(Env):
    def __init__(self, env: SafeEnv):
        self._env = env

    def reset(self, rng: jax.Array) -> BraxState:
        typed = jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key)
        # brax hands out raw keys.
        key = rng if typed else jax.random.wrap_key_data(rng)
        return BraxState(**_fields(self._env.reset(key)))

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        return BraxState(**_fields(self._env.step(State(**_fields(state)), action)))

    @property
    def observation_size(self) -> int:
        return self._env.observation_size

    @property
    def action_size(self) -> int:
        return self._env.action_size

    @property
    def backend(self) -> str:
        return "smpo_envs"


def _fields(state: State | BraxState) -> dict[str, Any]:
    return {
        "pipeline_state": state.pipeline_state,
        "obs": state.obs,
        "reward": state.reward,
        "done": state.done,
        # brax's wrappers write into these dictionaries in place.
        "metrics": dict(state.metrics),
        "info": dict(state.info),
    }


def _device_put_replicated(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The tree once on each device: its leaves get a leading axis, sharded over the devices."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))

    def put(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jax.device_put(jnp.broadcast_to(array, (len(devices), *array.shape)), sharding)

    return jax.tree.map(put, tree)
