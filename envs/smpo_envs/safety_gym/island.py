"""The robot among a few boxes and what stands fast, in contact: the ten physics steps in full."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import batched, boxes, collision, contact, gremlins, solver
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.batched import Tree
from smpo_envs.safety_gym.boxes import Body, Corners
from smpo_envs.safety_gym.collision import Box, Half, Post, Touch
from smpo_envs.safety_gym.contact import LENGTH

GRAVITY = 9.81
ROBOT_HEIGHT = 0.1  # of the body's origin
SPHERE_RADIUS = 0.1
ARROW_OFFSET = 0.1  # of the arrow box's centre, ahead of the origin
ARROW = Half(0.05, 0.05)


class Spring(NamedTuple):
    """What holds gremlins: where their springs would have them, in each physics step."""

    target: Float[Array, "11 3 K B"]
    quaternion: Float[Array, "4 K B"]


class Island(NamedTuple):
    """The robot in world axes (but about its start), and `K` boxes."""

    point: robot.Coordinates  # fields [B]
    position: Float[Array, "3 K B"]
    quaternion: Float[Array, "4 K B"]
    velocity: Float[Array, "3 K B"]
    spin: Float[Array, "3 K B"]  # angular velocity, body axes


class Shore(NamedTuple):
    """What bounds an island and does not move with it.

    Attributes:
        body: what the boxes are; None where there are none.
        post: the shape of the things that stand fast.
        near_robot: those that the robot may touch, relative to its start.
        near_boxes: those that each box may touch.
        spring: what holds the boxes, if anything does.
    """

    body: Body | None
    post: Post
    near_robot: Float[Array, "2 F B"]
    near_boxes: Float[Array, "2 G K B"]
    spring: Spring | None


def axes(quaternion: Float[Array, "4 *s"]) -> Float[Array, "3 3 *s"]:
    """Rotation matrix of a unit quaternion: its columns are the body's axes."""
    w, x, y, z = quaternion
    return jnp.stack(
        [
            jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            jnp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )


def turned(quaternion: Float[Array, "4 *s"], rotation: Float[Array, "3 *s"]) -> jax.Array:
    """A unit quaternion after a small rotation given in body axes (its length is the angle)."""
    square = batched.dot(rotation, rotation) / 4
    c = 1 - square * (1 / 2 - square * (1 / 24 - square / 720))
    s = (1 - square * (1 / 6 - square * (1 / 120 - square / 5040))) / 2
    w, v = quaternion[0], quaternion[1:]
    r = s * rotation
    new = jnp.concatenate([(w * c - batched.dot(v, r))[None], w * r + c * v + batched.cross(v, r)])
    return new * jax.lax.rsqrt((new * new).sum(0))


class Free(NamedTuple):
    """What the robot and the boxes do without contacts, and how they resist them."""

    change: solver.Change
    inertia: solver.Inertia


def _falling(body: Body, island: Island, rotation: Float[Array, "3 3 K B"]) -> Free:
    """Boxes under gravity; one whose moments of inertia differ precesses."""
    spin = island.spin
    across, upright = body.inertia
    precession = (upright - across) / across
    turning = precession * spin[2] * jnp.stack([-spin[1], spin[0], jnp.zeros_like(spin[0])])
    fall = jnp.zeros_like(island.velocity).at[2].set(-GRAVITY)
    up = rotation[:, 2]
    eye = jnp.eye(3, dtype=spin.dtype)[:, :, None, None]
    unit = contact.MASS * LENGTH**2
    angular = (across * eye + (upright - across) * batched.outer(up, up)) / unit
    mass = jnp.full(spin.shape[1:], body.mass / contact.MASS, spin.dtype)
    return _free(fall, turning, rotation, solver.Inertia(mass, angular))


def _held(
    spring: Spring, target: Float[Array, "3 K B"], island: Island, rotation: jax.Array
) -> Free:
    """Gremlins under gravity and their springs."""
    turn = gremlins.towards(island.quaternion, spring.quaternion)
    error = target - island.position
    (pull, turning), (mass, angular) = gremlins.held(error, island.velocity, turn, island.spin)
    # From body to world axes: R A Rᵀ.
    half_way = batched.total(rotation[:, i][:, None] * angular[i] for i in range(3))
    angular = batched.total(half_way[:, i][:, None] * rotation[:, i] for i in range(3))
    return _free(pull, turning, rotation, solver.Inertia(mass, angular))


def _free(linear, turning, rotation, inertia: solver.Inertia) -> Free:
    world = batched.apply(rotation, turning)
    twist = jnp.concatenate([linear, LENGTH * world])
    return Free(solver.Change(jnp.zeros((3, twist.shape[-1]), twist.dtype), twist), inertia)


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


class Meeting(NamedTuple):
    """Candidate contacts of the robot's sphere and of its arrow, in this order."""

    fixed: tuple[Touch, Touch]  # slots [1], of each fixed thing
    boxes: tuple[Touch, Touch] | None  # of each box


def _meeting(shore: Shore, island: Island, rotation: Float[Array, "3 3 K B"]) -> Meeting:
    """What the robot touches."""
    point = island.point
    zero = jnp.zeros_like(point.x)
    ahead = jnp.stack([point.cos, point.sin, zero])[:, None]
    side = jnp.stack([-point.sin, point.cos, zero])[:, None]
    up = jnp.stack([zero, zero, zero + 1])[:, None]
    origin = _origin(point)[:, None]
    arrow = Box(origin + ARROW_OFFSET * ahead, jnp.stack([ahead, side, up], axis=1))
    posts = _posts(shore.near_robot)
    fixed = (
        collision.discs(posts, shore.post.radius, origin, SPHERE_RADIUS),
        collision.sphere_and_box(posts, shore.post.radius, arrow, ARROW),
    )
    if shore.body is None:
        return Meeting(fixed, None)
    middle = origin + (ARROW_OFFSET / 2) * ahead
    return Meeting(
        fixed, _robot_and_boxes(shore.body, (origin, arrow, middle), island.position, rotation)
    )


def _origin(point: robot.Coordinates) -> Float[Array, "3 B"]:
    return jnp.stack([point.x, point.y, jnp.full_like(point.x, ROBOT_HEIGHT)])


def _posts(places: Float[Array, "2 *s"]) -> Float[Array, "3 *s"]:
    """Where the robot would meet what stands fast, which is at least as high as the robot."""
    return jnp.concatenate([places, jnp.full((1, *places.shape[1:]), ROBOT_HEIGHT, places.dtype)])


def _system(
    shore: Shore, island: Island, rotation: Float[Array, "3 3 K B"], free: Free
) -> tuple[solver.System, Int[Array, "F B"], Int[Array, "K B"]]:
    """All that touches, and the robot's contact points with each fixed thing and each box."""
    point, body, center = island.point, shore.body, island.position
    b = contact.DAMPING
    origin = _origin(point)
    meeting = _meeting(shore, island, rotation)
    frictions = (contact.SPHERE_FRICTION, contact.DEFAULT_FRICTION)
    touching_fixed = batched.total(_number(touch) for touch in meeting.fixed)
    fixed = [
        _slots(_flat(touch), friction, contact.POINT_WEIGHT, origin)
        for touch, friction in zip(meeting.fixed, frictions, strict=True)
    ]

    ground, single, double = [], [], []
    touching = jnp.zeros(center.shape[1:], jnp.int32)
    first, second = (jnp.array(x, int) for x in solver.pairs(center.shape[1]))
    if body is not None and meeting.boxes is not None:
        touching = batched.total(_number(touch) for touch in meeting.boxes)
        both = body.weight + contact.POINT_WEIGHT
        single = [
            _slots(touch, friction, both, center)
            for touch, friction in zip(meeting.boxes, frictions, strict=True)
        ]
        posts = _posts(shore.near_boxes)
        touch = _surroundings_and_boxes(body, shore.post, posts, center, rotation)
        ground = [_slots(touch, contact.DEFAULT_FRICTION, body.weight, center)]
        if len(first) and body.gregarious:
            core = _core(body, center, rotation)
            pick = lambda i: jax.tree.map(lambda x: x[..., i, :], core)  # noqa: E731
            touch = collision.box_and_box(pick(first), body.core, pick(second), body.core)
            weight = 2 * body.weight
            double = [_slots(touch, contact.DEFAULT_FRICTION, weight, center[:, second])]

    groups = (fixed, ground, single, double)
    places = solver.Places(
        layout=solver.Layout(*map(_number_of, groups), boxes=center.shape[1]),
        lever=(center[:2] - origin[:2, None]) / LENGTH,
        link=(center[:, second] - center[:, first]) / LENGTH,
    )
    drift = solver.Change(
        free.change.robot + b * jnp.stack([point.vx, point.vy, LENGTH * point.w]),
        free.change.boxes
        + b * jnp.concatenate([island.velocity, LENGTH * batched.apply(rotation, island.spin)]),
    )
    slots = _joined([slots for group in groups for slots in group], -2)
    rows = contact.rows(slots, solver.relative(places, drift))
    system = solver.System(places, _robot_mass(point), free.inertia, rows)
    return system, touching_fixed, touching


def _number_of(group: list[contact.Slots]) -> int:
    """How many slots there are, contacts or not."""
    return sum(slots.weight.shape[0] for slots in group)


def _number(touch: Touch) -> Int[Array, "*s"]:
    """How many of the slots are contacts."""
    return jnp.sum(touch.distance <= 0, 0, jnp.int32)


def _robot_and_boxes(
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


def _surroundings_and_boxes(
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


class Dynamics(NamedTuple):
    """What acts at a state.

    Attributes:
        free: accelerations without contacts.
        change: what contacts add to them.
        rotation: of the boxes, body to world.
        mass: the robot's mass matrix, solver units.
        touching_fixed: contact points of the robot with each fixed thing.
        touching: contact points of the robot with each box.
    """

    free: solver.Change
    change: solver.Change
    rotation: Float[Array, "3 3 K B"]
    mass: Float[Array, "3 3 B"]
    touching_fixed: Int[Array, "F B"]
    touching: Int[Array, "K B"]


def dynamics(
    shore: Shore,
    island: Island,
    target: Float[Array, "3 K B"] | None,
    control: tuple[jax.Array, jax.Array],
    warm: solver.Change,
) -> Dynamics:
    """Accelerations at a state.

    Args:
        shore: what is around.
        island: the state.
        target: where springs would have the boxes, if there are any.
        control: of the robot's two actuators.
        warm: a guess of what contacts add, such as the last step's.
    """
    rotation = axes(island.quaternion)
    if shore.body is None:
        free = Free(warm, solver.Inertia(island.position[0], rotation))  # of no boxes
    elif shore.spring is None:
        free = _falling(shore.body, island, rotation)
    else:
        assert target is not None
        free = _held(shore.spring, target, island, rotation)
    x, y, turning = robot.free_acceleration(island.point, *control)
    robot_free = jnp.stack([x, y, LENGTH * turning])
    free = free._replace(change=free.change._replace(robot=robot_free))
    system, touching_fixed, touching = _system(shore, island, rotation, free)
    change, _ = solver.newton(system, warm)
    return Dynamics(free.change, change, rotation, system.mass, touching_fixed, touching)


def integrate(island: Island, control: tuple[jax.Array, jax.Array], acting: Dynamics) -> Island:
    """One semi-implicit Euler step; the damping of the robot's joints is implicit."""
    h = robot.TIMESTEP
    by_contacts = batched.apply(acting.mass, acting.change.robot)
    fx, fy, torque = contact.MASS * by_contacts
    c, s = island.point.cos, island.point.sin
    along, across, spin = robot.force(island.point, *control)
    force = (along + c * fx + s * fy, across - s * fx + c * fy, spin + LENGTH * torque)
    point = robot.integrate(island.point, *robot.damped_acceleration(island.point, *force))
    acceleration = acting.free.boxes + acting.change.boxes
    velocity = island.velocity + h * acceleration[:3]
    angular = acceleration[3:] / LENGTH
    spin = island.spin + h * batched.apply_transposed(acting.rotation, angular)
    return Island(
        point, island.position + h * velocity, turned(island.quaternion, h * spin), velocity, spin
    )


def gather(point: robot.Point, some: boxes.FreeBoxes, chosen: Int[Array, "B K"]) -> Island:
    """The island of some boxes; leaves of the arguments have the batch in front.

    Positions are relative to where the robot started, which keeps them small and exact.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    angle = point.rotation + point.q[:, 2]
    x, y = _rotate(point.q, c, s)
    vx, vy = _rotate(point.v, c, s)
    picked = [batch_last(take(x, chosen)) for x in some]
    picked[0] = picked[0].at[:2].add(-point.start.T[:, None])
    return Island(
        robot.Coordinates(x, y, angle, vx, vy, point.v[:, 2], jnp.cos(angle), jnp.sin(angle)),
        *picked,
    )


def take(x: Float[Array, "B V n"], chosen: Int[Array, "B K"]) -> Float[Array, "B K n"]:
    """The chosen ones of each member of the batch."""
    return jnp.take_along_axis(x, chosen[..., None], axis=1)


def batch_last(x: Float[Array, "B K n"]) -> Float[Array, "n K B"]:
    """Components first, batch last."""
    return x.swapaxes(0, 2)


def scatter(
    begin: Island,
    end: Island,
    point: robot.Point,
    all_boxes: boxes.FreeBoxes,
    chosen: Int[Array, "B K"],
) -> tuple[robot.Point, boxes.FreeBoxes]:
    """Robot and boxes with what happened on the island from `begin`, which `gather` made, to `end`.

    Changes are added, so that what stood still is the same to the last bit.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    change = jax.tree.map(jnp.subtract, end, begin)
    p = change.point
    q = jnp.stack([*_rotate(jnp.stack([p.x, p.y], -1), c, -s), p.angle], axis=-1)
    v = jnp.stack([*_rotate(jnp.stack([p.vx, p.vy], -1), c, -s), p.w], axis=-1)

    def add(old, new):
        return old.at[jnp.arange(old.shape[0])[:, None], chosen].add(new.swapaxes(0, 2))

    changes = (change.position, change.quaternion, change.velocity, change.spin)
    moved = point._replace(q=point.q + q, v=point.v + v)
    return moved, boxes.FreeBoxes(*map(add, all_boxes, changes))


def in_start_frame(point: robot.Point, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """The robot's acceleration along its joints, from world axes."""
    x, y = _rotate(acceleration, jnp.cos(point.rotation), -jnp.sin(point.rotation))
    return jnp.stack([x, y, acceleration[:, 2]], axis=-1)


class Course(NamedTuple):
    """What came of an environment step on an island.

    Attributes:
        end: the new state.
        acceleration: of the robot there, world axes.
        touching_fixed: contact points of the robot with each fixed thing there.
        touching: contact points of the robot with each box there.
    """

    end: Island
    acceleration: Float[Array, "B 3"]
    touching_fixed: Int[Array, "B F"]
    touching: Int[Array, "B K"]


def advance(shore: Shore, island: Island, action: Float[Array, "B 2"]) -> Course:
    """Ten physics steps."""
    control = robot.controls(action.T)

    # After the last step the accelerations are wanted once more; a scan of its own length keeps the
    # contact code to a single copy, which halves the time to compile.
    def substep(carry, now):
        island, warm = carry
        moves, target = now
        acting = dynamics(shore, island, target, control, warm)
        after = integrate(island, control, acting)
        island = jax.tree.map(lambda old, new: jnp.where(moves, new, old), island, after)
        felt = acting.free.robot + acting.change.robot
        return (island, acting.change), (felt, acting.touching_fixed, acting.touching)

    batch, dtype = action.shape[:1], action.dtype
    zeros = solver.Change(
        jnp.zeros((3, *batch), dtype), jnp.zeros((6, *island.position.shape[1:]), dtype)
    )
    moves = jnp.arange(robot.SUBSTEPS + 1) < robot.SUBSTEPS
    inputs = (moves, shore.spring.target if shore.spring else None)
    (island, _), seen = jax.lax.scan(substep, (island, zeros), inputs)
    (x, y, turning), touching_fixed, touching = (x[-1] for x in seen)
    acceleration = jnp.stack([x, y, turning / LENGTH], axis=-1)
    return Course(island, acceleration, touching_fixed.T, touching.T)


# A little more than an arc and its chord differ by, or two ways to integrate the same path.
_GRAZING = 1e-4  # m


def meets(
    shore: Shore, island: Island, course: Float[Array, "3 B"], action: Float[Array, "B 2"]
) -> Bool[Array, " B"]:
    """Whether the robot would touch something within an environment step if nothing moved it.

    All boxes are taken to move by `course` (m), steadily.
    """
    control = robot.controls(action.T)
    rotation = axes(island.quaternion)

    def substep(island, _):
        point, position = island.point, island.position
        meeting = jax.tree.leaves(_meeting(shore, island, rotation), is_leaf=_is_touch)
        gaps = [touch.distance.reshape(-1, *point.x.shape) for touch in meeting]
        force = robot.force(point, *control)
        point = robot.integrate(point, *robot.damped_acceleration(point, *force))
        position = position + course[:, None] / robot.SUBSTEPS
        return island._replace(point=point, position=position), jnp.concatenate(gaps).min(0)

    _, gaps = jax.lax.scan(substep, island, length=robot.SUBSTEPS + 1)
    return gaps.min(0) <= _GRAZING


def _is_touch(x: object) -> bool:
    return isinstance(x, Touch)


def _rotate(vector: Float[Array, "B n"], cos: jax.Array, sin: jax.Array) -> tuple:
    x, y = vector[:, 0], vector[:, 1]
    return cos * x - sin * y, sin * x + cos * y
