"""Shift of the cost distribution: how many hazards there are, how large, and how far apart.

A `Shift` is a pytree of numbers that may be traced: under `vmap` a batch of tasks that differ in
them is one program, and a schedule may set them anew at every reset. They are kept in an
environment's state, so an episode is played under what it began with.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Leaf = float | Float[Array, "*batch"] | None
Points = tuple[tuple[float, float], ...]  # (environment step, value), steps increasing


class Shift(NamedTuple):
    """What differs from the task as it is; None leaves that as it is.

    Attributes:
        hazards: how many there are; rounded to a whole number.
        size: radius within which a hazard costs, m. Not seen by the lidars, which show distances
            of centres, and without influence on layouts.
        extent: half width of the square that hazards are placed in, m; smaller packs them.
    """

    hazards: Leaf = None
    size: Leaf = None
    extent: Leaf = None


def scheduled(schedule: Mapping[str, Points], steps: Float[Array, ""] | float) -> Shift:
    """The shift after so many environment steps: linear between points, constant beyond them.

    Args:
        schedule: points of those fields of a `Shift` that are not left as the task has them.
        steps: environment steps so far, over all environments.
    """
    leaves = {}
    for name, points in schedule.items():
        at, value = (jnp.asarray(x, jnp.result_type(float)) for x in zip(*points, strict=True))
        leaves[name] = jnp.interp(jnp.asarray(steps, at.dtype), at, value)
    return Shift(**leaves)
