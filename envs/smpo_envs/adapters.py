"""Any environment of JAX's as a `SafeEnv`: the one place that tells the kinds of them apart."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.contract import traced
from smpo_envs.from_brax import from_brax
from smpo_envs.from_gymnax import from_gymnax
from smpo_envs.observations import layout
from smpo_envs.safe_env import Environment, SafeEnv, State, kind

NEEDED = (
    "it needs reset(key), step(state, action), action_size, and a cost in the state's info "
    "(see envs/README.md)"
)


def as_safe_env(env: Any, *, episode_length: int | None = None) -> SafeEnv:
    """The environment under our contract, with vectors for observations.

    Of a dictionary, or another tree of arrays, the parts are put one after the other, by sorted key
    (`observation_names` tells how); of a picture `[H, W, C]` the entries (`observation_shape`).

    Args:
        env: a `SafeEnv`, one of brax's contract (brax, mujoco_playground), one in gymnax's style,
            or `(env, params)` as `gymnax.make` returns them.
        episode_length: the time limit in place of its own.

    Raises:
        ValueError: it is no such thing; in one line, what it lacks.
    """
    params = None
    if isinstance(env, tuple) and len(env) == 2 and _is_gymnax(env[0]):
        env, params = env
    if isinstance(env, type):
        raise ValueError(f"{env.__name__} is a class: give an object of it")
    if _is_gymnax(env):
        return from_gymnax(env, params, episode_length=episode_length)
    if hasattr(env, "num_envs"):
        raise ValueError(
            f"{type(env).__name__} is many environments: give one; num_envs says how many there are"
        )
    if hasattr(env, "observation_space") and hasattr(env, "action_space"):
        raise ValueError(
            f"{type(env).__name__} looks like an environment of Gymnasium's: register it there and "
            "name it gymnasium:MODULE:ID"
        )
    missing = [name for name in ("reset", "step", "action_size") if not hasattr(env, name)]
    if missing:
        raise ValueError(
            f"{type(env).__name__} is no environment, it has no {missing[0]}: {NEEDED}"
        )
    key = jax.eval_shape(lambda: jax.random.key(0))
    if not isinstance(traced("reset(key)", env.reset, key), State):
        own = getattr(env, "episode_length", None)
        return from_brax(env, episode_length=episode_length or own)
    return flattened(with_episode_length(env, episode_length))


def flattened(env: SafeEnv) -> SafeEnv:
    """The environment with vectors for observations that are pictures or of several parts.

    Itself if they are vectors already.

    Raises:
        ValueError: they are neither.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = traced("reset(key)", env.reset, key).obs
    if len(getattr(obs, "shape", ())) == 1:
        return env
    own = layout("reset", obs)

    def shown(state: State) -> State:
        return state.replace(obs=own.flatten(state.obs))

    def reset(key: PRNGKeyArray) -> State:
        return shown(env.reset(key))

    def step(state: State, action: Float[Array, " A"]) -> State:
        return shown(env.step(state.replace(obs=own.restore(state.obs)), action))

    whole = as_value(env)
    return dataclasses.replace(
        whole,
        reset=reset,
        step=step,
        observation_size=own.size,
        observation_names=own.names,
        observation_shape=own.shape,
    )


def as_value(env: SafeEnv) -> Environment:
    """The environment as an `Environment`, with all that it says of itself."""
    if isinstance(env, Environment):
        return env
    return Environment(
        env.reset,
        env.step,
        getattr(env, "observation_size", 0),
        env.action_size,
        env.episode_length,
        getattr(env, "drawing", None),
        getattr(env, "shift", None),
        tuple(getattr(env, "cost_names", ())),
        *kind(env),
    )


def with_episode_length(env: Any, episode_length: int | None) -> SafeEnv:
    """The environment with another time limit.

    Raises:
        ValueError: it has none of its own and none is given, or one below 1.
    """
    own = getattr(env, "episode_length", None)
    steps = own if episode_length is None else episode_length
    if steps is None:
        raise ValueError(f"{type(env).__name__} has no episode_length: give one")
    if steps < 1:
        raise ValueError(f"episode_length={steps} must be at least 1")
    if steps == own:
        return env
    return dataclasses.replace(as_value(env), episode_length=steps)


def _is_gymnax(env: Any) -> bool:
    return all(hasattr(env, name) for name in ("reset_env", "step_env", "default_params"))
