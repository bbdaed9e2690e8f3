"""What touches what on an island of the Point, and the system of contacts for the solver."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, collision, contact, solver, touches
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Box, Half, Touch
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.island import Island, Surroundings

SPHERE_RADIUS = 0.1
ARROW_OFFSET = 0.1  # of the arrow box's centre, ahead of the origin
ARROW = Half(0.05, 0.05, 0.05)


class RobotTouches(NamedTuple):
    """Candidate contacts of the robot's sphere and of its arrow, in this order."""

    fixed: tuple[Touch, Touch]  # slots [1], of each fixed thing
    boxes: tuple[Touch, Touch] | None  # of each box


def touches_of_robot(
    surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> RobotTouches:
    """What the robot touches."""
    point = island.robot
    zero = jnp.zeros_like(point.x)
    ahead = jnp.stack([point.cos, point.sin, zero])[:, None]
    side = jnp.stack([-point.sin, point.cos, zero])[:, None]
    up = jnp.stack([zero, zero, zero + 1])[:, None]
    origin = _origin(point)[:, None]
    arrow = Box(origin + ARROW_OFFSET * ahead, jnp.stack([ahead, side, up], axis=1))
    posts = touches.at_height(surroundings.near_robot)
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
    return jnp.stack([point.x, point.y, jnp.full_like(point.x, robot.HEIGHT)])


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
    point, body, center = island.robot, surroundings.body, island.position
    b = contact.DAMPING
    origin = _origin(point)
    robot_touches = touches_of_robot(surroundings, island, rotation)
    frictions = (contact.SPHERE_FRICTION, contact.DEFAULT_FRICTION)
    touching_fixed = batched.total(_number(touch) for touch in robot_touches.fixed)
    fixed = [
        _slots(touches.flat(touch), friction, contact.POINT_WEIGHT, origin)
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
        posts = touches.at_height(surroundings.near_boxes)
        touch = touches.of_boxes_and_surroundings(body, surroundings.post, posts, center, rotation)
        ground = [_slots(touch, contact.DEFAULT_FRICTION, body.weight, center)]
        if len(first) and body.collide_with_each_other:
            core = touches.core_of(body, center, rotation)
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
    slots = touches.joined([slots for group in groups for slots in group], -2)
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
    core = touches.core_of(body, position, rotation)
    by_sphere = [collision.sphere_and_box(origin, SPHERE_RADIUS, core, body.core)]
    by_arrow = [collision.box_and_box(arrow, ARROW, core, body.core, hovers=not body.on_floor)]
    if body.corners:
        half = body.corners.half
        near = touches.nearest_corners(body.corners, position, rotation, middle)
        arrow = Box(arrow.center[:, None], arrow.axes[:, :, None])
        sphere = collision.sphere_and_box(origin[:, None], SPHERE_RADIUS, near, half)
        by_sphere.append(touches.flat(sphere))
        by_arrow.append(touches.flat(collision.box_and_box(arrow, ARROW, near, half)))
    return touches.joined(by_sphere, -3), touches.joined(by_arrow, -3)


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


def _robot_mass(point: robot.Coordinates) -> Float[Array, "3 3 B"]:
    zero = jnp.zeros_like(point.x)
    coupling = robot.MASS * robot.OFFSET / LENGTH
    m = zero + robot.MASS
    across, along = -coupling * point.sin, coupling * point.cos
    about = zero + robot.INERTIA / LENGTH**2
    table = [(m, zero, across), (zero, m, along), (across, along, about)]
    return jnp.stack([jnp.stack(row) for row in table]) / contact.MASS
