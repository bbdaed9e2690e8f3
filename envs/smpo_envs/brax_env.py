"""One of our environments as a `brax.envs.Env`: see `to_brax`."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env
from brax.envs.base import State as BraxState

from smpo_envs.keys import typed_key
from smpo_envs.safe_env import SafeEnv, State
from smpo_envs.step import by_name


class BraxEnv(Env):
    """One that keeps the contract; brax's wrappers go around it."""

    def __init__(self, env: SafeEnv, cost_names: tuple[str, ...]):
        self._env, self._cost_names = env, cost_names
        first = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
        self._metrics, self._info = tuple(first.metrics), tuple(first.info)

    def reset(self, rng: jax.Array) -> BraxState:
        """The first state of an episode, from a raw or a typed key."""
        return self._shown(self._env.reset(typed_key(rng)), {}, {})

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        """The state after an action."""
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
        return self._shown(self._env.step(own, action), state.metrics, state.info)

    def _shown(self, state: State, metrics: dict[str, Any], info: dict[str, Any]) -> BraxState:
        """As brax's state, with what else was in `metrics` and `info`."""
        cost = by_name(state.info["cost"], self._cost_names)
        costs = cost if isinstance(cost, dict) else {"cost": cost}
        return BraxState(
            pipeline_state=state.pipeline_state,
            obs=state.obs,
            reward=state.reward,
            done=state.done,
            metrics={**metrics, **costs, **state.metrics},
            info={**info, **state.info},
        )

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self._env.observation_size

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self._env.action_size

    @property
    def backend(self) -> str:
        """For people: whose physics it is."""
        return "smpo_envs"


def restore_device_put_replicated() -> None:
    """Gives jax back what brax's trainers call, where it has none."""
    if not hasattr(jax, "device_put_replicated"):
        setattr(jax, "device_put_replicated", _device_put_replicated)  # noqa: B010 - jax has no such name


def _device_put_replicated(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The tree once on each device: its leaves get a leading axis, sharded over the devices."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))

    def put(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jax.device_put(jnp.broadcast_to(array, (len(devices), *array.shape)), sharding)

    return jax.tree.map(put, tree)
