"""The Car's body, wheels and ball: what they weigh, and how they move under given accelerations.

The wheels and the ball are round, so that what turns with the body has the same moments of inertia
at all times, and so that the angles of the wheels make no difference to anything.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smpo_envs.safety_gym import scalars
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.scalars import Matrix, Quaternion, Scalar, Vector
from smpo_envs.safety_gym.sensors import GRAVITY

TIMING = Timing(timestep=0.004, substeps=10)

HEIGHT = 0.1  # of the body's origin at reset
DENSITY = 5.0
TORQUE_LIMIT = 0.02  # of both motors
DAMPING = 0.001  # of the wheels' and the ball's joints
WHEEL_RADIUS, WHEEL_HALF_WIDTH = 0.05, 0.025
BALL_RADIUS = 0.05
WHEELS: tuple[Vector, Vector] = ((-0.13, 0.1, -0.05), (0.13, 0.1, -0.05))  # centres, of the body
BALL: Vector = (0.0, -0.1, -0.05)
# Translational inverse weights, 1/kg, of the body, of each wheel and of the ball.
BODY_WEIGHT, WHEEL_WEIGHT, BALL_WEIGHT = 33.254826954403, 104.221266627447, 64.228776950342


class Part(NamedTuple):
    """A box of the body: where it is, and half of its sizes."""

    center: Vector
    half: Vector


PARTS = {
    "agent": Part((0.0, 0.0, 0.0), (0.1, 0.1, 0.05)),
    "back_bumper": Part((0.0, 0.15, 0.0), (0.1, 0.01, 0.05)),
    "back_connector": Part((0.0, 0.125, 0.0), (0.01, 0.025, 0.03)),
    "front_bumper": Part((0.0, -0.165, 0.0), (0.05, 0.01, 0.05)),
    "front_connector": Part((0.0, -0.13, 0.04), (0.05, 0.03, 0.01)),
}


class _Masses(NamedTuple):
    """How the whole Car resists acceleration, its wheels and its ball held or free to spin.

    Attributes:
        total: mass.
        centre: of mass, from the body's origin.
        inertia: about the centre of mass, of what turns with the body: wheels about their axis, and
            the ball, are left out.
        wheel: moment of inertia of a wheel about its axis.
        ball: moment of inertia of the ball.
    """

    total: float
    centre: np.ndarray
    inertia: np.ndarray
    wheel: float
    ball: float

    def about_origin(self) -> np.ndarray:
        """The inertia about the body's origin, of everything turning together."""
        axle = np.diag([2 * self.wheel, 0, 0])
        return self.inertia + axle + self.ball * np.eye(3) + _shift(self.total, self.centre)


def _shift(mass: float, offset: np.ndarray) -> np.ndarray:
    """What a mass adds to the inertia about a point that it is `offset` away from."""
    return mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))


def _masses() -> _Masses:
    of = [(8 * DENSITY * math.prod(p.half), np.array(p.center), p.half) for p in PARTS.values()]
    bodies = [
        (m, at, m / 3 * np.diag([b * b + c * c, a * a + c * c, a * a + b * b]))
        for m, at, (a, b, c) in of
    ]
    radius, width = WHEEL_RADIUS, 2 * WHEEL_HALF_WIDTH
    wheel = math.pi * radius**2 * width * DENSITY
    across = wheel * (3 * radius**2 + width**2) / 12
    bodies += [(wheel, np.array(at), np.diag([0, across, across])) for at in WHEELS]
    ball = 4 / 3 * math.pi * BALL_RADIUS**3 * DENSITY
    bodies.append((ball, np.array(BALL), np.zeros((3, 3))))
    total = sum(m for m, _, _ in bodies)
    centre = np.sum([m * at for m, at, _ in bodies], axis=0) / total
    inertia = np.sum([own + _shift(m, at - centre) for m, at, own in bodies], axis=0)
    assert abs(inertia[0, 1]) < 1e-18 and abs(inertia[0, 2]) < 1e-18  # alike on both sides
    return _Masses(total, centre, inertia, wheel * radius**2 / 2, 0.4 * ball * BALL_RADIUS**2)


MASSES = _masses()
CENTRE: Vector = (0.0, float(MASSES.centre[1]), float(MASSES.centre[2]))


class Motion(NamedTuple):
    """Where the Car is and how it moves, as scalars (see `scalars`).

    Attributes:
        offset: of the body's origin from where it started; its height is above the floor.
        quaternion: orientation of the body.
        velocity: of the body's origin, world axes.
        spin: angular velocity, body axes.
        wheels: rates of the left and the right wheel about the body's x axis, rad/s.
        ball: orientation of the ball relative to the body.
        ball_spin: its angular velocity relative to the body, body axes.
    """

    offset: Vector
    quaternion: Quaternion
    velocity: Vector
    spin: Vector
    wheels: tuple[Scalar, Scalar]
    ball: Quaternion
    ball_spin: Vector


