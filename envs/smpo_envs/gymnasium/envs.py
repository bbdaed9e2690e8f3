"""Our environments under Gymnasium's interfaces, one and many; the arrays are NumPy's."""

import enum
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector.utils import batch_space
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from smpo_envs import compilation
from smpo_envs.contract import check_shapes
from smpo_envs.drawing import Drawing
from smpo_envs.naming import find, make
from smpo_envs.picture import picture
from smpo_envs.safe_env import SafeEnv, State
from smpo_envs.step import by_name
from smpo_envs.vector_env import VectorEnv, VectorState

Info = dict[str, Any]

IS_029 = gymnasium.__version__.startswith("0.")
HAS_MODES = not gymnasium.__version__.startswith(("0.", "1.0."))
# What Gymnasium calls an episode's last observation, newest name first: code finds both.
FINAL_OBS = ("final_obs",) if HAS_MODES else ("final_obs", "final_observation")

PROCESS = os.getpid()  # where JAX works; not in what is forked from it

_vector: Any = gymnasium.vector  # whose names and signatures depend on the version


class AutoresetMode(enum.Enum):
    """When the next episode begins; with the values of what Gymnasium 1.1 calls so."""

    NEXT_STEP = "NextStep"
    SAME_STEP = "SameStep"


# What Gymnasium's own vectors do unless told otherwise.
DEFAULT_MODE = AutoresetMode.SAME_STEP if IS_029 else AutoresetMode.NEXT_STEP


class GymnasiumEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment, with the cost of a step in `info["cost"]`, and its metrics beside it.

    Of an environment with several costs it is the vector `[K]` of them, of many `[N, K]`.

    Actions are of -1 to 1. Episodes are cut, as `truncated`, after the environment's own
    `episode_length`. With a seed, episodes are those of the vector's first environment.

    Args:
        env: a name, as in `smpo_envs.make`, or an environment.
        six_values: a step returns `obs, reward, cost, terminated, truncated, info`, as
            Safety-Gymnasium's do. Gymnasium's wrappers know five only.
        render_mode: "rgb_array", the view from above.
        options: for `smpo_envs.make`, such as `episode_length`.

    Raises:
        ValueError: there is no such environment, or it cannot be drawn.
        RuntimeError: this process was forked from one that has JAX, where it would wait for ever.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own; one's is its own

    def __init__(
        self,
        env: str | SafeEnv,
        *,
        six_values: bool = False,
        render_mode: str | None = None,
        **options: Any,
    ):
        if os.getpid() != PROCESS:
            raise RuntimeError(
                "JAX cannot be used in a forked process: make many with make_vec(..., "
                'vectorization_mode="custom"), or processes by context="spawn"'
            )
        self._env = _task(env, options)
        self._six_values, self.render_mode = six_values, render_mode
        self._drawing = _drawing(self._env, render_mode)
        self.metadata = _metadata(self._env)
        self.observation_space, self.action_space = _spaces(self._env)
        self._reset, self._step = _single(self._env)
        self._key: PRNGKeyArray | None = None
        self._state: State | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """The first observation of an episode; without a seed, of the next of its stream."""
        super().reset(seed=seed)
        del options
        if seed is not None or self._key is None:
            entropy = int(self.np_random.integers(2**32)) if seed is None else seed
            self._key = jax.random.key(np.uint32(entropy % 2**32))
        self._key, self._state, seen = self._reset(self._key)
        self._steps = 0
        obs, _, _, info = _on_host(seen)
        return obs, _plain(info)

    def step(self, action: np.ndarray) -> Any:
        """What an action leads to.

        Raises:
            ValueError: the action has another shape.
            gymnasium.error.ResetNeeded: there is no episode yet.
        """
        action = _checked(action, self.action_space)
        self._state, seen = self._step(_begun(self._state), action)
        self._steps += 1
        obs, reward, done, info = _on_host(seen)
        terminated = bool(done > 0)
        truncated = self._steps >= self._env.episode_length and not terminated
        info = _plain(info)
        if self._six_values:
            return obs, float(reward), info["cost"], terminated, truncated, info
        return obs, float(reward), terminated, truncated, info

    def render(self) -> Any:
        """The view from above, `[400, 400, 3]`; None without a render mode."""
        if self._drawing is None:
            return None
        poses = self._drawing.poses(_begun(self._state).pipeline_state)
        return picture(self._drawing, jax.device_get(poses))


