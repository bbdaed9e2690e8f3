"""What touches what on an island, and the system of contacts that the solver is given."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, collision, contact, solver
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.batched import Tree
from smpo_envs.safety_gym.boxes import Body, Corners
from smpo_envs.safety_gym.collision import Box, Half, Post, Touch
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.island import Island, Surroundings

ROBOT_HEIGHT = 0.1  # of the body's origin
SPHERE_RADIUS = 0.1
ARROW_OFFSET = 0.1  # of the arrow box's centre, ahead of the origin
ARROW = Half(0.05, 0.05)


def _core(body: Body, position: jax.Array, rotation: jax.Array) -> Box:
    """The box in the middle of each body."""
    if body.is_cube:
        return collision.upright_cube(position, rotation)
    return Box(position, rotation)


def _all_corners(corners: Corners, position: jax.Array, rotation: jax.Array) -> Box:
    """The boxes around each body's corners, along a new axis [4]."""
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)], position.dtype)
    x, y = signs.T.reshape(2, 4, *(1,) * (position.ndim - 1))
    return _at_corners(corners, position, rotation, x, y)


def _nearest_corners(
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


def _at_corners(corners: Corners, position, rotation, x_side, y_side) -> Box:
    from_middle = x_side * rotation[:, 0][:, None] + y_side * rotation[:, 1][:, None]
    return Box(position[:, None] + corners.offset * from_middle, rotation[:, :, None])


class RobotTouches(NamedTuple):
    """Candidate contacts of the robot's sphere and of its arrow, in this order."""

    fixed: tuple[Touch, Touch]  # slots [1], of each fixed thing
    boxes: tuple[Touch, Touch] | None  # of each box


def touches_of_robot(
    surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> RobotTouches:
    """What the robot touches."""
    point = island.point
    zero = jnp.zeros_like(point.x)
    ahead = jnp.stack([point.cos, point.sin, zero])[:, None]
    side = jnp.stack([-point.sin, point.cos, zero])[:, None]
    up = jnp.stack([zero, zero, zero + 1])[:, None]
    origin = _origin(point)[:, None]
    arrow = Box(origin + ARROW_OFFSET * ahead, jnp.stack([ahead, side, up], axis=1))
    posts = _posts(surroundings.near_robot)
    fixed = (
        collision.discs(posts, surroundings.post.radius, origin, SPHERE_RADIUS),
        collision.sphere_and_box(posts, surroundings.post.radius, arrow, ARROW),
    )
    if surroundings.body is None:
        return RobotTouches(fixed, None)
    middle = origin + (ARROW_OFFSET / 2) * ahead
    return RobotTouches(
        fixed,
        _touches_of_robot_and_boxes(
            surroundings.body, (origin, arrow, middle), island.position, rotation
        ),
    )


def _origin(point: robot.Coordinates) -> Float[Array, "3 B"]:
    return jnp.stack([point.x, point.y, jnp.full_like(point.x, ROBOT_HEIGHT)])


def _posts(places: Float[Array, "2 *s"]) -> Float[Array, "3 *s"]:
    """Where the robot would meet what stands fast, which is at least as high as the robot."""
    return jnp.concatenate([places, jnp.full((1, *places.shape[1:]), ROBOT_HEIGHT, places.dtype)])


def system_of(
    surroundings: Surroundings,
    island: Island,
    rotation: Float[Array, "3 3 K B"],
    free: solver.Change,
    inertia: solver.Inertia,
) -> tuple[solver.System, Int[Array, "F B"], Int[Array, "K B"]]:
    """All that touches, and the robot's contact points with each fixed thing and each box.

    Args:
        surroundings: what is around.
        island: the state.
        rotation: of the boxes, body to world.
        free: accelerations without contacts.
        inertia: of the boxes.
    """
    point, body, center = island.point, surroundings.body, island.position
    b = contact.DAMPING
    origin = _origin(point)
    robot_touches = touches_of_robot(surroundings, island, rotation)
    frictions = (contact.SPHERE_FRICTION, contact.DEFAULT_FRICTION)
    touching_fixed = batched.total(_number(touch) for touch in robot_touches.fixed)
    fixed = [
        _slots(_flat(touch), friction, contact.POINT_WEIGHT, origin)
        for touch, friction in zip(robot_touches.fixed, frictions, strict=True)
    ]

    ground, single, double = [], [], []
    touching = jnp.zeros(center.shape[1:], jnp.int32)
    first, second = (jnp.array(x, int) for x in solver.pairs(center.shape[1]))
    if body is not None and robot_touches.boxes is not None:
        touching = batched.total(_number(touch) for touch in robot_touches.boxes)
        both = body.weight + contact.POINT_WEIGHT
        single = [
            _slots(touch, friction, both, center)
            for touch, friction in zip(robot_touches.boxes, frictions, strict=True)
        ]
        posts = _posts(surroundings.near_boxes)
        touch = _touches_of_boxes_and_surroundings(body, surroundings.post, posts, center, rotation)
        ground = [_slots(touch, contact.DEFAULT_FRICTION, body.weight, center)]
        if len(first) and body.collide_with_each_other:
            core = _core(body, center, rotation)
            pick = lambda i: jax.tree.map(lambda x: x[..., i, :], core)  # noqa: E731
            touch = collision.box_and_box(pick(first), body.core, pick(second), body.core)
            weight = 2 * body.weight
            double = [_slots(touch, contact.DEFAULT_FRICTION, weight, center[:, second])]

    groups = (fixed, ground, single, double)
    geometry = solver.Geometry(
        layout=solver.Layout(*map(_number_of, groups), boxes=center.shape[1]),
        lever=(center[:2] - origin[:2, None]) / LENGTH,
        link=(center[:, second] - center[:, first]) / LENGTH,
    )
    drift = solver.Change(
        free.robot + b * jnp.stack([point.vx, point.vy, LENGTH * point.w]),
        free.boxes
        + b * jnp.concatenate([island.velocity, LENGTH * batched.apply(rotation, island.spin)]),
    )
    slots = _joined([slots for group in groups for slots in group], -2)
    rows = contact.rows(slots, solver.relative(geometry, drift))
    system = solver.System(geometry, _robot_mass(point), inertia, rows)
    return system, touching_fixed, touching


def _number_of(group: list[contact.Slots]) -> int:
    """How many slots there are, contacts or not."""
    return sum(slots.weight.shape[0] for slots in group)


def _number(touch: Touch) -> Int[Array, "*s"]:
    """How many of the slots are contacts."""
    return jnp.sum(touch.distance <= 0, 0, jnp.int32)


def _touches_of_robot_and_boxes(
    body: Body, parts: tuple[jax.Array, Box, jax.Array], position: jax.Array, rotation: jax.Array
) -> tuple[Touch, Touch]:
    """Contacts of the robot's sphere and of its arrow with each body.

    `parts` are the sphere's centre, the arrow, and a place in the middle of the robot.
    """
    origin, arrow, middle = parts
    core = _core(body, position, rotation)
    by_sphere = [collision.sphere_and_box(origin, SPHERE_RADIUS, core, body.core)]
    by_arrow = [collision.box_and_box(arrow, ARROW, core, body.core)]
    if body.corners:
        near, half = _nearest_corners(body.corners, position, rotation, middle), body.corners.half
        arrow = Box(arrow.center[:, None], arrow.axes[:, :, None])
        sphere = collision.sphere_and_box(origin[:, None], SPHERE_RADIUS, near, half)
        by_sphere.append(_flat(sphere))
        by_arrow.append(_flat(collision.box_and_box(arrow, ARROW, near, half)))
    return _joined(by_sphere, -3), _joined(by_arrow, -3)


def _touches_of_boxes_and_surroundings(
    body: Body, post: Post, posts: Float[Array, "3 G K B"], position: jax.Array, rotation: jax.Array
) -> Touch:
    """Contacts of each body with what stands fast near it, and with the floor."""
    core = _core(body, position, rotation)
    wide = Box(core.center[:, None], core.axes[:, :, None])
    touches = [_flat(collision.post_and_box(post, posts, wide, body.core))]
    if body.on_floor:
        touches.append(collision.floor_and_box(core, body.core))
    if body.corners:
        half = body.corners.half
        near = _nearest_corners(body.corners, position[:, None], rotation[:, :, None], posts)
        touches.append(_flat(_flat(collision.post_and_box(post, posts[:, None], near, half))))
        if body.on_floor:
            every = _all_corners(body.corners, position, rotation)
            touches.append(_flat(collision.floor_and_box(every, half)))
    return _joined(touches, -3)


def _slots(
    touch: Touch, friction: tuple[float, ...], weight: float, reference: Float[Array, "3 *s"]
) -> contact.Slots:
    """The slots of some things, each with a point of reference, along one axis."""
    *front, batch = touch.distance.shape
    number = math.prod(front)
    flat = lambda x: x.reshape(*x.shape[: x.ndim - len(front) - 1], number, batch)  # noqa: E731
    reference = jnp.broadcast_to(reference[:, None], touch.point.shape)
    dtype = reference.dtype
    return contact.Slots(
        touch=jax.tree.map(flat, touch),
        friction=jnp.broadcast_to(jnp.array(friction, dtype)[:, None, None], (5, number, 1)),
        weight=jnp.full((number, 1), weight, dtype),
        reference=flat(reference),
    )


def _joined(groups: list[Tree], axis: int) -> Tree:
    """Slots of several groups as one group, given their axis, from the end."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=axis), *groups)


def _flat(touch: Touch) -> Touch:
    """Slots of several candidates as slots of one: their axis merged with the next one."""

    def merged(x: jax.Array, axis: int) -> jax.Array:
        both = x.shape[axis] * x.shape[axis + 1]
        return x.reshape(*x.shape[:axis], both, *x.shape[axis + 2 :])

    return Touch(merged(touch.normal, 1), merged(touch.point, 1), merged(touch.distance, 0))


def _robot_mass(point: robot.Coordinates) -> Float[Array, "3 3 B"]:
    zero = jnp.zeros_like(point.x)
    coupling = robot.MASS * robot.OFFSET / LENGTH
    m = zero + robot.MASS
    across, along = -coupling * point.sin, coupling * point.cos
    about = zero + robot.INERTIA / LENGTH**2
    table = [(m, zero, across), (zero, m, along), (across, along, about)]
    return jnp.stack([jnp.stack(row) for row in table]) / contact.MASS
