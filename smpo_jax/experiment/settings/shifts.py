"""How a shift of the cost distribution is written: `hazards=12`, `size=0.2@0,0.3@2e6`.

Reading it imports no jax. `NAME=VALUE` holds throughout; `NAME=VALUE@STEP,VALUE@STEP` is linear in
the environment step between the points given and constant beyond them; `NAME=VALUE,VALUE`, where
several are evaluated, is one after another.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from smpo_jax.experiment.errors import UserError
from smpo_jax.names import suggest

NAMES = ("hazards", "size", "extent")  # the fields of `smpo_envs.Shift`
Points = tuple[tuple[float, float], ...]  # (environment step, value)
Schedule = dict[str, Points]


def schedule(texts: Sequence[str]) -> Schedule:
    """What a run is trained under.

    Raises:
        UserError: a text that is no such thing.
    """
    return {name: _points(text, values) for name, text, values in _split(texts)}


def axes(texts: Sequence[str]) -> dict[str, list[float]]:
    """The values to be evaluated, of each field.

    Raises:
        UserError: a text that is no such thing, a schedule among them.
    """
    return {
        name: [_number(text, value) for value in values] for name, text, values in _split(texts)
    }


def grid(texts: Sequence[str]) -> list[dict[str, float]]:
    """Every combination of the values to be evaluated."""
    given = axes(texts)
    return [dict(zip(given, point, strict=True)) for point in itertools.product(*given.values())]


def at(schedule: Mapping[str, Points], steps: float) -> dict[str, float]:
    """The values after so many environment steps; `smpo_envs.shift.scheduled` on the host."""
    return {
        name: float(np.interp(steps, [step for step, _ in points], [value for _, value in points]))
        for name, points in schedule.items()
    }


def describe(point: Mapping[str, float]) -> str:
    """A point as one writes it; of none, the task's own."""
    return " ".join(f"{name}={value:g}" for name, value in point.items()) or "the task's own"


def _split(texts: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(name, the whole text, its values) of each."""
    found: dict[str, tuple[str, str, list[str]]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UserError(
                f"hazard_shift: expected NAME=VALUE, got {text!r}; names: {', '.join(NAMES)}"
            )
        if name not in NAMES:
            raise UserError(
                f"hazard_shift: there is no {name!r}{suggest(name, NAMES)}; "
                f"names: {', '.join(NAMES)}"
            )
        if name in found:
            raise UserError(f"hazard_shift: {name} is given twice")
        found[name] = (name, text, values.split(","))
    return list(found.values())


def _points(text: str, values: Sequence[str]) -> Points:
    if len(values) == 1 and "@" not in values[0]:
        return ((0.0, _number(text, values[0])),)
    points = []
    for each in values:
        value, mark, step = each.partition("@")
        if not mark:
            raise UserError(
                f"hazard_shift: {text!r}: a schedule needs a step with every value, "
                "as in hazards=8@0,16@2e6"
            )
        points.append((_number(text, step), _number(text, value)))
    steps = [step for step, _ in points]
    if steps[0] < 0 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise UserError(f"hazard_shift: {text!r}: steps must be 0 or more and increase")
    return tuple(points)


def _number(text: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"hazard_shift: {text!r}: expected a number, got {word!r}")
    return value
