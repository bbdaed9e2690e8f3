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

import contextlib
import difflib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from smpo_envs import registry
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
            return Source(name, partial(_make_own, points[name]), module=_module(points[name]))
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


def locations(module: str) -> list[str]:
    """Where the code of a module is, the package's folder or file first, without running any."""
    names = module.split(".")
    found, within = [], None
    with _standing_here():
        for name in names:
            # Asked for by its full name, a module has its packages imported.
            spec = (
                importlib.util.find_spec(name)
                if within is None
                else importlib.machinery.PathFinder.find_spec(name, within)
            )
            if spec is None:
                return []
            within = list(spec.submodule_search_locations or ())
            found += [spec.origin] if spec.has_location and spec.origin else within
    return [os.path.realpath(place) for place in found]


def _make_native(key: str, episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
    limit = {} if episode_length is None else {"episode_length": episode_length}
    return registry.build(key, **limit, **options)


def _of_module(name: str) -> Source:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r:.80} is no name of an environment: {FORMS}")
    _refuse_python_itself(name, _module(name))
    return Source(name, partial(_make_own, name), module=_module(name))


def _module(reference: str) -> str:
    return reference.partition(":")[0].strip()


def _make_own(reference: str, episode_length: int | None, options: Mapping[str, Any]) -> "SafeEnv":
    """What a function of somebody else's returns, or the environment that it is, as a `SafeEnv`."""
    import jax

    from smpo_envs.adapters import as_safe_env

    factory = _imported(reference)
    if not callable(factory):
        if options:
            raise ValueError(f"{reference} is no function: it takes no options")
        return _told_of(reference, as_safe_env, factory, episode_length=episode_length)
    given = dict(options)
    if episode_length is not None and "episode_length" in _parameters(factory):
        given["episode_length"] = episode_length
    _check_options(reference, factory, given)
    # It may be called while a program is traced, and its arrays must be none of that program's.
    with jax.ensure_compile_time_eval():
        try:
            env = factory(**given)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{reference} raised {_one_line(error)}") from error
        return _told_of(reference, as_safe_env, env, episode_length=episode_length)


def _imported(reference: str) -> Any:
    module_name, _, name = reference.partition(":")
    module_name, name = module_name.strip(), name.strip()
    with _standing_here():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise ValueError(_no_module(reference, error.name)) from error
            raise ValueError(f"importing {module_name} failed: {_one_line(error)}") from error
        except (Exception, SystemExit) as error:
            raise ValueError(f"importing {module_name} failed: {_one_line(error)}") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {module_name}:{near[0]}?" if near else ""
        raise ValueError(f"{module_name} ({_file(module)}) has no {name!r}{hint}")
    found = getattr(module, name)
    plain = found.func if isinstance(found, partial) else found
    _refuse_python_itself(reference, getattr(plain, "__module__", None) or module_name)
    return found


def _refuse_python_itself(reference: str, module: str) -> None:
    """`os:system` makes no environment, and whoever wrote a configuration chooses its arguments."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"{reference} is part of Python, and no environment")


def _no_module(reference: str, missing: str) -> str:
    here = [name.removesuffix(".py") for name in os.listdir() if name.endswith(".py")]
    near = difflib.get_close_matches(_module(reference), [*KINDS, *here], n=1, cutoff=0.7)
    rest = reference.partition(":")[2]
    hint = f"; did you mean {near[0]}:{rest}?" if near else ""
    return (
        f"there is no module {missing!r} in {os.getcwd()} or in what is installed, "
        f"for {reference}{hint}"
    )


def _check_options(reference: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # one that Python can't tell
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"{reference}: {error}; its options are {known}") from error


def _parameters(factory: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _told_of(reference: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What a function returns, with whose environment it is about in its errors."""
    try:
        return function(*given, **options)
    except ValueError as error:
        raise ValueError(f"{reference}: {error}") from error


def _one_line(error: BaseException) -> str:
    """What went wrong, and where in whose file."""
    frames = traceback.extract_tb(error.__traceback__)
    is_syntax = isinstance(error, SyntaxError)
    where = (
        (error.filename, error.lineno) if is_syntax else (frames[-1].filename, frames[-1].lineno)
    )
    text = error.msg if is_syntax else " ".join(str(error).split())
    place = f" ({os.path.basename(where[0] or '?')}, line {where[1]})"
    return f"{type(error).__name__}: {text[:300]}{place}"


def _file(module: Any) -> str:
    return getattr(module, "__file__", None) or "a folder without __init__.py"


@contextlib.contextmanager
def _standing_here() -> Iterator[None]:
    """Imports also find files in the current folder, after all that is installed."""
    importlib.invalidate_caches()
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


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