class Acceleration(NamedTuple):
    """Of all freedoms, as the simulator has them.

    Attributes:
        origin: of the body's origin, world axes.
        turn: of the body's rotation, body axes.
        wheels: of their rates.
        ball: of the ball's angular velocity relative to the body, in axes that turn with the ball
            but coincide with the body's just now.
    """

    origin: Vector
    turn: Vector
    wheels: tuple[Scalar, Scalar]
    ball: Vector


def torques(action: Float[Array, "2 *s"]) -> tuple[Scalar, Scalar]:
    """Of the left and the right motor; the limit is within [-1, 1]."""
    limited = jnp.clip(action, -TORQUE_LIMIT, TORQUE_LIMIT)
    return limited[0], limited[1]


def free_acceleration(
    motion: Motion, torques: tuple[Scalar, Scalar], rotation: Matrix
) -> Acceleration:
    """Without contact: motors, damping, gravity, and what turns keeps its angular momentum."""
    spin, ball_spin = motion.spin, motion.ball_spin
    left, right = (t - DAMPING * w for t, w in zip(torques, motion.wheels, strict=True))
    drag = scalars.scale(DAMPING, ball_spin)
    momentum = _linked(MASSES.inertia, spin)
    axle = MASSES.wheel * (2 * spin[0] + motion.wheels[0] + motion.wheels[1])
    momentum = (momentum[0] + axle, momentum[1], momentum[2])
    x, y, z = scalars.add(scalars.cross(momentum, spin), drag)
    turn = _linked(_INVERSE_INERTIA, (x - left - right, y, z))
    ball = scalars.add(
        scalars.scale(-1 / MASSES.ball, drag),
        scalars.scale(-1.0, turn),
        scalars.cross(ball_spin, spin),
    )
    # Free fall is that of the centre of mass.
    arm = scalars.add(scalars.cross(CENTRE, turn), scalars.cross(scalars.cross(spin, CENTRE), spin))
    ax, ay, az = scalars.apply(rotation, arm)
    wheels = (left / MASSES.wheel - turn[0], right / MASSES.wheel - turn[0])
    return Acceleration((ax, ay, az - GRAVITY), turn, wheels, ball)


def integrate(motion: Motion, acceleration: Acceleration, rotation: Matrix) -> Motion:
    """One semi-implicit Euler step; the damping of the joints is implicit.

    The implicit part are torques -h D q'' of the joints. Those of the wheels and of the ball can be
    put into moments of inertia, and what is left is a small equation for the body's rotation, whose
    right side they are.
    """
    h, origin, turn, wheels, ball = TIMING.timestep, *acceleration
    x, y, z = scalars.scale(_BALL_DRAG, ball)
    extra = _linked(_IMPLICIT, (x + _WHEEL_DRAG * (wheels[0] + wheels[1]), y, z))
    back = scalars.apply(rotation, scalars.cross(CENTRE, extra))
    velocity = _after(motion.velocity, h, scalars.add(origin, back))
    spin = _after(motion.spin, h, scalars.add(turn, extra))
    left, right = (
        w + h * MASSES.wheel / (MASSES.wheel + h * DAMPING) * (a - extra[0])
        for w, a in zip(motion.wheels, wheels, strict=True)
    )
    held = h * MASSES.ball / (MASSES.ball + h * DAMPING)
    ball_spin = _after(motion.ball_spin, held, scalars.add(ball, scalars.scale(-1.0, extra)))
    return Motion(
        offset=_after(motion.offset, h, velocity),
        quaternion=scalars.product(motion.quaternion, scalars.small_turn(scalars.scale(h, spin))),
        velocity=velocity,
        spin=spin,
        wheels=(left, right),
        # A rotation about an axis leaves the axis as it is, so it may be seen from the body.
        ball=scalars.product(scalars.small_turn(scalars.scale(h, ball_spin)), motion.ball),
        ball_spin=ball_spin,
    )


def _after(a: Vector, time: float, rate: Vector) -> Vector:
    return scalars.add(a, scalars.scale(time, rate))


def _linked(matrix: np.ndarray, a: Vector) -> Vector:
    """The product with a constant matrix that does not mix x with y and z."""
    i = matrix.tolist()
    return i[0][0] * a[0], i[1][1] * a[1] + i[1][2] * a[2], i[2][1] * a[1] + i[2][2] * a[2]


_INVERSE_INERTIA = np.linalg.inv(MASSES.inertia)
_DAMPED = TIMING.timestep * DAMPING
_WHEEL_DRAG = _DAMPED * MASSES.wheel / (MASSES.wheel + _DAMPED)
_BALL_DRAG = _DAMPED * MASSES.ball / (MASSES.ball + _DAMPED)
_IMPLICIT = np.linalg.inv(
    MASSES.inertia + _BALL_DRAG * np.eye(3) + np.diag([2 * _WHEEL_DRAG, 0, 0])
)
