"""The Car under contacts: what it touches, and how it gives way.

The unknowns are those of `car_floor` (accelerations of the body's origin and of its rotation along
the world's axes, of the wheels, of the ball relative to the body), then the boxes' twists, all in
the solver's units.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from smpo_envs.compilation import one_kernel, stored
from smpo_envs.safety_gym import (
    articulated,
    batched,
    car_body,
    car_floor,
    car_touches,
    collision,
    contact,
    scalars,
    touches,
)
from smpo_envs.safety_gym.batched import Tree, cross, dot
from smpo_envs.safety_gym.broadphase import Disc, Outline
from smpo_envs.safety_gym.car import Car
from smpo_envs.safety_gym.car_body import Motion
from smpo_envs.safety_gym.car_touches import Part, Pose
from smpo_envs.safety_gym.collision import Touch
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.dynamics import FEW, Acting, Boxes
from smpo_envs.safety_gym.island import Island, Surroundings
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.scalars import Matrix, Scalar
from smpo_envs.safety_gym.solver import Inertia, pairs

FREEDOMS = 11
_UNIT = np.array([1.0] * 3 + [LENGTH] * 8)[:, None]  # solver units per SI unit, of the unknowns
_FRICTION = (1.0, *contact.DEFAULT_FRICTION)
WEIGHTS: Mapping[Part, float] = MappingProxyType(
    {
        Part.BODY: car_body.BODY_WEIGHT,
        Part.LEFT: car_body.WHEEL_WEIGHT,
        Part.RIGHT: car_body.WHEEL_WEIGHT,
        Part.BALL: car_body.BALL_WEIGHT,
    }
)


def _outline() -> Outline:
    """Nine discs over the rectangle of bumpers and wheels."""
    front, back, side = 0.175, 0.16, 0.155
    number = 3
    length, width = (front + back) / number, 2 * side / number
    radius = float(np.hypot(length, width)) / 2
    discs = [
        Disc(front - (i + 0.5) * length, side - (j + 0.5) * width, radius, width / 2)
        for i in range(number)
        for j in range(number)
    ]
    return Outline(tuple(discs), margin=5e-3, spin_margin=1.0)


class _Solved(NamedTuple):
    """What `CarMechanics.advance` needs."""

    acceleration: car_body.Acceleration
    rotation: Matrix


class CarMechanics:
    """Of the Car; see `dynamics.Mechanics`."""

    timing: Timing = car_body.TIMING
    steps_in_one_kernel = False  # only the solver is
    outline = _outline()

    def gather(self, robot: Car) -> Motion:
        """Each component an array of its own."""
        components: Any = (tuple(jnp.unstack(x, axis=1)) for x in robot[1:])
        return Motion(*components)

    def scatter(self, robot: Car, begin: Motion, end: Motion) -> Car:
        """The state at the end."""
        del begin
        return Car(robot.start, *(jnp.stack(x, axis=1) for x in end))

    def felt(self, robot: Car, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
        """In world axes."""
        del robot
        return acceleration

    def controls(self, action: Float[Array, "2 B"]) -> tuple[Scalar, Scalar]:
        """Torques of the motors."""
        return car_body.torques(action)

    def unwarmed(self, island: Island) -> Float[Array, "N B"]:
        """Contacts that add nothing."""
        _, boxes, batch = island.position.shape
        return jnp.zeros((FREEDOMS + 6 * boxes, batch), island.position.dtype)

    def act(
        self,
        surroundings: Surroundings,
        island: Island,
        boxes: Boxes,
        control: tuple[Scalar, Scalar],
        warm: Float[Array, "N B"],
    ) -> Acting:
        """Accelerations at a state."""
        motion: Motion = island.robot
        boxes, matrix = stored((boxes, scalars.rotation_matrix(motion.quaternion)))
        pose = stored(_pose(motion, matrix))
        found = stored(car_touches.found(pose, surroundings, island, boxes.rotation))
        free, drift = stored(_drift(motion, control, matrix, island, boxes))
        bodies = _Bodies(pose, matrix, island.position, boxes.inertia)
        meetings = _meetings(found, surroundings, island.position, boxes.rotation)
        few = warm.shape[-1] <= FEW
        change = one_kernel(_solve, bodies, meetings, drift, warm, pays=few)
        total = free + change
        ours, theirs = total[:FREEDOMS] / _units(total.dtype), total[FREEDOMS:]
        back = scalars.transposed(matrix)
        acceleration = car_body.Acceleration(
            origin=(ours[0], ours[1], ours[2]),
            turn=scalars.apply(back, (ours[3], ours[4], ours[5])),
            wheels=(ours[6], ours[7]),
            ball=scalars.apply(back, (ours[8], ours[9], ours[10])),
        )
        return Acting(
            boxes=jnp.stack([theirs[i::6] for i in range(6)]),
            robot=_Solved(acceleration, matrix),
            warm=change,
            felt=ours[:3],
            touching_fixed=found.touching_fixed,
            touching=found.touching,
        )

    def advance(self, coordinates: Motion, control: Any, acting: Acting) -> Motion:
        """The damping of the joints is implicit."""
        del control
        solved: _Solved = acting.robot
        return car_body.integrate(coordinates, solved.acceleration, solved.rotation)

    # 10 m/s² for 40 ms lead 2 mm away from the straight way.
    grazing = 2e-3  # m

    def path(self, begin: Motion, end: Motion, control: Any) -> Motion:
        """The straight way: the step itself is dear."""
        del control
        shares = np.linspace(0, 1, self.timing.substeps + 1)[:, None]
        between = jax.tree.map(lambda a, b: a + shares.astype(a.dtype) * (b - a), begin, end)
        w, x, y, z = between.quaternion
        norm = jax.lax.rsqrt(w * w + x * x + y * y + z * z)
        return between._replace(quaternion=(norm * w, norm * x, norm * y, norm * z))

    def gap(
        self, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
    ) -> Float[Array, " B"]:
        """Of all parts from the nearest things."""
        matrix = scalars.rotation_matrix(island.robot.quaternion)
        return car_touches.gap(_pose(island.robot, matrix), surroundings, island, rotation)


def _pose(motion: Motion, matrix: Matrix) -> Pose:
    rotation = jnp.stack([jnp.stack(row) for row in matrix])
    return car_touches.pose_of(jnp.stack(motion.offset), rotation)


def _drift(
    motion: Motion,
    control: tuple[Scalar, Scalar],
    matrix: Matrix,
    island: Island,
    boxes: Boxes,
) -> tuple[Float[Array, "N B"], Float[Array, "N B"]]:
    """Accelerations without contacts, and the same plus damped velocities (solver units)."""
    free = car_body.free_acceleration(motion, control, matrix)
    turn, ball = scalars.apply(matrix, free.turn), scalars.apply(matrix, free.ball)
    ours = jnp.stack([*free.origin, *turn, *free.wheels, *ball])
    spin, ball_spin = (scalars.apply(matrix, x) for x in (motion.spin, motion.ball_spin))
    rates = jnp.stack([*motion.velocity, *spin, *motion.wheels, *ball_spin])
    twists = jnp.concatenate([island.velocity, LENGTH * batched.apply(boxes.rotation, island.spin)])
    unit = _units(ours.dtype)
    accelerations = jnp.concatenate([unit * ours, _one_by_one(boxes.free)])
    velocities = jnp.concatenate([unit * rates, _one_by_one(twists)])
    return accelerations, accelerations + contact.DAMPING * velocities


def _units(dtype: DTypeLike) -> Float[Array, "11 1"]:
    """Solver units per SI unit of the robot's unknowns, in this precision from the start.

    JAX keeps a NumPy constant as it first met it, which would be in float64 for whoever steps in
    double precision first.
    """
    return jnp.asarray(_UNIT, dtype)


def _one_by_one(twists: Float[Array, "6 K B"]) -> Float[Array, "6K B"]:
    """The boxes' components, box by box."""
    _, boxes, batch = twists.shape
    return jnp.moveaxis(twists, 0, 1).reshape(6 * boxes, batch)


