"""The Car under contacts: what it touches, and how it gives way.

The unknowns are those of `car_floor` (accelerations of the body's origin and of its rotation along
the world's axes, of the wheels, of the ball relative to the body), then the boxes' twists, all in
the solver's units.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

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
from smpo_envs.safety_gym.dynamics import Acting, Boxes
from smpo_envs.safety_gym.island import Island, Surroundings
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.scalars import Matrix, Scalar
from smpo_envs.safety_gym.solver import pairs

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
    act_is_elementwise = False
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

    def unwarmed(self, island: Island) -> Float[Array, "B N"]:
        """Contacts that add nothing."""
        _, boxes, batch = island.position.shape
        return jnp.zeros((batch, FREEDOMS + 6 * boxes), island.position.dtype)

    def act(
        self,
        surroundings: Surroundings,
        island: Island,
        boxes: Boxes,
        control: tuple[Scalar, Scalar],
        warm: Float[Array, "B N"],
    ) -> Acting:
        """Accelerations at a state."""
        motion: Motion = island.robot
        matrix = scalars.rotation_matrix(motion.quaternion)
        pose = _pose(motion, matrix)
        found = car_touches.found(pose, surroundings, island, boxes.rotation)
        slots = _slots(surroundings, island, found, boxes.rotation)
        free, drift = _drift(motion, control, matrix, island, boxes)
        rows = _rows(pose, island.position, slots)
        system = _system(rows, slots, _mass(matrix, boxes), drift)
        change = articulated.newton(system, warm)
        total = free + change.T
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


def _mass(matrix: Matrix, boxes: Boxes) -> Float[Array, "B N N"]:
    """Of all unknowns."""
    inertia, count = boxes.inertia, boxes.free.shape[1]
    of_robot = car_floor.mass_matrix(matrix)
    like = matrix[0][0]
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
    return jnp.moveaxis(jnp.stack([jnp.stack(row) for row in table]), -1, 0)


class _Slots(NamedTuple):
    """All contact slots of an island, and between which bodies each is.

    Attributes:
        touch: where; slots [S].
        weight: sum of the two bodies' inverse weights, 1/kg.
        parts: of each part of the Car, 1 where it is the second body, -1 where the first, else 0.
        boxes: the same of each box.
    """

    touch: Touch
    weight: np.ndarray
    parts: Mapping[Part, np.ndarray]
    boxes: tuple[np.ndarray, ...]


def _slots(
    surroundings: Surroundings,
    island: Island,
    found: car_touches.Found,
    rotation: Float[Array, "3 3 K B"],
) -> _Slots:
    """All that touches on an island."""
    count, body = island.position.shape[1], surroundings.body
    # Contacts, the first and the second body: a part of the Car, the number of a box, or neither.
    between: list[tuple[Touch, Part | int | None, Part | int]] = []
    between += [(touch, None, part) for part, touch in found.floor.items()]
    between += [(touch, None, part) for part, touch in found.fixed.items()]
    weights: dict[Part | int | None, float] = {None: 0.0, **WEIGHTS}
    if body is not None:
        posts = touches.at_height(surroundings.near_boxes)
        ground = touches.of_boxes_and_surroundings(
            body, surroundings.post, posts, island.position, rotation
        )
        for k in range(count):
            weights[k] = body.weight
            between += [(_member(touch, k), part, k) for part, touch in found.boxes.items()]
            between.append((_member(ground, k), None, k))
        if body.collide_with_each_other:
            core = touches.core_of(body, island.position, rotation)
            for i, j in zip(*pairs(count), strict=True):
                first, second = _member(core, i), _member(core, j)
                touch = collision.box_and_box(first, body.core, second, body.core)
                between.append((touch, i, j))
    numbers = [touch.distance.shape[0] for touch, _, _ in between]

    def each(values: list[float]) -> np.ndarray:
        return np.repeat(values, numbers)

    def signs(of: Part | int) -> np.ndarray:
        return each([float(second == of) - float(first == of) for _, first, second in between])

    return _Slots(
        touches.joined([touch for touch, _, _ in between], -2),
        each([weights[first] + weights[second] for _, first, second in between]),
        {part: signs(part) for part in Part},
        tuple(signs(k) for k in range(count)),
    )


def _member(tree: Tree, k: int) -> Tree:
    """Of one of the boxes."""
    return jax.tree.map(lambda x: x[..., k, :], tree)


def _rows(pose: Pose, centers: Float[Array, "3 K B"], slots: _Slots) -> Float[Array, "6 N S B"]:
    """Normal, two tangents, spin and two rolls over all unknowns, with friction coefficients."""
    point, normal = slots.touch.point, slots.touch.normal
    axes = (normal, *contact.frame(normal))

    def of(sign: np.ndarray, x: jax.Array) -> jax.Array:
        return jnp.asarray(sign, x.dtype)[:, None] * x

    moved = np.sum(list(slots.parts.values()), axis=0)  # with the body, whichever part it is
    axle = pose.wheels.axis
    wheels = [
        (slots.parts[part], point - pose.wheels.center[:, i][:, None])
        for i, part in enumerate((Part.LEFT, Part.RIGHT))
    ]
    ball = slots.parts[Part.BALL]
    zero = jnp.zeros_like(point)
    slides, turns = [], []
    for e in axes:
        slide = [of(moved, e), of(moved, cross(point - pose.origin[:, None], e) / LENGTH)]
        slide += [of(sign, dot(cross(rim, e), axle) / LENGTH)[None] for sign, rim in wheels]
        slide.append(of(ball, cross(point - pose.ball[:, None], e) / LENGTH))
        turn = [zero, of(moved, e / LENGTH)]
        turn += [of(sign, dot(e, axle) / LENGTH)[None] for sign, _ in wheels]
        turn.append(of(ball, e / LENGTH))
        for k, sign in enumerate(slots.boxes):
            lever = point - centers[:, k][:, None]
            slide += [of(sign, e), of(sign, cross(lever, e) / LENGTH)]
            turn += [zero, of(sign, e / LENGTH)]
        slides.append(jnp.concatenate(slide))
        turns.append(jnp.concatenate(turn))
    both = zip(_FRICTION, (*slides, *turns), strict=True)
    return jnp.stack([c * row for c, row in both])


def _system(
    rows: Float[Array, "6 N S B"],
    slots: _Slots,
    mass: Float[Array, "B N N"],
    drift: Float[Array, "N B"],
) -> articulated.System:
    """The contact law of `contact`, for all slots."""
    rows = rows.transpose(3, 2, 0, 1)
    distance, weight = slots.touch.distance.T, jnp.asarray(slots.weight, rows.dtype)
    d = contact.impedance(distance)
    bias = jnp.einsum("bscn,nb->bsc", rows, drift, precision=jax.lax.Precision.HIGHEST)
    bias = bias.at[..., 0].add(contact.STIFFNESS * d * distance)
    slide = contact.DEFAULT_FRICTION[0]
    softness = 2 * slide**2 * (1 + slide**2) * contact.MASS * weight
    stiffness = jnp.where(distance < 0, d / ((1 - d) * softness), 0)
    return articulated.System(mass, rows, bias, stiffness)
