"""Shifts of a level: other numbers, sizes and places of its hazards than its own."""

import dataclasses
import math

import numpy as np

from smpo_envs.safety_gym.levels import HAZARDS, Kind, Level
from smpo_envs.shift import Shift

MOST_COVERED = 0.4  # share of their square that the keepouts of a shift's hazards may take


def shifted(level: Level, shift: Shift, most: int | None = None) -> tuple[Level, Shift]:
    """A level with room for a shift, and the shift with what it leaves open filled in.

    Args:
        level: one that has hazards.
        shift: leaves may be traced if `most` is given.
        most: hazards that there is room for in arrays; by default just those of the shift.

    Raises:
        ValueError: the level has no hazards, or the shift is none that it can have.
    """
    found = [(kind, number) for kind, number in level.objects if kind.name == HAZARDS and number]
    if not found:
        raise ValueError("there are no hazards to shift at this level")
    ((kind, number),) = found
    own = Shift(hazards=number, size=kind.look.size, extent=level.extent)
    pairs = zip(shift, own, strict=True)
    full = Shift(*(mine if given is None else given for given, mine in pairs))
    if most is None:
        most = max(round(float(np.asarray(full.hazards))), 1)
    _check_shift(level, kind, full, most)
    if isinstance(full.size, int | float):
        kind = dataclasses.replace(kind, look=kind.look._replace(size=float(full.size)))
    objects = tuple((kind, most) if k.name == HAZARDS else (k, n) for k, n in level.objects)
    return dataclasses.replace(level, objects=objects), full


def _check_shift(level: Level, kind: Kind, shift: Shift, most: int) -> None:
    """Refuses numbers that no layout can have; traced ones are taken as they are."""
    hazards, size, extent = (float(x) if isinstance(x, int | float) else None for x in shift)
    if hazards is not None and not 0 <= round(hazards) <= most:
        raise ValueError(f"hazards={hazards:g} must be between 0 and {most}")
    if size is not None and not 0 < size < math.inf:
        raise ValueError(f"size={size:g} must be positive (m)")
    if extent is not None and not kind.keepout < extent <= level.extent:
        raise ValueError(
            f"extent={extent:g} must be above {kind.keepout:g}, the hazards' keepout, and at most "
            f"{level.extent:g}, that of the level (m)"
        )
    if hazards is not None and extent is not None:
        covered = round(hazards) * math.pi * kind.keepout**2 / (2 * extent) ** 2
        if covered > MOST_COVERED:
            raise ValueError(
                f"hazards={hazards:g} do not fit within extent={extent:g}: their keepouts would "
                f"cover {covered:.0%} of the square, and layouts are found up to {MOST_COVERED:.0%}"
            )
