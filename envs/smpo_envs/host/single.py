"""One environment outside JAX as a worker steps it, whichever package it comes from.

A `Maker` names a function of this module and its arguments: plain data that travels to a worker. No
jax in here.
"""

import contextlib
import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from smpo_envs.host import camera
from smpo_envs.host.compat import import_safety_gymnasium, leave_out_the_sky, log_to_stderr

Cost = Callable[[Any, Any, Any, Mapping[str, Any]], Any]  # a number, or several
# Observation, reward, cost (of several a vector), terminated, truncated.
Outcome = tuple[np.ndarray, float, float | np.ndarray, bool, bool]

LARGEST_OBSERVATION = 100_000


class Sizes(NamedTuple):
    """What one environment is like.

    Attributes:
        observation: length of an observation.
        action: length of an action; number of choices.
        episode_length: the limit that it keeps by itself, if any.
        cost_names: what each of its costs is called.
        discrete: actions are one-hot.
        first_action: what the environment calls the first choice.
        observation_names: of the parts of an observation, in order; () if it is of one.
        observation_shape: of a picture; () for vectors.
    """

    observation: int
    action: int
    episode_length: int | None
    cost_names: tuple[str, ...] = ("cost",)
    discrete: bool = False
    first_action: int = 0
    observation_names: tuple[str, ...] = ()
    observation_shape: tuple[int, ...] = ()


class HostEnv(NamedTuple):
    """One environment, flat and without units: what a policy sees and gives.

    Attributes:
        sizes: of its vectors.
        reset: `seed -> obs [O]`; None lets its random stream go on.
        step: `action [A] -> (obs, reward, cost, terminated, truncated)`. Actions are of -1 to 1,
            clipped, and stretched to the bounds of the environment's own; of discrete ones the
            largest entry is the choice.
        picture: how it looks now, `[H, W, 3]`.
        env: as its package made it.
    """

    sizes: Sizes
    reset: Callable[[int | None], Float[np.ndarray, " O"]]
    step: Callable[[Float[np.ndarray, " A"]], Outcome]
    picture: Callable[[], UInt8[np.ndarray, "H W 3"]]
    env: Any


class Maker(NamedTuple):
    """How to make an environment: a function of this module, and what it takes."""

    function: str
    arguments: Mapping[str, Any]

    def make(self, *, films: bool = False) -> HostEnv:
        """A new one; `films` says whether pictures will be taken of it."""
        return MAKERS[self.function](**self.arguments, films=films)


def safety_gymnasium(task_id: str, *, films: bool = False) -> HostEnv:
    """An environment of the real Safety-Gymnasium, which can be filmed as it is.

    Raises:
        ImportError: the package is not there; says what to run.
        ValueError: it has no such task, or one that cannot be trained in.
    """
    del films
    package = import_safety_gymnasium()
    _check_real(task_id, importlib.import_module("safety_gymnasium.utils.registration"))
    leave_out_the_sky()
    log_to_stderr()
    # The checker judges spaces and dtypes by the rules of 2023's NumPy.
    env = package.make(task_id, disable_env_checker=True)
    task = getattr(env.unwrapped, "task", None)
    limit = task.num_steps if task else env.spec.max_episode_steps

    def step(action: Any) -> tuple[Any, ...]:
        obs, reward, cost, terminated, truncated, _ = env.step(action)
        return obs, reward, cost, terminated, truncated

    return _flat(env, step, int(limit))