class _Bodies(NamedTuple):
    """The Car and the boxes of an island."""

    pose: Pose
    rotation: Matrix  # of the Car
    position: Float[Array, "3 K B"]  # of the boxes
    inertia: Inertia


def _mass(bodies: _Bodies) -> Float[Array, "N N B"]:
    """Of all unknowns."""
    inertia, count = bodies.inertia, bodies.position.shape[1]
    of_robot = car_floor.mass_matrix(bodies.rotation)
    like = bodies.rotation[0][0]
    zero = jnp.zeros_like(like)
    size = FREEDOMS + 6 * count
    table = [[zero] * size for _ in range(size)]
    for (i, j), x in of_robot.items():
        scaled = zero + x / (contact.MASS * float(_UNIT[i, 0] * _UNIT[j, 0]))
        table[i][j] = table[j][i] = scaled
    for k in range(count):
        first = FREEDOMS + 6 * k
        for i in range(3):
            table[first + i][first + i] = inertia.mass[k]
            for j in range(3):
                table[first + 3 + i][first + 3 + j] = inertia.angular[i, j, k]
    return jnp.stack([jnp.stack(row) for row in table])


class _Place(NamedTuple):
    """Where bodies touch.

    Attributes:
        normal: unit vector from the first body to the second.
        point: midway between the two surfaces.
        distance: negative where there is a contact.
        weight: sum of the two bodies' inverse weights, 1/kg.
        part: which part of the Car it is; see `car_touches.Slots`.
    """

    normal: Float[Array, "*S 3 B"]
    point: Float[Array, "*S 3 B"]
    distance: Float[Array, "*S B"]
    weight: Float[Array, "*S B"]
    part: Float[Array, "*S 4 B"]


