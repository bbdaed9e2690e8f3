"""One way to name an environment: a text is found to be a `Source`, and a source makes it.

    PointGoal1, SafetyPointGoal1-v0   a task of this package, or its original's id
    brax:ant                          an environment of brax's
    safety-gymnasium:ID, gymnasium:ID what those packages have registered; it is stepped outside JAX
    own_task:make                     a function of a module: a file in the current folder, or what
                                      is installed
    NAME                              what an installed package calls so in its entry points of the
                                      group `smpo_envs`

Finding looks at the name alone: nothing is imported before something is made.
"""

import difflib
import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from smpo_envs import own_code, registry
from smpo_envs.registry import TASKS, Entry

if TYPE_CHECKING:
    from smpo_envs.host import HostTask
    from smpo_envs.safe_env import SafeEnv

ENTRY_POINTS = "smpo_envs"  # the group
OBJECT = "object"  # the kind of an environment that was given as a value


@dataclass(frozen=True)
class Source:
    """Where an environment comes from.

    Attributes:
        name: as it is saved.
        make: `(episode_length, options)` to a `SafeEnv`, or to a `HostTask` if it is outside JAX;
            imports what that takes. Raises a ValueError with what is wrong.
        entry: of a task of this package, its line in the table.
        module: of code that is somebody else's, the module that is imported.
        is_outside: whether it is stepped outside JAX.
    """

    name: str
    make: "Callable[[int | None, Mapping[str, Any]], SafeEnv | HostTask]"
    entry: Entry | None = None
    module: str | None = None
    is_outside: bool = False

    @property
    def is_native(self) -> bool:
        """Whether it is a task of this package, which is known to keep the contract."""
        return self.entry is not None

    @property
    def has_hazards(self) -> bool:
        """Whether it can be made with a shift of its hazards."""
        return self.entry is not None and self.entry.has_hazards

    @property
    def has_options(self) -> bool:
        """Whether what makes it takes options by name."""
        return self.entry is None or self.entry.has_options

    @property
    def task_id(self) -> str | None:
        """What it is called in the real Safety-Gymnasium; None where it is not there."""
        kind, _, rest = self.name.partition(":")
        if self.entry is None:
            return rest if kind == "safety-gymnasium" else None
        return self.entry.task_id


class Kind(NamedTuple):
    """What a prefix stands for.

    Attributes:
        form: how such a name is written.
        summary: one line for people.
        find: the source of what follows the prefix; raises a ValueError.
    """

    form: str
    summary: str
    find: Callable[[str], Source]


def find(name: str) -> Source:
    """What a name stands for.

    Raises:
        ValueError: the name is unknown, with the nearest one, or of a kind that can't be trained.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in KINDS:
        return KINDS[prefix].find(rest)
    if colon:
        return _of_module(name)
    try:
        key = registry.resolve(name)
    except ValueError as error:
        points = entry_points()
        if name in points:
            return Source(
                name, partial(_make_own, points[name]), module=own_code.module_of(points[name])
            )
        folded = {known.lower(): known for known in points}
        if re.fullmatch(r"Safety\w+-v\d+", name):
            return _of_real(name)
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.8)
        hint = f"unknown environment {name!r}: did you mean {folded[near[0]]!r}? " if near else ""
        raise ValueError(hint or f"{error}; {FORMS}") from None
    return Source(key, partial(_make_native, key), TASKS[key])


def make(name: str, *, episode_length: int | None = None, **options: Any) -> "SafeEnv":
    """The environment of that name.

    Args:
        name: in any of the forms above.
        episode_length: the time limit in place of its own, in steps.
        options: what the function that makes it takes.

    Raises:
        ValueError: there is no such name, or nothing can be made of it.
    """
    source = find(name)
    if source.is_outside:
        native = source.task_id and registry.native_of(source.task_id)
        hint = f", or {native}, which is here" if native else ""
        outside = f"{name} is stepped outside JAX: see smpo_envs.host{hint}"
        if ":" in name:
            raise ValueError(outside)
        try:
            registry.resolve(name)
        except ValueError as error:  # an id of the real package's, or a mistake in one of ours
            raise ValueError(f"{error}; if it is the real package's, {outside}") from None
    return cast("SafeEnv", source.make(episode_length, options))


def entry_points() -> dict[str, str]:
    """The environments of installed packages: name -> "module:function"."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point.value for point in sorted(found, key=lambda point: point.name)}