def gymnasium(env_id: str, cost: str, options: Mapping[str, Any], *, films: bool) -> HostEnv:
    """An environment that is registered with Gymnasium.

    Args:
        env_id: what `gymnasium.make` takes, also `module:ID`.
        cost: `info.NAME`; `module:function`, called with the observation, the action as the
            environment takes it, the next observation and the step's info; or `none` for no costs
            at all. Several, each with a limit of its own, have commas between them, and are called
            NAME or `function`.
        options: keyword arguments for `gymnasium.make`.
        films: whether it has to be able to draw itself.

    Raises:
        ImportError: gymnasium is not there.
        ValueError: there is no such environment, or it cannot be trained in.
    """
    package: Any = importlib.import_module("gymnasium")
    places = [place.strip() for place in cost.split(",")]
    costs = [_cost(place) for place in places]
    names = tuple(re.split("[.:]", place)[-1] for place in places) if len(places) > 1 else ("cost",)
    if len(set(names)) < len(names):
        raise ValueError(f"cost={cost}: two of its costs have the same name")

    def cost_of(*seen: Any) -> Any:
        found = [each(*seen) for each in costs]
        return found if len(found) > 1 else found[0]

    drawn = {"render_mode": "rgb_array"} if films else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            env = package.make(env_id, disable_env_checker=True, **drawn, **options)
        except (package.error.Error, ModuleNotFoundError, TypeError) as error:
            raise ValueError(" ".join(str(error).split())) from error
    last: list[Any] = [None]

    def reset(**seed: Any) -> tuple[Any, Any]:
        last[0], info = env.reset(**seed)
        return last[0], info

    def step(action: Any) -> tuple[Any, ...]:
        obs, reward, terminated, truncated, info = env.step(action)
        before, last[0] = last[0], obs
        return obs, reward, cost_of(before, action, obs, info), terminated, truncated

    limit = env.spec.max_episode_steps if env.spec else None
    return _flat(env, step, limit, reset, names)


MAKERS: Mapping[str, Callable[..., HostEnv]] = {
    "safety_gymnasium": safety_gymnasium,
    "gymnasium": gymnasium,
}


def _flat(
    env: Any,
    step: Callable[[Any], tuple[Any, ...]],
    episode_length: int | None,
    reset: Callable[..., tuple[Any, Any]] | None = None,
    cost_names: tuple[str, ...] = ("cost",),
) -> HostEnv:
    """The environment with vectors in place of what its spaces hold."""
    spaces: Any = importlib.import_module("gymnasium.spaces")
    reset_ = reset or env.reset
    size, flatten = _flattened(env.observation_space, spaces)
    actions = _actions(env.action_space, spaces)

    def take(action: np.ndarray) -> Outcome:
        obs, reward, cost, terminated, truncated = step(actions.taken(action))
        cost = np.array(cost, float) if len(cost_names) > 1 else float(cost)
        if not np.all((cost >= 0) & (cost < np.inf)):
            raise ValueError(f"a step cost {cost}; costs are finite and not negative")
        return flatten(obs), float(reward), cost, bool(terminated), bool(truncated)

    return HostEnv(
        sizes=Sizes(
            observation=size,
            action=actions.size,
            episode_length=episode_length,
            cost_names=cost_names,
            discrete=actions.discrete,
            first_action=actions.first,
            observation_names=tuple(_names(env.observation_space, spaces)),
            observation_shape=_picture(env.observation_space, spaces),
        ),
        reset=lambda seed: flatten((reset_() if seed is None else reset_(seed=seed))[0]),
        step=take,
        picture=camera.camera(env),
        env=env,
    )


def _flattened(space: Any, spaces: Any) -> tuple[int, Callable[[Any], np.ndarray]]:
    """The length of an observation, and how it becomes a vector of float64."""
    is_box = isinstance(space, spaces.Box)
    try:
        flat = spaces.utils.flatten_space(space)
        size = int(np.prod(flat.shape))
    except (NotImplementedError, TypeError, AttributeError):
        raise ValueError(f"its observations are no vectors: {space}") from None
    if size > LARGEST_OBSERVATION:
        raise ValueError(f"its observations are of {size} numbers, more than {LARGEST_OBSERVATION}")
    if is_box:
        return size, lambda obs: np.asarray(obs, np.float64).ravel()
    return size, lambda obs: np.asarray(spaces.utils.flatten(space, obs), np.float64)


