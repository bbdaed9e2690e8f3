"""The pseudo-lidar: for each of 16 directions, how close the nearest object of a kind is.

The robot's surroundings are cut into 16 sectors of 22.5 degrees, counter-clockwise from straight
ahead. An object at distance d shows in its own sector with its proximity s = max(0, D - d) / D and,
so that the reading is continuous, in its two neighbours in part; a sector shows the largest.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BINS = 16
REACH = 3.0  # D, m: objects farther away are not seen

_HALF_BIN = math.pi / BINS
_FOLD = math.tan(2 * _HALF_BIN)  # the edge between the two sectors of an octant
_TERMS = 11  # of the series of atan; the last one is below 2e-17 at |t| = tan(half a bin)


def lidar(
    ahead: Float[Array, " K"], left: Float[Array, " K"], *, reach: float = REACH
) -> Float[Array, " 16"]:
    """The readings for the objects of one kind, given where they are in the body's frame.

    Args:
        ahead: coordinates along the body's x axis, m.
        left: coordinates along its y axis, m.
        reach: distance at which the reading becomes 0.

    An object at angle u (in sectors) in sector b = floor(u) with f = u - b gives s to bin b, f s to
    bin b + 1 and (1 - f) s to bin b - 1. As a function of the angle from the middle of a bin,
    e = |u - k - 1/2| around the circle, that is the trapezium clip(3/2 - e, 0, 1): dense, without
    scatter, and continuous where an angle rounds to a full turn.
    """
    distance = jnp.sqrt(ahead * ahead + left * left)
    proximity = jnp.maximum(0.0, reach - distance) / reach
    sector = angle_in_bins(ahead, left)
    middle = jnp.arange(BINS, dtype=sector.dtype) + 0.5
    reading = jnp.zeros(BINS, sector.dtype)
    # Unrolled over the objects: a reduction over the short last axis would not vectorise.
    for i in range(ahead.shape[0]):
        e = jnp.abs(sector[i] - middle)
        e = jnp.minimum(e, BINS - e)
        reading = jnp.maximum(reading, proximity[i] * jnp.clip(1.5 - e, 0.0, 1.0))
    return reading


def angle_in_bins(x: jax.Array, y: jax.Array) -> jax.Array:
    """The angle of (x, y), counter-clockwise from the x axis, in sectors: between 0 and 16.

    atan2 by folding into the first octant, turning by the middle of the sector (tan of a
    difference), and the Taylor series of atan, exact to round-off in either precision. XLA calls
    the C library's scalar atan2 on CPU; this vectorises. The angle of (0, 0) is 1/2.
    """
    ax, ay = jnp.abs(x), jnp.abs(y)
    small, large = jnp.minimum(ax, ay), jnp.maximum(ax, ay)
    second = small > _FOLD * large
    middle = jnp.where(second, math.tan(3 * _HALF_BIN), math.tan(_HALF_BIN)).astype(x.dtype)
    below = large + small * middle
    t = (small - large * middle) / jnp.where(below > 0, below, 1.0)
    t2 = t * t
    series = jnp.zeros_like(t)
    for k in reversed(range(_TERMS)):
        series = (-1) ** k / (2 * k + 1) + t2 * series
    octant = jnp.where(second, 1.5, 0.5) + t * series * (BINS / (2 * math.pi))
    quadrant = jnp.where(ay > ax, BINS / 4 - octant, octant)
    half = jnp.where(x < 0, BINS / 2 - quadrant, quadrant)
    return jnp.where(y < 0, BINS - half, half)
