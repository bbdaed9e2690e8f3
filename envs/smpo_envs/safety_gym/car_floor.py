"""The Car on the floor with nothing else near: five contacts, solved for in straight-line code.

The contact law and the method are those of `contact` and `solver`, for this one case: normals are
vertical and tangents are the world's axes, so that the ten rows of a contact have few entries, and
the ball and the wheels are eliminated at little cost.

All arrays are of a whole batch, `[B]`: how often the equations are solved is decided for all of it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from smpo_envs.compilation import stored
from smpo_envs.safety_gym import car_body, contact, scalars
from smpo_envs.safety_gym.car_body import Acceleration, Motion
from smpo_envs.safety_gym.scalars import Matrix, Scalar, Sparse, Symmetric, Vector

FRICTION = contact.DEFAULT_FRICTION
MAX_ITERATIONS = 30
# From then on every other step goes half the way only: whole steps may lead round in a circle.
PATIENCE = 10
# The unknowns: accelerations of the body's origin and of its rotation (world axes), of the wheels,
# and of the ball relative to the body (world axes).
_LINEAR, _ANGULAR, _WHEELS, _BALL = (0, 1, 2), (3, 4, 5), (6, 7), (8, 9, 10)
_SMALL = (*_BALL, *_WHEELS)  # which do not depend on each other
Unknowns = dict[int, Scalar]
Equations = tuple[Symmetric, Unknowns]  # a matrix and a right side


class Contact(NamedTuple):
    """A contact with the floor.

    Attributes:
        normal: the row of the normal, over the unknowns.
        others: the rows of two tangents, spin and two rolls, times their friction coefficients.
        offset: what the normal's reference acceleration demands for the depth.
        stiffness: 1/ρ; 0 if there is no contact.
    """

    normal: Sparse
    others: tuple[Sparse, ...]
    offset: Scalar
    stiffness: Scalar


def contacts(height: Scalar, rotation: Matrix) -> list[Contact]:
    """Of the two lowest points of each wheel, and of the ball.

    Args:
        height: of the body's origin.
        rotation: of the body.
    """
    axle = (rotation[0][0], rotation[1][0], rotation[2][0])
    level = jnp.sqrt(1 - axle[2] * axle[2])
    found = []
    for unknown, place in zip(_WHEELS, car_body.WHEELS, strict=True):
        wheel = scalars.apply(rotation, place)
        for end in (-car_body.WHEEL_HALF_WIDTH, car_body.WHEEL_HALF_WIDTH):
            distance = height + wheel[2] + end * axle[2] - car_body.WHEEL_RADIUS * level
            along = end + car_body.WHEEL_RADIUS * axle[2] / level
            lever = (along * axle[0], along * axle[1], distance / 2 - height - wheel[2])
            own = {unknown: (scalars.cross(axle, lever), axle)}
            found.append(_contact(scalars.add(wheel, lever), own, distance, car_body.WHEEL_WEIGHT))
    ball = scalars.apply(rotation, car_body.BALL)
    distance = height + ball[2] - car_body.BALL_RADIUS
    below = distance / 2 - height - ball[2]
    x, y, z = _BALL
    own = {
        x: ((0.0, -below, 0.0), (1.0, 0.0, 0.0)),
        y: ((below, 0.0, 0.0), (0.0, 1.0, 0.0)),
        z: ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    }
    point = (ball[0], ball[1], ball[2] + below)
    return [*found, _contact(point, own, distance, car_body.BALL_WEIGHT)]


def _contact(
    point: Vector, own: dict[int, tuple[Vector, Vector]], distance: Scalar, weight: float
) -> Contact:
    """A contact of a wheel or the ball.

    Args:
        point: where, from the body's origin.
        own: of each unknown of the wheel or the ball, the velocity there and the angular velocity.
        distance: of the two surfaces.
        weight: inverse weight.
    """
    rx, ry, rz = point
    of_body: list[Sparse] = [
        {0: 1.0, 4: rz, 5: -ry},
        {1: 1.0, 5: rx, 3: -rz},
        {2: 1.0, 3: ry, 4: -rx},
    ]
    turns: list[Sparse] = [{i: 1.0} for i in _ANGULAR]
    x, y, z = (_row(row, {i: v[k] for i, (v, _) in own.items()}) for k, row in enumerate(of_body))
    *rolls, spin = (
        _row(row, {i: w[k] for i, (_, w) in own.items()}) for k, row in enumerate(turns)
    )
    rows = (y, x, spin, rolls[1], rolls[0])
    others = tuple(_times(c, row) for c, row in zip(FRICTION, rows, strict=True))
    d = contact.impedance(distance)
    softness = 2 * FRICTION[0] ** 2 * (1 + FRICTION[0] ** 2) * weight
    stiffness = jnp.where(distance < 0, d / ((1 - d) * softness), 0)
    return Contact(z, others, contact.STIFFNESS * d * distance, stiffness)


def _row(body: Sparse, own: Sparse) -> Sparse:
    return {**body, **{i: x for i, x in own.items() if not (isinstance(x, float) and x == 0)}}


def _times(factor: Scalar, row: Sparse) -> Sparse:
    return (
        row
        if isinstance(factor, float) and factor == 1
        else {i: factor * x for i, x in row.items()}
    )


def mass_matrix(rotation: Matrix) -> Symmetric:
    """Of the unknowns."""
    masses, columns = car_body.MASSES, scalars.transposed(rotation)
    cx, cy, cz = scalars.scale(masses.total, scalars.apply(rotation, car_body.CENTRE))
    matrix: Symmetric = {(i, i): masses.total for i in _LINEAR}
    matrix |= {(3, 1): -cz, (3, 2): cy, (4, 0): cz, (4, 2): -cx, (5, 0): -cy, (5, 1): cx}
    (xx, _, _), (_, yy, yz), (_, _, zz) = masses.about_origin().tolist()
    half = (
        scalars.scale(xx, columns[0]),
        scalars.add(scalars.scale(yy, columns[1]), scalars.scale(yz, columns[2])),
        scalars.add(scalars.scale(yz, columns[1]), scalars.scale(zz, columns[2])),
    )
    for i in range(3):
        for j in range(i + 1):
            matrix[_ANGULAR[i], _ANGULAR[j]] = _sum(half[k][i] * columns[k][j] for k in range(3))
    for wheel in _WHEELS:
        matrix[wheel, wheel] = masses.wheel
        matrix |= {(wheel, i): masses.wheel * x for i, x in zip(_ANGULAR, columns[0], strict=True)}
    for ball, turn in zip(_BALL, _ANGULAR, strict=True):
        matrix[ball, ball] = matrix[ball, turn] = masses.ball
    return matrix


class Floor(NamedTuple):
    """What is known when accelerations are looked for.

    Attributes:
        contacts: with the floor.
        mass: of the unknowns.
        force: mass times (acceleration without contact, plus velocity times the contacts' damping).
    """

    contacts: list[Contact]
    mass: Symmetric
    force: Unknowns


class Pull(NamedTuple):
    """Second derivatives of a contact's penalty: with the normal n, rows g and what follows,.

        n mᵀ + m nᵀ + Σ counts g gᵀ,  m = normal/2 n + Σ ± g.

    Attributes:
        normal: along the normal.
        mixed: m.
        counts: along each of the other rows.
        active: which of the ten rows fall short of their reference, in bits.
    """

    normal: Scalar
    mixed: Sparse
    counts: tuple[Scalar, ...]
    active: Scalar


def _pulls(floor: Floor, total: Unknowns) -> list[Pull]:
    """What contacts do at some accelerations (plus damped velocities)."""
    seen = [
        (
            scalars.inner(at.normal, total) + at.offset,
            [scalars.inner(row, total) for row in at.others],
        )
        for at in floor.contacts
    ]
    pairs = zip(floor.contacts, stored(seen), strict=True)
    return stored([_pull(at, *values) for at, values in pairs])


def _pull(at: Contact, normal: Scalar, others: Sequence[Scalar]) -> Pull:
    k = at.stiffness
    falls = [(normal + x < 0, normal - x < 0) for x in others]
    forces = [tuple(jnp.where(fall, k, 0) for fall in pair) for pair in falls]
    counts = tuple(plus + minus for plus, minus in forces)
    along = _sum(counts)
    mixed = dict(_times(along / 2, at.normal))
    for row, (plus, minus) in zip(at.others, forces, strict=True):
        for i, x in row.items():
            part = (plus - minus) * x
            mixed[i] = mixed[i] + part if i in mixed else part
    bits = (
        jnp.where(fall, jnp.int32(1 << i), jnp.int32(0))
        for i, fall in enumerate(fall for pair in falls for fall in pair)
    )
    active = jnp.where(k > 0, _sum(bits), jnp.int32(0))
    return Pull(along, mixed, counts, active)


def _sum(terms):
    first, *rest = terms
    return sum(rest, start=first)


def _equations(floor: Floor, pulls: list[Pull]) -> Equations:
    """Where the energy's slope is 0, as long as the active rows are these."""
    matrix, right = dict(floor.mass), dict(floor.force)
    for at, pull in zip(floor.contacts, pulls, strict=True):
        scalars.add_mixed(matrix, at.normal, pull.mixed)
        for row, count in zip(at.others, pull.counts, strict=True):
            scalars.add_square(matrix, count, row)
        for i, x in pull.mixed.items():
            right[i] = right[i] - at.offset * x
        for i, x in at.normal.items():
            right[i] = right[i] - at.offset * (pull.normal / 2) * x
    return matrix, right


class Small(NamedTuple):
    """The equations of the wheels and the ball.

    Attributes:
        rows: what of the body each of them depends on.
        shares: the same, divided by what is on the diagonal.
        known: their right sides, divided as well.
    """

    rows: Mapping[int, Sparse]
    shares: Mapping[int, Sparse]
    known: Unknowns


def _of_small(floor: Floor, pulls: list[Pull]) -> Small:
    matrix, right = _equations(floor, pulls)
    rows = {i: {j: x for (k, j), x in matrix.items() if k == i and j != i} for i in _SMALL}
    shares = {i: {j: x / matrix[i, i] for j, x in row.items()} for i, row in rows.items()}
    return Small(rows, shares, {i: right[i] / matrix[i, i] for i in _SMALL})


def _of_body(floor: Floor, pulls: list[Pull], small: Small) -> Equations:
    """The equations that are left for the body."""
    matrix, right = _equations(floor, pulls)
    body = (*_LINEAR, *_ANGULAR)
    matrix = {at: x for at, x in matrix.items() if max(at) in body}
    right = {i: right[i] for i in body}
    for i, row in small.rows.items():
        scalars.subtract_outer(matrix, small.shares[i], row)
        for j, x in row.items():
            right[j] = right[j] - x * small.known[i]
    return matrix, right


def _solution(floor: Floor, pulls: list[Pull]) -> Unknowns:
    """Of the equations, by elimination: wheels and ball, then the body's acceleration."""
    small = stored(_of_small(floor, pulls))
    matrix, right = stored(_of_body(floor, pulls, small))
    linear = stored(scalars.inverse(scalars.block(matrix, _LINEAR, _LINEAR)))
    mixed = scalars.block(matrix, _LINEAR, _ANGULAR)
    angular = scalars.block(matrix, _ANGULAR, _ANGULAR)
    push, torque = (tuple(right[i] for i in part) for part in (_LINEAR, _ANGULAR))

    columns = scalars.transposed(mixed)
    given = [scalars.apply(linear, column) for column in columns]
    first, second, third = (
        tuple(x - scalars.dot(column, a) for x, a in zip(row, given, strict=True))
        for row, column in zip(angular, columns, strict=True)
    )
    rest = tuple(t - scalars.dot(a, push) for t, a in zip(torque, given, strict=True))
    left, rest = stored(((first, second, third), rest))
    turn = stored(scalars.apply(scalars.inverse(left), rest))
    rest = scalars.add(push, scalars.scale(-1.0, scalars.apply(mixed, turn)))
    body = dict(enumerate((*stored(scalars.apply(linear, rest)), *turn)))
    return body | {i: x - scalars.inner(small.shares[i], body) for i, x in small.known.items()}


def forward(motion: Motion, torques: tuple[Scalar, Scalar], rotation: Matrix) -> Acceleration:
    """Accelerations under the floor's contacts.

    Args:
        motion: the state.
        torques: of the motors.
        rotation: of the body.
    """
    velocities = (
        *motion.velocity,
        *scalars.apply(rotation, motion.spin),
        *motion.wheels,
        *scalars.apply(rotation, motion.ball_spin),
    )
    damped = {i: contact.DAMPING * v for i, v in enumerate(velocities)}
    free = car_body.free_acceleration(motion, torques, rotation)
    accelerations = (
        *free.origin,
        *scalars.apply(rotation, free.turn),
        *free.wheels,
        *scalars.apply(rotation, free.ball),
    )
    drift = stored({i: a + damped[i] for i, a in enumerate(accelerations)})
    mass = mass_matrix(rotation)
    force = {
        i: _sum(
            mass[max(i, j), min(i, j)] * x
            for j, x in drift.items()
            if (max(i, j), min(i, j)) in mass
        )
        for i in drift
    }
    floor = Floor(contacts(motion.offset[2], rotation), mass, force)

    def unfinished(carry):
        *_, finished, iterations = carry
        return ~finished & (iterations < MAX_ITERATIONS)

    def improve(carry):
        total, pulls, _, iterations = carry
        whole = (iterations < PATIENCE) | (iterations % 2 == 1)
        solved = _solution(floor, pulls)
        total = {i: jnp.where(whole, solved[i], (x + solved[i]) / 2) for i, x in total.items()}
        now = _pulls(floor, total)
        same = [jnp.all(a.active == b.active) for a, b in zip(pulls, now, strict=True)]
        return total, now, whole & jnp.all(jnp.stack(same)), iterations + 1

    start = (drift, _pulls(floor, drift), jnp.bool_(False), jnp.int32(0))
    total, *_ = jax.lax.while_loop(unfinished, improve, start)
    x = [total[i] - damped[i] for i in total]
    back = scalars.transposed(rotation)
    return Acceleration(
        origin=(x[0], x[1], x[2]),
        turn=scalars.apply(back, (x[3], x[4], x[5])),
        wheels=(x[6], x[7]),
        ball=scalars.apply(back, (x[8], x[9], x[10])),
    )


def simulate(start: Motion, torques: tuple[Scalar, Scalar]) -> tuple[Motion, Vector]:
    """Ten physics steps, and the acceleration of the body's origin after them (world axes)."""

    def substep(k, carry):
        motion, _ = carry
        rotation = stored(scalars.rotation_matrix(motion.quaternion))
        now = forward(motion, torques, rotation)
        after = car_body.integrate(motion, now, rotation)
        moves = k < car_body.TIMING.substeps
        moved = jax.tree.map(lambda a, b: jnp.where(moves, b, a), motion, after)
        return moved, now.origin

    zero = jnp.zeros_like(start.offset[0])
    # Not `repeated`: each turn has a loop of its own, so that there is nothing to win written out.
    return jax.lax.fori_loop(0, car_body.TIMING.substeps + 1, substep, (start, (zero, zero, zero)))
