"""Plain values, as YAML, JSON and the command line give them, as the types of a record's fields."""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import jax
import numpy as np

from smpo_jax.experiment.errors import UserError, reason
from smpo_jax.names import suggest
from smpo_jax.ranges import MOST

MOST_DIGITS = 18  # of a whole number: what fits in 64 bits


def coerce_fields(kind: type, given: Mapping[str, Any], *, where: str, noun: str) -> dict[str, Any]:
    """The values as the fields of a dataclass hold them.

    Args:
        kind: the dataclass.
        given: field name -> plain value; not all fields have to be there.
        where: what to blame in error messages.
        noun: what a name that is no field's is called, as in "unknown key".

    Raises:
        UserError: a name that is no field's, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    values = {}
    for name, value in given.items():
        if name not in names:
            raise UserError(f"{where}: {noun} {name!r:.80}{suggest(name, names)}")
        try:
            values[name] = coerce(value, hints[name])
        except ValueError as error:
            raise UserError(f"{where}: {name}: {reason(error)}") from error
    return values


def coerce(value: Any, kind: Any) -> Any:
    """The value as a field of this type holds it.

    YAML reads `3e-4` as text and `3` as an integer, and both are good floats; it reads `1e7` as
    text, and that is a good integer. Python has scalars and arrays of NumPy and JAX, too. Nothing
    else is bent: `true` is no number, `1.5` no integer.

    Raises:
        ValueError: the value is no such thing.
    """
    value = plain(value)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, kind)
    if origin is Literal and value in parts:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(each) == len(value):
            return tuple(coerce(item, part) for item, part in zip(value, each, strict=True))
    if kind is types.NoneType and value is None:
        return None
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind is Path and isinstance(value, str | os.PathLike):
        return path(os.fspath(value))
    if kind in (int, float) and _may_be_number(value):
        return integer(value) if kind is int else number(value)
    raise ValueError(f"expected {_describe(kind)}, got {value!r:.80}")


def require_count(name: str, value: int) -> None:
    """Raises a `UserError` unless a program can have so many, and at least one, of something."""
    if value < 1:
        raise UserError(f"{name}: must be at least 1, got {value}")
    if value > MOST:
        raise UserError(f"{name}: must be at most {MOST:,}, got {value:,}")


def coerce_argument(name: str, value: Any, kind: Any) -> Any:
    """The value as `coerce` gives it.

    Raises:
        UserError: it is no such thing; the message begins with the name.
    """
    try:
        return coerce(value, kind)
    except ValueError as error:
        raise UserError(f"{name}: {reason(error)}") from error


def integer(text: str | float) -> int:
    """An integer, also from its scientific spelling: `"1e7"` is 10000000.

    Raises:
        ValueError: it is none.
    """
    try:
        value = Decimal(str(text))
        if value.is_finite() and value.adjusted() > MOST_DIGITS:
            raise ValueError(f"{text!s:.40} is too large")
        if value == value.to_integral_value():
            return int(value)
    except (InvalidOperation, OverflowError):
        pass
    raise ValueError(f"expected an integer, got {text!r:.80}")


def number(text: str | float) -> float:
    """A float that is not NaN.

    Raises:
        ValueError: it is none.
    """
    try:
        value = float(text)
    except (ValueError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"expected a number, got {text!r:.80}")
    return value


def plain(value: Any) -> Any:
    """Scalars and arrays as Python's own; a float32 as the shortest decimal that it stands for."""
    if not isinstance(value, np.generic | np.ndarray | jax.Array):
        return value
    array = np.asarray(value)
    if array.ndim:
        return [plain(each) for each in array]
    is_short = np.issubdtype(array.dtype, np.floating) and array.dtype.itemsize < 8
    return float(str(array)) if is_short else array.item()


def path(text: str) -> Path:
    """A path that files can have; `~` is the user's home.

    Raises:
        ValueError: no file can have it.
    """
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError
        return Path(text).expanduser()
    except (ValueError, RuntimeError):  # a lone surrogate, NUL, or no home
        raise ValueError(f"expected a path, got {text!r:.80}") from None


def _first_that_fits(value: Any, union: Any) -> Any:
    for part in get_args(union):
        try:
            return coerce(value, part)
        except ValueError:
            continue
    raise ValueError(f"expected {_describe(union)}, got {value!r:.80}")


def _may_be_number(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each {_describe(get_args(kind)[0])}"
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "text",
        types.NoneType: "null",
        Path: "a path",
    }
    return words.get(kind, str(kind))
