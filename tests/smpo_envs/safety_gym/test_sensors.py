"""Sensors of hand-made motions."""

import jax.numpy as jnp
import numpy as np

from smpo_envs.safety_gym.point import Point, at_rest


def test_point_sensors_are_in_the_body_frame():
    # Started heading along world y, turned by another quarter: the body's x axis is world -x,
    # and in the frame of the slides it is +y.
    robot = Point(
        start=jnp.array([3.0, 4.0]),
        rotation=jnp.asarray(np.pi / 2),
        q=jnp.array([0.0, 0.0, np.pi / 2]),
        v=jnp.array([1.0, 2.0, 0.3]),
    )
    readings = robot.sensors(jnp.array([5.0, 7.0, 11.0]))
    expected = [
        *(7.0, -5.0, 9.81),  # accelerometer: slide y is ahead, slide x is to the right
        *(2.0, -1.0, 0.0),  # velocimeter
        *(0.0, 0.0, 0.3),  # gyro
        *(0.0, 0.5, 0.0),  # magnetometer: (0, -0.5, 0) seen when heading along -x
    ]
    np.testing.assert_allclose(readings, expected, atol=1e-6)


def test_in_frame_gives_coordinates_ahead_and_left():
    robot = at_rest(jnp.array([1.0, 1.0]), jnp.asarray(np.pi / 2))  # along y
    ahead, left = robot.in_frame(jnp.array([[1.0, 3.0], [0.0, 1.0]]))
    np.testing.assert_allclose(ahead, [2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(left, [0.0, 1.0], atol=1e-6)