def _make_native(key: str, episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
    limit = {} if episode_length is None else {"episode_length": episode_length}
    return registry.build(key, **limit, **options)


def _of_module(name: str) -> Source:
    own_code.require_reference(name, "an environment", FORMS)
    return Source(name, partial(_make_own, name), module=own_code.module_of(name))


def _make_own(reference: str, episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
    """What a function of somebody else's returns, or the environment that it is, as a `SafeEnv`."""
    import jax

    from smpo_envs.adapters import as_safe_env

    factory = own_code.imported(reference, KINDS)
    if not callable(factory):
        if options:
            raise ValueError(f"{reference} is no function: it takes no options")
        return _told_of(reference, as_safe_env, factory, episode_length=episode_length)
    given = dict(options)
    if episode_length is not None and "episode_length" in own_code.parameters(factory):
        given["episode_length"] = episode_length
    env = own_code.call(reference, factory, **given)
    with jax.ensure_compile_time_eval():
        return _told_of(reference, as_safe_env, env, episode_length=episode_length)


def _told_of(reference: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What a function returns, with whose environment it is about in its errors."""
    try:
        return function(*given, **options)
    except ValueError as error:
        raise ValueError(f"{reference}: {error}") from error


def _of_brax(rest: str) -> Source:
    def make(episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
        from smpo_envs import brax_tasks

        return brax_tasks.make(rest, episode_length=episode_length, **options)

    if not rest:
        raise ValueError("brax: is followed by the name of an environment, as in brax:ant")
    return Source(f"brax:{rest}", make)


def _of_object(rest: str) -> Source:
    def make(episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
        del episode_length, options
        raise ValueError(
            f"the environment was an object of Python's ({rest}), which is not saved with a run: "
            "give it again from Python, as in smpo_jax.load_policy(folder, env=...)"
        )

    return Source(f"{OBJECT}:{rest}", make)


def _of_real(rest: str) -> Source:
    def make(episode_length: int | None, options: Mapping[str, Any]) -> "HostTask":
        from smpo_envs.host import safety_gymnasium_task

        if options:
            raise ValueError(f"safety-gymnasium:{rest} takes no options")
        return _or_value_error(safety_gymnasium_task, rest, episode_length)

    if not rest:
        raise ValueError("safety-gymnasium: is followed by an id, as in SafetyDoggoGoal1-v0")
    return Source(f"safety-gymnasium:{rest}", make, is_outside=True)


def _of_gymnasium(rest: str) -> Source:
    def make(episode_length: int | None, options: Mapping[str, Any]) -> "HostTask":
        from smpo_envs.host import gymnasium_task

        if "cost" not in options:
            raise ValueError(
                f"gymnasium:{rest} needs a cost: --env-option cost=info.NAME for what a step's "
                "info has, cost=MODULE:FUNCTION for a function of (obs, action, next_obs, info), "
                "or cost=none"
            )
        given = {**options, "cost": str(options["cost"])}
        return _or_value_error(gymnasium_task, rest, episode_length=episode_length, **given)

    if not rest:
        raise ValueError("gymnasium: is followed by an id, as in gymnasium:Pendulum-v1")
    module, colon, _ = rest.rpartition(":")
    return Source(f"gymnasium:{rest}", make, module=module if colon else None, is_outside=True)


def _or_value_error(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What a function returns; a package that is missing is a mistake like any other."""
    try:
        return function(*given, **options)
    except ImportError as error:
        raise ValueError(str(error)) from error


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "brax": Kind(
            "brax:NAME",
            "brax's (extra brax): ant, halfcheetah, hopper, humanoid, swimmer, walker2d, "
            "which cost where they are too fast; others with --env-option cost=metrics.NAME",
            _of_brax,
        ),
        "safety-gymnasium": Kind(
            "safety-gymnasium:ID",
            "the real package's, as in SafetyDoggoGoal1-v0, SafetyAntVelocity-v1 (it has to be "
            "installed)",
            _of_real,
        ),
        "gymnasium": Kind(
            "gymnasium:ID",
            "Gymnasium's, as in Pendulum-v1, with --env-option cost=info.NAME or MODULE:FUNCTION",
            _of_gymnasium,
        ),
        OBJECT: Kind("", "what a run that was given an object is saved with", _of_object),
    }
)
FORMS = (
    "others are brax:NAME, safety-gymnasium:ID, gymnasium:ID and your own MODULE:FUNCTION, as in "
    "my_task:make for my_task.py here"
)
