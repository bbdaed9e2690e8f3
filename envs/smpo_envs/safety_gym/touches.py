"""What boxes touch that are not the robot, and how candidates of several kinds are put together."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smpo_envs.safety_gym import batched, collision
from smpo_envs.safety_gym.batched import Tree
from smpo_envs.safety_gym.boxes import Body, Corners
from smpo_envs.safety_gym.collision import Box, Half, Post, Touch

BALL_HEIGHT = 0.1  # of the centre of a `Post` that is a ball, m


def core_of(body: Body, position: jax.Array, rotation: jax.Array) -> Box:
    """The box in the middle of each body."""
    if body.is_cube:
        return collision.upright_cube(position, rotation)
    return Box(position, rotation)


def _all_corners(corners: Corners, position: jax.Array, rotation: jax.Array) -> Box:
    """The boxes around each body's corners, along a new axis [4]."""
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)], position.dtype)
    x, y = signs.T.reshape(2, 4, *(1,) * (position.ndim - 1))
    return _at_corners(corners, position, rotation, x, y)


def nearest_corners(
    corners: Corners, position: jax.Array, rotation: jax.Array, where: jax.Array
) -> Box:
    """The two corner boxes that are nearest to a place, along a new axis [2].

    Whatever is no larger than the robot or a pillar cannot touch more of them at once.
    """
    offset = where - position
    x, y = (batched.dot(rotation[:, i], offset) for i in range(2))
    one = jnp.ones_like(x)
    x_side, y_side = jnp.where(x < 0, -one, one), jnp.where(y < 0, -one, one)
    # The second one is across the axis that the place is nearer to.
    across_x = jnp.where(jnp.abs(x) < jnp.abs(y), -one, one)
    x_sides = jnp.stack([x_side, x_side * across_x])
    y_sides = jnp.stack([y_side, -y_side * across_x])
    return _at_corners(corners, position, rotation, x_sides, y_sides)


def near_of(
    body: Body, position: jax.Array, rotation: jax.Array, where: jax.Array
) -> tuple[Box, Half]:
    """The boxes of each body that something there may touch, along a new axis [n], and their sizes.

    That in the middle and, where there are corners, the nearest ones (see `nearest_corners`).
    """
    core = core_of(body, position, rotation)
    core = Box(core.center[:, None], core.axes[:, :, None])
    if not body.corners:
        return core, body.core
    near = nearest_corners(body.corners, position, rotation, where)
    center = jnp.broadcast_to(core.center, near.center[:, :1].shape)
    boxes = Box(jnp.concatenate([center, near.center], axis=1), near.axes)
    sizes = zip(body.core, body.corners.half, strict=True)
    along = (3, *(1,) * (near.center.ndim - 2))
    return boxes, Half(*(np.reshape((mine, theirs, theirs), along) for mine, theirs in sizes))


def _at_corners(corners: Corners, position, rotation, x_side, y_side) -> Box:
    from_middle = x_side * rotation[:, 0][:, None] + y_side * rotation[:, 1][:, None]
    return Box(position[:, None] + corners.offset * from_middle, rotation[:, :, None])


def of_boxes_and_surroundings(
    body: Body, post: Post, posts: Float[Array, "3 G K B"], position: jax.Array, rotation: jax.Array
) -> Touch:
    """Contacts of each body with what stands fast near it, and with the floor."""
    core = core_of(body, position, rotation)
    wide = Box(core.center[:, None], core.axes[:, :, None])
    touches = [flat(collision.post_and_box(post, posts, wide, body.core))]
    if body.on_floor:
        touches.append(collision.floor_and_box(core, body.core))
    if body.corners:
        half = body.corners.half
        near = nearest_corners(body.corners, position[:, None], rotation[:, :, None], posts)
        touches.append(flat(flat(collision.post_and_box(post, posts[:, None], near, half))))
        if body.on_floor:
            every = _all_corners(body.corners, position, rotation)
            touches.append(flat(collision.floor_and_box(every, half)))
    return joined(touches, -3)


def joined(groups: list[Tree], axis: int) -> Tree:
    """Slots of several groups as one group, given their axis, from the end."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=axis), *groups)


def flat(touch: Touch) -> Touch:
    """Slots of several candidates as slots of one: their axis merged with the next one."""

    def merged(x: jax.Array, axis: int) -> jax.Array:
        both = x.shape[axis] * x.shape[axis + 1]
        return x.reshape(*x.shape[:axis], both, *x.shape[axis + 2 :])

    return Touch(merged(touch.normal, 1), merged(touch.point, 1), merged(touch.distance, 0))


def at_height(places: Float[Array, "2 *s"]) -> Float[Array, "3 *s"]:
    """Of things that stand fast the centre of a ball, or a place on the axis of a cylinder."""
    height = jnp.full((1, *places.shape[1:]), BALL_HEIGHT, places.dtype)
    return jnp.concatenate([places, height])
