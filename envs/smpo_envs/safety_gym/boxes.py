"""Vases: light boxes that lie on the floor and move freely in space."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

HALF_SIZE = 0.1
MASS = 8e-6
INERTIA = MASS * (2 * HALF_SIZE) ** 2 / 6  # about any axis through the centre: it is a cube
START_HEIGHT = 0.09996  # 4e-5 m deep in the floor


class FreeBoxes(NamedTuple):
    """`V` boxes; `V` may be 0.

    Attributes:
        position: world position of the centres.
        quaternion: orientation, w x y z.
        velocity: of the centres, world axes.
        angular_velocity: body axes.
    """

    position: Float[Array, "V 3"]
    quaternion: Float[Array, "V 4"]
    velocity: Float[Array, "V 3"]
    angular_velocity: Float[Array, "V 3"]


def at_rest(position_xy: Float[Array, "V 2"], rotation: Float[Array, " V"]) -> FreeBoxes:
    """Boxes as they stand at reset, turned about the vertical by `rotation`."""
    zeros = jnp.zeros_like(rotation)
    half = rotation / 2
    return FreeBoxes(
        position=jnp.concatenate([position_xy, (zeros + START_HEIGHT)[:, None]], axis=1),
        quaternion=jnp.stack([jnp.cos(half), zeros, zeros, jnp.sin(half)], axis=1),
        velocity=jnp.zeros((*rotation.shape, 3), rotation.dtype),
        angular_velocity=jnp.zeros((*rotation.shape, 3), rotation.dtype),
    )


def poses(boxes: FreeBoxes) -> Float[Array, "V 3"]:
    """Position in the plane and heading, whichever face a box stands on."""
    w, x, y, z = (boxes.quaternion[:, i] for i in range(4))
    # Of two body axes, the horizontal part of the less upright one: a cube looks alike along both.
    along_x = jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z)])
    along_y = jnp.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z)])
    x_is_up = jnp.sum(along_x**2, axis=0) < jnp.sum(along_y**2, axis=0)
    axis = jnp.where(x_is_up, along_y, along_x)
    return jnp.stack([*boxes.position[:, :2].T, jnp.arctan2(axis[1], axis[0])], axis=1)


def count(boxes: FreeBoxes) -> int:
    """How many boxes there are."""
    return boxes.position.shape[0]