_CAR = -1  # among the numbers of boxes


class _Meeting(NamedTuple):
    """The slots of two bodies.

    Attributes:
        bodies: the Car or boxes, the second one last; one alone if the first stands fast.
        places: the slots.
        deepest_first: or else all of them may be in use.
    """

    bodies: tuple[int, ...]
    places: _Place
    deepest_first: bool


def _meetings(
    found: car_touches.Found,
    surroundings: Surroundings,
    position: Float[Array, "3 K B"],
    rotation: Float[Array, "3 3 K B"],
) -> list[_Meeting]:
    """All that may touch on an island."""

    def of_car(slots: car_touches.Slots, other: float = 0.0) -> _Place:
        weights = (WEIGHTS[each] * slots.part[:, i] for i, each in enumerate(Part))
        return _Place(*slots[:3], batched.total(weights) + other, slots.part)

    def of_boxes(touch: Touch, weight: float) -> _Place:
        normal, point = (jnp.moveaxis(x, 1, 0) for x in touch[:2])
        weights = jnp.full_like(touch.distance, weight)
        part = jnp.zeros((len(point), 0, point.shape[-1]), point.dtype)
        return _Place(normal, point, touch.distance, weights, part)

    meetings = [_Meeting((_CAR,), of_car(found.floor), deepest_first=False)]
    if found.fixed is not None:
        meetings.append(_Meeting((_CAR,), of_car(found.fixed), deepest_first=True))
    body, count = surroundings.body, position.shape[1]
    if body is None or found.boxes is None:
        return meetings
    posts = touches.at_height(surroundings.near_boxes)
    ground = touches.of_boxes_and_surroundings(body, surroundings.post, posts, position, rotation)
    core = touches.core_of(body, position, rotation)
    for k in range(count):
        with_car = of_car(_member(found.boxes, k), body.weight)
        below = of_boxes(_member(ground, k), body.weight)
        meetings.append(_Meeting((_CAR, k), with_car, deepest_first=True))
        meetings.append(_Meeting((k,), below, deepest_first=False))
    if body.collide_with_each_other:
        for i, j in zip(*pairs(count), strict=True):
            touch = collision.box_and_box(_member(core, i), body.core, _member(core, j), body.core)
            meetings.append(_Meeting((i, j), of_boxes(touch, 2 * body.weight), False))
    return meetings


def _solve(
    bodies: _Bodies,
    meetings: list[_Meeting],
    drift: Float[Array, "N B"],
    warm: Float[Array, "N B"],
) -> Float[Array, "N B"]:
    """What contacts add to the accelerations."""
    contacts = [_contacts(bodies, meeting, drift) for meeting in meetings]
    return articulated.newton(articulated.System(stored(_mass(bodies)), contacts), warm)


