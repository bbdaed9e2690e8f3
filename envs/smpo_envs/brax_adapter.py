"""Our environments as `brax.envs.Env`, for brax's own trainers. The only module to import brax."""

from typing import Any

import jax
from brax.envs.base import Env
from brax.envs.base import State as BraxState

from smpo_envs.safe_env import SafeEnv, State


def to_brax(env: SafeEnv) -> Env:
    """The same environment behind brax's interface; the cost stays in `info["cost"]`.

    brax's trainers know nothing of costs, and their auto-reset plays the first layout of each
    environment for ever: use `VectorEnv` for fresh ones.
    """
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
