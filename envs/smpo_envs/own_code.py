"""Code of one's own, by the name MODULE:FUNCTION: a file in the current folder, or installed."""

import contextlib
import difflib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any


def module_of(reference: str) -> str:
    """The module of MODULE:FUNCTION."""
    return reference.partition(":")[0].strip()


def require_reference(name: str, what: str, expected: str) -> None:
    """Raises a ValueError unless a name is MODULE:FUNCTION, of a module that is not Python's own.

    Args:
        name: what was given.
        what: what it should be a name of, for the error.
        expected: how such names are written.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r:.80} is no name of {what}: {expected}")
    _refuse_python_itself(name, module_of(name))


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


def imported(reference: str, prefixes: Iterable[str] = ()) -> Any:
    """What a module calls so.

    Args:
        reference: MODULE:FUNCTION.
        prefixes: what may stand before a colon instead of a module, for the hint after a mistake.

    Raises:
        ValueError: there is no such thing, importing it failed, or it is Python's own.
    """
    module_name, _, name = reference.partition(":")
    module_name, name = module_name.strip(), name.strip()
    with _standing_here():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise ValueError(_no_module(reference, error.name, prefixes)) from error
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
    """`os:system` makes nothing, and whoever wrote a configuration chooses its arguments."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"{reference} is part of Python, and no code of one's own")


def call(reference: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What a function that was found so returns.

    Raises:
        ValueError: it takes other arguments, or it raised.
    """
    import jax

    _check_arguments(reference, function, given, options)
    # It may be called while a program is traced, and its arrays must be none of that program's.
    with jax.ensure_compile_time_eval():
        try:
            return function(*given, **options)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{reference} raised {_one_line(error)}") from error


def _check_arguments(
    reference: str, function: Callable[..., Any], given: Sequence[Any], options: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one that Python can't tell
        return
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"{reference}: {error}; its options are {known}") from error


def parameters(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Those of a function, by name; none that Python can't tell."""
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _no_module(reference: str, missing: str, prefixes: Iterable[str]) -> str:
    here = [name.removesuffix(".py") for name in os.listdir() if name.endswith(".py")]
    near = difflib.get_close_matches(module_of(reference), [*prefixes, *here], n=1, cutoff=0.7)
    rest = reference.partition(":")[2]
    hint = f"; did you mean {near[0]}:{rest}?" if near else ""
    return (
        f"there is no module {missing!r} in {os.getcwd()} or in what is installed, "
        f"for {reference}{hint}"
    )


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
