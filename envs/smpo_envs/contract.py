"""Whether an environment keeps the contract of `SafeEnv`, told in plain words.

`check_shapes` looks at shapes and types only, which costs a trace, and is what every environment
passes on its way into a `VectorEnv`. `check_env` plays some steps besides; call it on an
environment of your own once, before training on it.
"""

import re
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from smpo_envs.safe_env import SafeEnv, State, kind, random_action

Tree = Any
VECTORS = (
    "; smpo_envs.as_safe_env(env) makes vectors of dictionaries and pictures, and smpo-jax does so "
    "by itself"
)


class Played(NamedTuple):
    """What `S` random steps of one environment gave."""

    obs: Float[np.ndarray, "S O"]
    cost: Float[np.ndarray, " S *K"]
    done: Float[np.ndarray, " S"]


def check_shapes(env: SafeEnv) -> tuple[str, ...]:
    """What the costs of an environment are called, if it is as the contract says.

    Observations are float vectors `[O]`, actions float vectors `[A]` (one-hot if `discrete`),
    `reward`, `done` and `info["cost"]` float scalars, and a step returns a state like the one it
    was given. Several costs are a float vector `[K]`, called as `cost_names` says, or else `cost_1`
    to `cost_K`.

    Raises:
        ValueError: a field that is not; the first.
    """
    first = _first(env)
    action = jax.ShapeDtypeStruct((env.action_size,), jnp.result_type(float))
    after = traced(f"step(state, action [{env.action_size}])", env.step, first, action)
    _check_state("step", env, after)
    before, now = (dict(jax.tree.leaves_with_path(state)) for state in (first, after))
    for path in [*before, *now]:
        field = f"state{jax.tree_util.keystr(path)}"
        if path not in before or path not in now:
            where = "step" if path in now else "reset"
            raise ValueError(f"{field}: only {where} has it; both must return the same fields")
        if _kind(before[path]) != _kind(now[path]):
            raise ValueError(
                f"{field}: reset returns {_kind(before[path])}, step {_kind(now[path])}; "
                "a step must return a state like the one it was given"
            )
    return _cost_names(env, first)


def _first(env: SafeEnv) -> Any:
    """The shapes of a state that an episode begins with; they are as they should be."""
    for size in ("observation_size", "action_size", "episode_length"):
        whole(size, getattr(env, size))
    kind(env)
    key = jax.eval_shape(lambda: jax.random.key(0))
    first = traced("reset(key)", env.reset, key)
    _check_state("reset", env, first)
    return first


def _cost_names(env: SafeEnv, first: Any) -> tuple[str, ...]:
    """What the costs are called, or a ValueError if that does not fit them."""
    shape = first.info["cost"].shape
    given = tuple(getattr(env, "cost_names", ()))
    if not shape:
        if len(given) > 1:
            raise ValueError(f"cost_names={given}: info['cost'] is a scalar, one cost")
        return ("cost",)
    number = shape[0]
    names = given or tuple(f"cost_{i + 1}" for i in range(number))
    if len(names) != number:
        raise ValueError(f"cost_names={names} are {len(names)}, but there are {number} costs")
    wrong = [name for name in names if not re.fullmatch(r"\w[\w.-]*", str(name))]
    if wrong or len(set(names)) < number:
        raise ValueError(
            f"cost_names={names} must differ, each of letters, digits, dots, dashes and underscores"
        )
    return names


def whole(name: str, value: Any) -> int:
    """The value as an int, or a ValueError if it is not a whole number of 1 or more."""
    try:
        number = int(value)
        if number == value and number >= 1:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")


def check_env(env: SafeEnv, *, steps: int = 200, seed: int = 0) -> str:
    """Plays an environment with random actions, and says what is wrong with it.

    Args:
        env: one environment.
        steps: how many are played, over as many episodes as that takes.
        seed: of episodes and actions.

    Returns:
        How its costs are counted, with what was seen, for people.

    Raises:
        ValueError: a field of another shape or type than the contract says; a cost that is negative
            or not finite; an observation or reward that is not finite; a key that is used twice.

    Warns:
        UserWarning: all episodes begin alike, or observations never change.
    """
    names = check_shapes(env)
    _check_keys(env)
    reset_key, other_key = jax.random.split(jax.random.key(seed))
    first, other = jax.jit(env.reset)(reset_key), jax.jit(env.reset)(other_key)
    obs, cost, done = check_values(env, steps=steps, seed=seed)
    if np.array_equal(first.obs, other.obs) and _same(first.pipeline_state, other.pipeline_state):
        warnings.warn("reset gives the same state for different keys", stacklevel=2)
    if steps > 1 and np.all(obs == obs[:1]):
        warnings.warn("observations never change", stacklevel=2)
    episodes = int(np.sum(done > 0))
    seen = [
        f"{name} {own.mean():.3g} a step, {np.mean(own > 0):.0%} of them above 0"
        for name, own in zip(names, cost.reshape(steps, -1).T, strict=True)
    ]
    return (
        f"The cost of an episode is the plain sum of info['cost'] over its steps, undiscounted, up "
        f"to and with the last one. In {steps} steps of random actions: {', '.join(seen)}; "
        f"{episodes} episodes terminated. An episode that does not is cut after "
        f"{env.episode_length} steps."
    )


