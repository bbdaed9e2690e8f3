"""Sensors of hand-made motions."""

import jax.numpy as jnp
import numpy as np

from smpo_envs.safety_gym.point import Point
from smpo_envs.safety_gym.sensors import Frame, in_frame, point_sensors
from smpo_envs.safety_gym.worlds import NOTHING, initial_world, standing


def test_point_sensors_are_in_the_body_frame():
    # Started heading along world y, turned by another quarter: the body's x axis is world -x,
    # and in the frame of the slides it is +y.
    robot = Point(
        start=jnp.array([3.0, 4.0]),
        rotation=jnp.asarray(np.pi / 2),
        q=jnp.array([0.0, 0.0, np.pi / 2]),
        v=jnp.array([1.0, 2.0, 0.3]),
    )
    motion = standing(initial_world(NOTHING, robot))
    motion = motion._replace(acceleration=jnp.array([5.0, 7.0, 11.0]))
    readings = point_sensors(motion, Frame(jnp.zeros(2), jnp.asarray(-1.0), jnp.asarray(0.0)))
    expected = [
        *(7.0, -5.0, 9.81),  # accelerometer: slide y is ahead, slide x is to the right
        *(2.0, -1.0, 0.0),  # velocimeter
        *(0.0, 0.0, 0.3),  # gyro
        *(0.0, 0.5, 0.0),  # magnetometer: (0, -0.5, 0) seen when heading along -x
    ]
    np.testing.assert_allclose(readings, expected, atol=1e-6)


def test_in_frame_gives_coordinates_ahead_and_left():
    frame = Frame(jnp.array([1.0, 1.0]), cos=jnp.asarray(0.0), sin=jnp.asarray(1.0))  # along y
    ahead, left = in_frame(frame, jnp.array([[1.0, 3.0], [0.0, 1.0]]))
    np.testing.assert_allclose(ahead, [2.0, 0.0])
    np.testing.assert_allclose(left, [0.0, 1.0])