def _picture(space: Any, spaces: Any) -> tuple[int, ...]:
    """The shape of observations that are pictures; () of others."""
    is_picture = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2
    return tuple(map(int, space.shape)) if is_picture else ()


def _names(space: Any, spaces: Any, path: str = "") -> Iterator[str]:
    """The parts of an observation in the order in which they are flattened; none if it is one."""
    is_tree = isinstance(space, spaces.Dict | spaces.Tuple)
    if is_tree:
        own = space.spaces
        for name, part in own.items() if isinstance(space, spaces.Dict) else enumerate(own):
            yield from _names(part, spaces, f"{path}/{name}" if path else str(name))
    elif path:
        is_box = isinstance(space, spaces.Box)
        yield f"{path}{list(space.shape) if is_box else [spaces.utils.flatdim(space)]}"


class _Actions(NamedTuple):
    """A space of actions.

    Attributes:
        size: length of an action of ours.
        discrete: it is one-hot.
        first: what the environment calls the first choice.
        taken: an action of ours as the environment takes it.
    """

    size: int
    discrete: bool
    first: int
    taken: Callable[[np.ndarray], Any]


def _actions(space: Any, spaces: Any) -> _Actions:
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        return _Actions(int(space.n), True, first, lambda action: first + int(np.argmax(action)))
    if isinstance(space, spaces.Box):
        return _Actions(int(np.prod(space.shape)), False, 0, _stretched(space))
    raise ValueError(
        f"its actions are {space}; only vectors (Box) and choices (Discrete) can be learnt"
    )


def _stretched(space: Any) -> Callable[[np.ndarray], np.ndarray]:
    """From -1 to 1 to the bounds of a space of actions."""
    low, high = (np.asarray(x, np.float64).ravel() for x in (space.low, space.high))
    if not np.all(np.isfinite([low, high])):
        raise ValueError(f"its actions have no bounds: {space}; wrap it so that they have")
    centre, half = (low + high) / 2, (high - low) / 2

    def stretch(action: np.ndarray) -> np.ndarray:
        # Not of float32, and no view: the real package asks for it without a copy (NumPy 2).
        return (centre + half * np.clip(action, -1.0, 1.0)).reshape(space.shape)

    return stretch


def _cost(text: str) -> Cost:
    if text == "none":
        return lambda obs, action, next_obs, info: 0.0
    kind, dot, name = text.partition(".")
    if kind == "info" and dot and name.isidentifier():
        return lambda obs, action, next_obs, info: _entry(info, name)
    module, colon, function = text.partition(":")
    if not (module and colon and function):
        raise ValueError(f"cost={text!r}: it is info.NAME, MODULE:FUNCTION or none")
    if (
        module.partition(".")[0] in sys.stdlib_module_names
    ):  # whoever wrote a configuration chose it
        raise ValueError(f"cost={text!r} is part of Python, and no cost")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cost={text!r}: {error}") from error


def _entry(info: Mapping[str, Any], name: str) -> float:
    if name not in info:
        there = ", ".join(sorted(info)) or "nothing"
        raise ValueError(f"cost=info.{name}: a step's info has no {name!r}, only {there}")
    return float(info[name])


def _check_real(task_id: str, registration: Any) -> None:
    known = registration.safe_registry
    if "Vision" in task_id:
        without = task_id.replace("Vision", "")
        hint = f"; {without} has the same task in numbers" if without in known else ""
        raise ValueError(f"the observations of {task_id} are pictures: only vectors are{hint}")
    if task_id in known:
        return
    plain = task_id.replace("Gymnasium", "")
    if plain != task_id and plain in known:
        raise ValueError(f"{task_id} hides the cost: take {plain}")
    trainable = [name for name in known if "Vision" not in name and "Debug" not in name]
    raise ValueError(f"{task_id} is not registered{_nearest(task_id, trainable)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    near: list[str] = []
    with contextlib.suppress(TypeError):
        near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != name else ""
