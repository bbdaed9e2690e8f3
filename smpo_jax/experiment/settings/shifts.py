"""How a shift of the cost distribution is written: `hazards=12`, `size=0.2@0,0.3@2e6`.

Reading it imports no jax. `NAME=VALUE` holds throughout; `NAME=VALUE@STEP,VALUE@STEP` is linear in
the environment step between the points given and constant beyond them; `NAME=VALUE,VALUE`, where
several are evaluated, is one after another. Texts are read once, into a `Schedule` or a `Sweep`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smpo_jax.experiment.errors import UserError
from smpo_jax.names import suggest

NAMES = ("hazards", "size", "extent")  # the fields of `smpo_envs.Shift`
Points = tuple[tuple[float, float], ...]  # (environment step, value)


@dataclass(frozen=True)
class Schedule:
    """What a run is trained under; false if that is the task as it is.

    Attributes:
        texts: as it is written, one for each field that is shifted; what is saved.
        points: of each of these fields, what the texts say.

    Raises:
        UserError: a text that is no such thing.
    """

    texts: tuple[str, ...] = ()
    points: Mapping[str, Points] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reads the texts."""
        points = {name: _points(text, values) for name, text, values in _split(self.texts)}
        object.__setattr__(self, "points", points)

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __str__(self) -> str:
        return " ".join(self.texts)

    @property
    def is_constant(self) -> bool:
        """Whether it is the same throughout training."""
        return all(len(points) == 1 for points in self.points.values())

    @property
    def steps(self) -> list[float]:
        """The environment steps at which a value is given."""
        return [step for points in self.points.values() for step, _ in points]

    def at(self, steps: float) -> dict[str, float]:
        """The values after so many environment steps; `smpo_envs.shift.scheduled` on the host."""
        return {
            name: float(np.interp(steps, [step for step, _ in points], [x for _, x in points]))
            for name, points in self.points.items()
        }


@dataclass(frozen=True)
class Sweep:
    """The values that are evaluated; false if there are none.

    Attributes:
        texts: as they are written, one for each field that varies.
        values: of each of these fields.

    Raises:
        UserError: a text that is no such thing, a schedule among them.
    """

    texts: tuple[str, ...] = ()
    values: Mapping[str, Sequence[float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reads the texts."""
        values = {
            name: tuple(_number(text, word) for word in words)
            for name, text, words in _split(self.texts)
        }
        object.__setattr__(self, "values", values)

    def __bool__(self) -> bool:
        return bool(self.texts)

    def combinations(self) -> list[dict[str, float]]:
        """Every combination of the values, the last field changing fastest."""
        return [
            dict(zip(self.values, point, strict=True))
            for point in itertools.product(*self.values.values())
        ]


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


NO_SHIFT = Schedule()
NO_SWEEP = Sweep()
