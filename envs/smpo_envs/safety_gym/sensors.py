"""What the robot feels of its own motion, in its body's frame."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safe_env import Reading
from smpo_envs.safety_gym import point
from smpo_envs.safety_gym.lidar import BINS
from smpo_envs.safety_gym.worlds import Motion

GRAVITY = 9.81  # m/s²
MAGNETIC_FIELD = -0.5  # along world y
POINT_READINGS = (
    Reading("accelerometer", 3, "m/s²"),
    Reading("velocimeter", 3, "m/s"),
    Reading("gyro", 3, "rad/s"),
    Reading("magnetometer", 3, "1"),
)
POINT_SENSORS = sum(reading.size for reading in POINT_READINGS)


def readings(seen: tuple[str, ...]) -> tuple[Reading, ...]:
    """Those of the Point, then a lidar for each kind that is seen: 0, nothing, to 1, touching."""
    return (*POINT_READINGS, *(Reading(f"{kind}_lidar", BINS, "1") for kind in seen))


class Frame(NamedTuple):
    """The robot's body frame in the plane."""

    origin: Float[Array, " 2"]
    cos: Float[Array, ""]  # of the heading
    sin: Float[Array, ""]


def frame_of(robot: point.Point) -> Frame:
    """The frame of the robot's body."""
    heading = point.heading(robot)
    return Frame(point.position(robot), jnp.cos(heading), jnp.sin(heading))


def in_frame(frame: Frame, target: Float[Array, "K 2"]) -> tuple[jax.Array, jax.Array]:
    """Coordinates ahead and left of the robot, each `[K]`, of world positions."""
    dx, dy = target[:, 0] - frame.origin[0], target[:, 1] - frame.origin[1]
    return frame.cos * dx + frame.sin * dy, frame.cos * dy - frame.sin * dx


def point_sensors(motion: Motion, frame: Frame) -> Float[Array, " 12"]:
    """Accelerometer, velocimeter, gyro and magnetometer of the Point, three axes each.

    The accelerometer shows the acceleration at this very instant (not a difference of velocities)
    with gravity, so +9.81 on z at rest. Rates of the slides are turned by the hinge angle, because
    the slides act along the axes of the body's initial frame.
    """
    q, v = motion.world.point.q, motion.world.point.v
    c, s = jnp.cos(q[2]), jnp.sin(q[2])
    ax, ay = motion.acceleration[0], motion.acceleration[1]
    vx, vy, yaw_rate = v[0], v[1], v[2]
    zero = jnp.zeros_like(yaw_rate)
    return jnp.stack(
        [
            *(c * ax + s * ay, c * ay - s * ax, zero + GRAVITY),
            *(c * vx + s * vy, c * vy - s * vx, zero),
            *(zero, zero, yaw_rate),
            *(MAGNETIC_FIELD * frame.sin, MAGNETIC_FIELD * frame.cos, zero),
        ]
    )