class GymnasiumVectorEnv(_vector.VectorEnv):
    """Many environments that one compiled program steps; `info["cost"]` is `[N]`.

    `reward`, `terminated`, `truncated` and what `info` tells are always of the step just made. With
    a seed of `s`, the episodes of environment `i` are those that one alone has with `s + i`.

    Args:
        env: a name, as in `smpo_envs.make`, or an environment.
        num_envs: how many.
        autoreset_mode: when the next episode begins. "SameStep": with the step that ends one, whose
            last observation is in `info["final_obs"]` (`final_observation`, too, before 1.1).
            "NextStep": with the step after it, whose action has no effect, and whose reward and
            cost are 0. Unless given, what the installed Gymnasium's own do: the former in 0.29, the
            latter since.
        six_values: see `GymnasiumEnv`.
        render_mode: "rgb_array", the views from above.
        max_episode_steps: the time limit, as `gymnasium.make_vec` calls it.
        options: for `smpo_envs.make`.

    Raises:
        ValueError: as for `GymnasiumEnv`, or there is no such mode.
    """

    is_vector_env = True  # asked for by wrappers of Gymnasium 0.29
    viewer = None  # that which its `close` closes

    def __init__(
        self,
        env: str | SafeEnv,
        num_envs: int,
        *,
        autoreset_mode: str | enum.Enum | None = None,
        six_values: bool = False,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **options: Any,
    ):
        if max_episode_steps is not None:
            options["episode_length"] = max_episode_steps
        task = _task(env, options)
        self._mode = _mode(autoreset_mode)
        self._six_values, self.render_mode = six_values, render_mode
        self._drawing = _drawing(task, render_mode)
        theirs = _vector.AutoresetMode(self._mode.value) if HAS_MODES else self._mode
        self.metadata = {**_metadata(task), "autoreset_mode": theirs}
        self._native = VectorEnv(task, num_envs, stagger=False)
        self.num_envs = self._native.num_envs
        self.single_observation_space, self.single_action_space = _spaces(task)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._reset, self._step = _many(self._native, self._mode)
        self._state: VectorState | None = None
        self._is_over = np.zeros(self.num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, Info]:
        """The first observations `[N, O]` of new episodes in all environments.

        Args:
            seed: of the first one, the others' following, or one for each; without, streams go on.
            options: none are known.

        Raises:
            ValueError: the seeds are not as many as the environments.
        """
        if options and "reset_mask" in options:
            raise ValueError("reset_mask: environments begin their next episode by themselves")
        if seed is None and self._state is not None:
            keys = self._state.key
        else:
            keys = jax.vmap(jax.random.key)(self._seeds(seed))
        self._state, seen = self._reset(keys)
        self._is_over = np.zeros(self.num_envs, bool)
        obs, info = _on_host(seen)
        return obs, self._batched(info)

    def step(self, actions: np.ndarray) -> Any:
        """What actions `[N, A]` lead to.

        Raises:
            ValueError: they have another shape.
            gymnasium.error.ResetNeeded: there are no episodes yet.
        """
        actions = _checked(actions, self.action_space)
        self._state, seen = self._step(_begun(self._state), self._is_over, actions)
        obs, successor, reward, terminated, truncated, info = _on_host(seen)
        terminated, truncated = terminated > 0, truncated > 0
        self._is_over = terminated | truncated
        infos = self._batched(info)
        if self._mode is AutoresetMode.SAME_STEP:
            for i in np.flatnonzero(self._is_over):
                last = _plain({name: values[i] for name, values in info.items()})
                final = {"final_info": last, **dict.fromkeys(FINAL_OBS, successor[i])}
                infos = self._add_info(infos, final, int(i))
        reward = reward.astype(np.float64)
        if self._six_values:
            return obs, reward, infos["cost"], terminated, truncated, infos
        return obs, reward, terminated, truncated, infos

    def render(self) -> tuple[UInt8[np.ndarray, "H W 3"], ...] | None:
        """The view of each from above; None without a render mode."""
        if self._drawing is None:
            return None
        poses = jax.device_get(
            jax.vmap(self._drawing.poses)(_begun(self._state).env.pipeline_state)
        )
        return tuple(
            picture(self._drawing, {kind: places[i] for kind, places in poses.items()})
            for i in range(self.num_envs)
        )

    def close_extras(self, **kwargs: Any) -> None:
        """There is nothing to close."""

    def _seeds(self, seed: int | Sequence[int] | None) -> np.ndarray:
        if seed is None:
            return np.random.SeedSequence().generate_state(self.num_envs)
        if isinstance(seed, int | np.integer):
            self._np_random, self._np_random_seed = seeding.np_random(int(seed))
            seed = [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: got {len(seed)} for num_envs={self.num_envs}: give one each")
        for one in seed:
            seeding.np_random(one)  # which says what is wrong with it
        return np.array([int(one) % 2**32 for one in seed], np.uint32)

    def _batched(self, info: dict[str, np.ndarray]) -> Info:
        """Of Gymnasium's form: beside each array `[N]` which environments it is of; of all."""
        infos = {}
        for name, values in info.items():
            infos[name] = values.astype(np.float64)
            infos[f"_{name}"] = np.ones(self.num_envs, bool)
        return infos


class Single(NamedTuple):
    """What a step of one shows."""

    obs: Float[Array, " O"]
    reward: Float[Array, ""]
    done: Float[Array, ""]
    info: dict[str, jax.Array]


def _task(env: str | SafeEnv, options: dict[str, Any]) -> SafeEnv:
    if isinstance(env, str):
        return _named(env, tuple(sorted(options.items())))
    if options:
        raise ValueError(f"an environment is given: it takes no options, got {', '.join(options)}")
    check_shapes(env)
    return env


@lru_cache(maxsize=16)  # so that environments that are alike are compiled once
def _named(name: str, options: tuple[tuple[str, Any], ...]) -> SafeEnv:
    env = make(name, **dict(options))
    if not find(name).is_native:
        check_shapes(env)
    return env


@lru_cache(maxsize=16)
def _single(env: SafeEnv) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled reset and step of one."""
    names = check_shapes(env)

    def seen(state: State) -> Single:
        return Single(state.obs, state.reward, state.done, _told(state, names))

    def reset(key: PRNGKeyArray) -> tuple[PRNGKeyArray, State, Single]:
        reset_key, next_key = jax.random.split(key)
        state = env.reset(reset_key)
        return next_key, state, seen(state)

    def step(state: State, action: Float[Array, " A"]) -> tuple[State, Single]:
        after = env.step(state, action)
        return after, seen(after)

    return _jit(reset), _jit(step)


def _many(native: VectorEnv, mode: AutoresetMode) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled reset and step of many."""

    def reset(keys: PRNGKeyArray) -> tuple[VectorState, Any]:
        state = native.reset_each(keys)
        return state, (state.obs, _told(state.env, native.cost_names))

    def step(state: VectorState, was_over: jax.Array, action: jax.Array) -> tuple[VectorState, Any]:
        after, seen = native.step(state, action)
        told = _told(after.env, native.cost_names)
        if mode is AutoresetMode.SAME_STEP:
            shown = (after.obs, seen.next_obs, seen.reward, seen.terminated, seen.truncated, told)
            return after, shown

        def only_where(is_so: jax.Array, then: Any, otherwise: Any) -> Any:
            def choose(x: jax.Array, y: jax.Array) -> jax.Array:
                return jnp.where(is_so.reshape(-1, *[1] * (x.ndim - 1)), x, y)

            return jax.tree.map(choose, then, otherwise)

        # Where an episode has ended with the last step, the next one waits in its first state.
        after = only_where(was_over, state, after)
        seen, told = only_where(was_over, jax.tree.map(jnp.zeros_like, (seen, told)), (seen, told))
        is_over = seen.terminated + seen.truncated != 0
        obs = only_where(is_over, seen.next_obs, after.obs)
        return after, (obs, seen.next_obs, seen.reward, seen.terminated, seen.truncated, told)

    return _jit(reset), _jit(step)


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=compilation.options())