def _contacts(
    bodies: _Bodies, meeting: _Meeting, drift: Float[Array, "N B"]
) -> articulated.Contacts:
    """The slots, as the solver sees them."""
    starts = [0 if body == _CAR else FREEDOMS + 6 * body for body in meeting.bodies]
    sizes = [FREEDOMS if body == _CAR else 6 for body in meeting.bodies]
    unknowns = tuple((start, start + size) for start, size in zip(starts, sizes, strict=True))
    there = stored(articulated.some(unknowns, drift))

    def slot(place: _Place) -> articulated.Slots:
        rows = [
            _rows_of_car(bodies.pose, place)
            if body == _CAR
            else _rows_of_box(bodies.position[:, body], place)
            for body in meeting.bodies
        ]
        *first, second = rows
        return _under_the_law(there, place, jnp.concatenate([*(-x for x in first), second], axis=1))

    number = len(meeting.places.distance)
    if meeting.deepest_first:
        touching = meeting.places.distance < 0
        number = jnp.sum(touching, axis=0, dtype=jnp.int32).max()
    slots = articulated.of_each(slot, number, meeting.places)
    return articulated.Contacts(unknowns, slots, number)


def _member(tree: Tree, k: int) -> Tree:
    """Of one of the boxes."""
    return jax.tree.map(lambda x: x[..., k, :], tree)


def _rows_of_car(pose: Pose, place: _Place) -> Float[Array, "6 11 B"]:
    """Normal, two tangents, spin and two rolls over the Car's unknowns, friction included."""
    point, axle = place.point, pose.wheels.axis[:, 0]
    _, *wheels, ball = place.part
    rims = [cross(axle, point - pose.wheels.center[:, i]) for i in range(2)]
    from_origin, from_ball, rims = stored((point - pose.origin, point - pose.ball, rims))

    def slide(e: Float[Array, "3 B"]) -> Float[Array, "11 B"]:
        own = [on * dot(rim, e) for on, rim in zip(wheels, rims, strict=True)]
        levers = [cross(from_origin, e), jnp.stack(own), ball * cross(from_ball, e)]
        return jnp.concatenate([e, jnp.concatenate(levers) / LENGTH])

    def turn(e: Float[Array, "3 B"]) -> Float[Array, "11 B"]:
        along = jnp.stack([on * dot(e, axle) for on in wheels])
        turns = jnp.concatenate([e, along, ball * e]) / LENGTH
        return jnp.concatenate([jnp.zeros_like(e), turns])

    return _rows(place.normal, slide, turn)


def _rows_of_box(center: Float[Array, "3 B"], place: _Place) -> Float[Array, "6 6 B"]:
    """The same over the unknowns of a box."""
    lever = stored(place.point - center)

    def slide(e: Float[Array, "3 B"]) -> Float[Array, "6 B"]:
        return jnp.concatenate([e, cross(lever, e) / LENGTH])

    def turn(e: Float[Array, "3 B"]) -> Float[Array, "6 B"]:
        return jnp.concatenate([jnp.zeros_like(e), e / LENGTH])

    return _rows(place.normal, slide, turn)


def _rows(
    normal: Float[Array, "3 B"], slide: Callable[..., jax.Array], turn: Callable[..., jax.Array]
) -> Float[Array, "6 n B"]:
    axes = stored(jnp.stack([normal, *contact.frame(normal)]))
    rows = jnp.concatenate([jax.vmap(slide)(axes), jax.vmap(turn)(axes)])
    return jnp.asarray(_FRICTION, rows.dtype)[:, None, None] * rows


def _under_the_law(
    drift: Float[Array, "n B"], place: _Place, rows: Float[Array, "6 n B"]
) -> articulated.Slots:
    """The contact law of `contact`, for a slot."""
    rows = stored(rows)
    d = contact.impedance(place.distance)
    normal, *others = batched.total(rows * drift, axis=1)
    bias = jnp.stack([normal + contact.STIFFNESS * d * place.distance, *others])
    slide = contact.DEFAULT_FRICTION[0]
    softness = 2 * slide**2 * (1 + slide**2) * contact.MASS * place.weight
    stiffness = jnp.where(place.distance < 0, d / ((1 - d) * softness), 0)
    return articulated.Slots(rows, bias, stiffness)
