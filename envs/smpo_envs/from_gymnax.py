"""Environments in gymnax's style as ours; gymnax isn't imported.

What is asked of one: `reset_env(key, params) -> (obs, state)` and `step_env(key, state, action,
params) -> (obs, state, reward, done, info)`, which do not reset by themselves, `default_params` and
`action_space(params)`. (gymnax's `step` resets, and loses the true successor of the last step.)
Versions 0.0.x and 1.0 of gymnax are such, and what is written after them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smpo_envs.contract import traced
from smpo_envs.from_brax import names_of_places, several, split_places, with_types
from smpo_envs.observations import layout
from smpo_envs.safe_env import Environment, State

CostOf = Callable[[dict[str, Any]], Float[Array, ""]]


class GymnaxState(NamedTuple):
    """The `pipeline_state`: the environment's own, the key for steps to come, and steps made."""

    own: Any
    key: PRNGKeyArray
    steps: Int[Array, ""]


def from_gymnax(
    env: Any,
    params: Any = None,
    *,
    episode_length: int | None = None,
    cost: str | CostOf = "info.cost",
) -> Environment:
    """The environment under our contract: actions of [-1, 1] are scaled to its bounds.

    Those of a space with `n` choices are one-hot, and the environment is given the index.

    An end at the time limit is a truncation, also where the environment's `done` does not tell the
    two apart.

    Args:
        env: with continuous or discrete actions.
        params: of the environment; unless given, its default.
        episode_length: the time limit; unless given, `params.max_steps_in_episode`.
        cost: where a step's cost is, "info.NAME", or a function of `info`; of several,
            "info.A,info.B".

    Raises:
        ValueError: other actions or observations, no time limit, or no cost there.
    """
    params = env.default_params if params is None else params
    if episode_length is None:
        episode_length = getattr(params, "max_steps_in_episode", None)
        if episode_length is None:
            raise ValueError("it has no params.max_steps_in_episode: give episode_length")
    elif hasattr(params, "max_steps_in_episode"):
        replace = getattr(params, "replace", None) or params._replace
        params = replace(max_steps_in_episode=episode_length)
    limit = int(episode_length)
    actions = _actions(env.action_space(params))
    key = jax.eval_shape(lambda: jax.random.key(0))
    first_obs, first = traced("reset_env(key, params)", lambda key: env.reset_env(key, params), key)
    seen = layout("reset_env", first_obs)
    places = split_places(cost)
    cost_of = cost if callable(cost) else several([_read(place) for place in places])
    names = names_of_places(places) or tuple(getattr(env, "cost_names", ()))

    def shown(own: Any, key: PRNGKeyArray, steps: Any, obs: Any, *scalars: Any) -> State:
        own = with_types(own, first)
        reward, done, charged = (jnp.asarray(x, jnp.result_type(float)) for x in scalars)
        state = GymnaxState(own, key, jnp.asarray(steps, jnp.int32))
        return State(state, seen.flatten(obs), reward, done, info={"cost": charged})

    def reset(key: PRNGKeyArray) -> State:
        reset_key, next_key = jax.random.split(key)
        obs, own = env.reset_env(reset_key, params)
        return shown(own, next_key, 0, obs, 0.0, 0.0, jnp.zeros((len(names),) if names else ()))

    def step(state: State, action: Float[Array, " A"]) -> State:
        own, key, steps = state.pipeline_state
        step_key, next_key = jax.random.split(key)
        taken = actions.taken(action)
        obs, own, reward, done, info = env.step_env(step_key, own, taken, params)
        terminated = jnp.where(steps + 1 < limit, done, False)
        return shown(own, next_key, steps + 1, obs, reward, terminated, cost_of(info))

    return Environment(
        reset,
        step,
        seen.size,
        actions.size,
        limit,
        cost_names=names,
        discrete=actions.discrete,
        observation_names=seen.names,
        observation_shape=seen.shape,
    )


class _Actions(NamedTuple):
    """A space of actions.

    Attributes:
        size: entries of an action of ours.
        discrete: it is one-hot.
        taken: an action of ours as the environment takes it.
    """

    size: int
    discrete: bool
    taken: Callable[[Float[Array, " A"]], jax.Array]


def _actions(space: Any) -> _Actions:
    has_bounds = hasattr(space, "low") and hasattr(space, "high") and hasattr(space, "shape")
    if hasattr(space, "n") and not has_bounds:
        return _Actions(int(space.n), True, lambda action: jnp.argmax(action).astype(jnp.int32))
    if not has_bounds:
        raise ValueError(
            f"its actions are {type(space).__name__}; only vectors (Box) and choices (Discrete) "
            "can be trained"
        )
    low, high = _bounds(space)

    def scaled(action: Float[Array, " A"]) -> Float[Array, " A"]:
        return low + (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)

    return _Actions(low.shape[0], False, scaled)


def _bounds(space: Any) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
    if len(space.shape) != 1:
        raise ValueError(f"its actions have shape {list(space.shape)}; expected a vector")
    low, high = (
        jnp.broadcast_to(jnp.asarray(x, jnp.result_type(float)), space.shape)
        for x in (space.low, space.high)
    )
    if not bool(jnp.all(jnp.isfinite(low) & jnp.isfinite(high) & (low < high))):
        raise ValueError(f"its actions must have finite bounds, got {low} and {high}")
    return low, high


def _read(place: str) -> CostOf:
    group, _, name = place.partition(".")
    if group != "info" or not name:
        raise ValueError(f"cost={place}: expected info.NAME")

    def cost(info: dict[str, Any]) -> Float[Array, ""]:
        if name not in info:
            known = ", ".join(info) or "nothing"
            raise ValueError(f"it has no cost: info[{name!r}] is missing; info has {known}")
        return info[name]

    return cost
