"""Our environments as `brax.envs.Env`, for brax's own trainers. The only module to import brax."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env
from brax.envs.base import State as BraxState

from smpo_envs.contract import check_shapes
from smpo_envs.keys import typed_key
from smpo_envs.safe_env import SafeEnv, State


def to_brax(env: SafeEnv) -> Env:
    """The same environment behind brax's interface, with the cost in `info` and in `metrics`.

    brax's trainers know nothing of costs, but sum what is in `metrics` over an episode: they log
    its cost as `eval/episode_cost`. Their auto-reset plays the first layout of each environment for
    ever: use `VectorEnv` for fresh ones. The time limit is theirs, `episode_length`. They also call
    `jax.device_put_replicated`, which jax 0.10 has dropped and brax 0.14.2, the newest, still
    needs: where jax has none, it gets one here.

    Raises:
        ValueError: the environment breaks the contract (see `contract.check_shapes`).
    """
    check_shapes(env)
    if not hasattr(jax, "device_put_replicated"):
        setattr(jax, "device_put_replicated", _device_put_replicated)  # noqa: B010 - jax has no such name
    return _BraxEnv(env)


class _BraxEnv(Env):
    def __init__(self, env: SafeEnv):
        self._env = env
        first = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
        self._metrics, self._info = tuple(first.metrics), tuple(first.info)

    def reset(self, rng: jax.Array) -> BraxState:
        return _shown(self._env.reset(typed_key(rng)), {}, {})

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        # Back in the environment's own form: brax's wrappers add to `info` and `metrics`, and
        # expect of a step that it hands that on.
        own = State(
            state.pipeline_state,
            cast(jax.Array, state.obs),  # a dictionary in others' environments
            state.reward,
            state.done,
            metrics={name: state.metrics[name] for name in self._metrics},
            info={name: state.info[name] for name in self._info},
        )
        return _shown(self._env.step(own, action), state.metrics, state.info)

    @property
    def observation_size(self) -> int:
        return self._env.observation_size

    @property
    def action_size(self) -> int:
        return self._env.action_size

    @property
    def backend(self) -> str:
        return "smpo_envs"


def _shown(state: State, metrics: dict[str, Any], info: dict[str, Any]) -> BraxState:
    """As brax's state, with what else was in `metrics` and `info`."""
    return BraxState(
        pipeline_state=state.pipeline_state,
        obs=state.obs,
        reward=state.reward,
        done=state.done,
        metrics={**metrics, "cost": state.info["cost"], **state.metrics},
        info={**info, **state.info},
    )


def _device_put_replicated(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The tree once on each device: its leaves get a leading axis, sharded over the devices."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))

    def put(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jax.device_put(jnp.broadcast_to(array, (len(devices), *array.shape)), sharding)

    return jax.tree.map(put, tree)
