"""Environments of brax's contract, mujoco_playground's too, as ours; brax isn't imported.

What is asked of one: `reset(key)` and `step(state, action)` that return a state with `obs`,
`reward`, `done`, `info` and `metrics`, and `action_size`. Its whole state travels in our
`pipeline_state`, whatever else it has.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.contract import traced
from smpo_envs.observations import layout
from smpo_envs.safe_env import Environment, State, kind

EPISODE_LENGTH = 1000  # brax's own
# What brax's and mujoco_playground's wrappers leave in `info`.
WRAPPED = {"first_obs", "first_pipeline_state", "first_state", "truncation"}

CostOf = Callable[[Any], Float[Array, ""]]


def from_brax(
    env: Any, *, episode_length: int | None = None, cost: str | CostOf | None = None
) -> Environment:
    """The environment under our contract; actions are clipped to [-1, 1].

    Args:
        env: a bare one, `brax.envs.get_environment(name)`: without brax's wrappers, which count
            the time limit as an end and play the first layout for ever.
        episode_length: the time limit in steps; unless given, 1000.
        cost: where a step's cost is: "info.NAME", "metrics.NAME", or a function of the state after
            the step such as `velocity_cost`. Unless given, "cost" in `info` or else in `metrics`.
            Several, each with a limit: "info.A,metrics.B", called A and B; a function may return a
            vector.

    Raises:
        ValueError: it has wrappers, no cost there, or observations that can be no vector.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    first = traced("reset(key)", env.reset, key)
    _check(first)
    seen = layout("reset", first.obs)
    places = split_places(cost)
    cost_of = cost if callable(cost) else several([_read(first, place) for place in places])

    def shown(own: Any) -> State:
        own = with_types(own, first)
        reward, done, charged = (
            jnp.asarray(x, jnp.result_type(float)) for x in (own.reward, own.done, cost_of(own))
        )
        return State(
            own,
            seen.flatten(own.obs),
            reward,
            done,
            metrics=dict(own.metrics),
            info={"cost": charged},
        )

    def reset(key: PRNGKeyArray) -> State:
        return shown(env.reset(key))

    def step(state: State, action: Float[Array, " A"]) -> State:
        before = jax.tree.map(lambda leaf: leaf, state.pipeline_state)  # brax writes into its dicts
        return shown(env.step(before, jnp.clip(action, -1.0, 1.0)))

    return Environment(
        reset,
        step,
        seen.size,
        int(env.action_size),
        episode_length or EPISODE_LENGTH,
        cost_names=names_of_places(places) or tuple(getattr(env, "cost_names", ())),
        discrete=kind(env).discrete,
        observation_names=seen.names,
        observation_shape=seen.shape,
    )


def split_places(cost: Any) -> list[Any]:
    """Where each cost is, in a text or a list; an only one that is no text as it is."""
    if isinstance(cost, str):
        return [place.strip() for place in cost.split(",")]
    return list(cost) if isinstance(cost, list | tuple) else [cost]


def names_of_places(places: Sequence[Any]) -> tuple[str, ...]:
    """What costs are called by where they are; nothing for one."""
    return tuple(str(place).partition(".")[2] for place in places) if len(places) > 1 else ()


def several(costs: Sequence[CostOf]) -> CostOf:
    """A function that gives all of them as a vector; the only one as it is."""
    if len(costs) == 1:
        return costs[0]
    dtype = jnp.result_type(float)
    return lambda state: jnp.stack([jnp.asarray(cost(state), dtype) for cost in costs])


def velocity_cost(threshold: float, *, planar: bool) -> CostOf:
    """1 where the robot is faster than a threshold (m/s), as Safety-Gymnasium's velocity tasks are.

    Args:
        threshold: as published, see `brax_tasks.VELOCITY_TASKS`.
        planar: the speed in the plane is meant, and not the velocity along x.
    """

    def cost(state: Any) -> Float[Array, ""]:
        velocity = state.metrics["x_velocity"]
        if planar:
            velocity = jnp.hypot(velocity, state.metrics["y_velocity"])
        return jnp.asarray(velocity > threshold, jnp.result_type(float))

    return cost


def with_types(state: Any, like: Any) -> Any:
    """The state with leaves of the types of another: some hold plain numbers, or change types."""

    def typed(leaf: Any, wanted: Any) -> jax.Array:
        if jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
            return leaf
        return jnp.asarray(leaf, wanted.dtype)

    same_fields = jax.tree.structure(state) == jax.tree.structure(like)  # else it is told of later
    return jax.tree.map(typed, state, like) if same_fields else state


def _check(first: Any) -> None:
    for name in ("obs", "reward", "done", "info", "metrics"):
        if not hasattr(first, name):
            raise ValueError(f"reset must return a state with {name}, got {type(first).__name__}")
    wrapped = sorted(WRAPPED & set(first.info))
    if wrapped:
        raise ValueError(
            f"it resets or cuts episodes by itself (info has {wrapped[0]!r}): give the bare "
            "environment, as brax.envs.get_environment(name) makes it, and a time limit besides"
        )


def _read(first: Any, place: str | None) -> CostOf:
    """The function that reads a cost from there."""
    groups = {"info": dict(first.info), "metrics": dict(first.metrics)}
    known = ", ".join(f"{name}.{key}" for name in groups for key in groups[name]) or "none"
    if place is None:
        group = next((name for name, values in groups.items() if "cost" in values), None)
        if group is None:
            raise ValueError(
                "it has no cost in info or metrics; say where it is, cost=metrics.NAME or "
                f"cost=info.NAME (there are {known})"
            )
        name = "cost"
    else:
        group, _, name = str(place).partition(".")
        if name not in groups.get(group, {}):
            raise ValueError(f"cost={place}: there is no such value; there are {known}")
    return lambda state: getattr(state, group)[name]