def _told(state: State, cost_names: Sequence[str]) -> dict[str, jax.Array]:
    """What `info` says; of several costs each as `cost_NAME`, and their sum as `cost`."""
    cost = state.info["cost"]
    if len(cost_names) == 1:
        return {"cost": cost, **state.metrics}
    own = {f"cost_{name}": value for name, value in by_name(cost, cost_names).items()}
    return {"cost": jnp.sum(cost, axis=-1), **own, **state.metrics}


def _spaces(env: SafeEnv) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Of observations, which have no bounds, and of actions."""
    dtype = np.dtype(jnp.result_type(float))
    return (
        gymnasium.spaces.Box(-np.inf, np.inf, (env.observation_size,), cast(Any, dtype.type)),
        gymnasium.spaces.Box(-1.0, 1.0, (env.action_size,), cast(Any, dtype.type)),
    )


def _metadata(env: SafeEnv) -> dict[str, Any]:
    drawing = getattr(env, "drawing", None)
    if drawing is None:
        return {"render_modes": []}
    return {"render_modes": ["rgb_array"], "render_fps": round(1 / drawing.step_seconds)}


def _drawing(env: SafeEnv, render_mode: str | None) -> Drawing | None:
    """How to draw it; None if that is not asked for."""
    if render_mode is None:
        return None
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode={render_mode!r}: there is rgb_array alone")
    drawing = getattr(env, "drawing", None)
    if drawing is None:
        raise ValueError("render_mode=rgb_array: the environment has no drawing")
    return drawing


def _mode(mode: str | enum.Enum | None) -> AutoresetMode:
    if mode is None:
        return DEFAULT_MODE
    value = mode.value if isinstance(mode, enum.Enum) else mode
    try:
        return AutoresetMode(value)
    except ValueError:
        known = " and ".join(known.value for known in AutoresetMode)
        raise ValueError(f"autoreset_mode={value!r}: there are {known}") from None


def _begun(state: Any) -> Any:
    if state is None:
        raise gymnasium.error.ResetNeeded("call reset() before anything else")
    return state


def _checked(action: Any, space: gymnasium.Space) -> np.ndarray:
    action = np.asarray(action, space.dtype)
    if action.shape != space.shape:
        raise ValueError(
            f"action: got shape {list(action.shape)}, expected {list(space.shape or ())}"
        )
    return action


def _on_host(seen: Any) -> Any:
    """As arrays of NumPy that may be written to."""
    return jax.tree.map(np.array, jax.device_get(seen))


def _plain(info: dict[str, np.ndarray]) -> Info:
    """Of one: numbers, but for several costs, which are a vector."""
    return {
        name: value.astype(np.float64) if value.ndim else float(value)
        for name, value in info.items()
    }