def check_values(env: SafeEnv, *, steps: int = 200, seed: int = 0) -> Played:
    """Plays some steps with random actions; the costly half of it is to compile a step.

    Args:
        env: one environment that passes `check_shapes`.
        steps: how many are played, over as many episodes as that takes.
        seed: of episodes and actions.

    Raises:
        ValueError: a cost that is negative or not finite; an observation or reward that is not.
    """
    obs, reward, cost, done = jax.tree.map(np.asarray, _play(env, jax.random.key(seed), steps))
    for name, values in (("obs", obs), ("reward", reward), ("info['cost']", cost)):
        bad = np.flatnonzero(~np.isfinite(values.reshape(steps, -1)).all(axis=1))
        if bad.size:
            raise ValueError(f"{name} is not finite after step {bad[0] + 1}: {values[bad[0]]}")
    if np.any(cost < 0):
        least = cost.reshape(steps, -1).min(axis=1)
        at = int(np.argmax(least < 0))
        raise ValueError(
            f"info['cost'] is {least[at]:g} after step {at + 1}; costs must be 0 or more "
            "(give what is earned as reward)"
        )
    return Played(obs, cost, done)


def _check_keys(env: SafeEnv) -> None:
    """Raises a ValueError if an episode's beginning draws from a key more than once."""

    def two_steps(key: jax.Array) -> State:
        action = jnp.zeros(env.action_size)
        return env.step(env.step(env.reset(key), action), action)

    try:
        with jax.debug_key_reuse(True):
            jax.jit(two_steps)(jax.random.key(0))
    except jax.errors.KeyReuseError as error:
        raise ValueError(f"a key is used twice: {str(error).splitlines()[0]}") from error


def _play(env: SafeEnv, key: jax.Array, steps: int) -> Tree:
    """Observations, rewards, costs and ends of steps with random actions."""

    def step(state, key):
        action_key, reset_key = jax.random.split(key)
        action = random_action(env, action_key)
        after = env.step(state, action)
        fresh = env.reset(reset_key)
        is_over = after.done > 0
        state = jax.tree.map(lambda x, y: jnp.where(is_over, x, y), fresh, after)
        return state, (after.obs, after.reward, after.info["cost"], after.done)

    @jax.jit
    def play(key):
        first_key, key = jax.random.split(key)
        return jax.lax.scan(step, env.reset(first_key), jax.random.split(key, steps))[1]

    return play(key)


def _check_state(what: str, env: SafeEnv, state: Any) -> None:
    if not isinstance(state, State) and not all(
        hasattr(state, name) for name in ("obs", "reward", "done", "info")
    ):
        raise ValueError(f"{what} must return a State, got {type(state).__name__}")
    size = env.observation_size
    words = f"a float vector of observation_size={size}"
    _require(f"{what}: obs", state.obs, (size,), words, VECTORS)
    _require(f"{what}: reward", state.reward, (), "a float scalar")
    _require(f"{what}: done", state.done, (), "a float scalar, 0 or 1")
    if "cost" not in state.info:
        known = ", ".join(map(repr, state.info)) or "nothing"
        raise ValueError(f"{what}: info['cost'] is missing; info has {known}")
    cost = state.info["cost"]
    number = cost.shape if len(getattr(cost, "shape", ())) == 1 and cost.shape[0] > 1 else ()
    words = "a float scalar, 0 or more, or a float vector of two or more costs"
    _require(f"{what}: info['cost']", cost, number, words)


def _require(field: str, value: Any, shape: tuple[int, ...], words: str, remedy: str = "") -> None:
    is_array = isinstance(value, jax.ShapeDtypeStruct)
    if is_array and value.shape == shape and jnp.issubdtype(value.dtype, jnp.floating):
        return
    found = _kind(value) if is_array else f"a {type(value).__name__}"
    raise ValueError(f"{field}: expected {words}, got {found}{remedy}")


def traced(what: str, function: Any, *arguments: Any) -> Any:
    """`jax.eval_shape` with what goes wrong in one line.

    Raises:
        ValueError: the function failed; `what` is blamed.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} failed: {type(error).__name__}: {reason[:300]}") from error


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def _same(a: Tree, b: Tree) -> bool:
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(data(x), data(y)) for x, y in pairs)
