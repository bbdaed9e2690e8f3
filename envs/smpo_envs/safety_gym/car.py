"""The Car robot: a free body on two driven wheels and a ball, which touch the floor.

Its front is -y of the body; "left" and "right" are the names that the original has for the wheels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safe_env import Reading
from smpo_envs.safety_gym import car_body, car_floor
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.scalars import rotation_matrices
from smpo_envs.safety_gym.sensors import GRAVITY, MAGNETIC_FIELD, MOTION
from smpo_envs.sparse import in_chunks

READINGS = (*MOTION, Reading("ballangvel_rear", 3, "rad/s"), Reading("ballquat_rear", 9, "1"))
_CHUNK = 64  # environments of which all that is computed at once fits into a core's cache


class Car(NamedTuple):
    """Where the robot started, and where it is and how it moves now: see `car_body.Motion`."""

    start: Float[Array, " 2"]
    offset: Float[Array, " 3"]
    quaternion: Float[Array, " 4"]
    linear: Float[Array, " 3"]
    spin: Float[Array, " 3"]
    wheels: Float[Array, " 2"]
    ball: Float[Array, " 4"]
    ball_spin: Float[Array, " 3"]

    @property
    def timing(self) -> Timing:
        """Physics steps of 4 ms, ten in an environment step."""
        return car_body.TIMING

    @property
    def position(self) -> Float[Array, " 2"]:
        """World position of the body's origin."""
        return self.start + self.offset[:2]

    @property
    def height(self) -> Float[Array, ""]:
        """Of the body's origin, m."""
        return self.offset[2]

    @property
    def pose(self) -> Float[Array, " 3"]:
        """World position, and the angle that the front points in."""
        front = -self._rotation()[:2, 1]
        return jnp.append(self.position, jnp.arctan2(front[1], front[0]))

    @property
    def velocity(self) -> Float[Array, " 2"]:
        """World velocity of the body's origin."""
        return self.linear[:2]

    @property
    def turning(self) -> Float[Array, ""]:
        """Rate about the vertical, rad/s."""
        r = self._rotation()
        return r[2, 0] * self.spin[0] + r[2, 1] * self.spin[1] + r[2, 2] * self.spin[2]

    def way_from(self, before: "Car") -> Float[Array, " 2"]:
        """How the body's origin has moved since then, world axes."""
        return self.offset[:2] - before.offset[:2]

    def in_frame(self, target: Float[Array, "K 2"]) -> tuple[jax.Array, jax.Array]:
        """Coordinates along the body's x and y axes, each `[K]`, of places on the floor.

        The body may be tilted, and its origin is above the floor.
        """
        r, origin = self._rotation(), self.position
        dx, dy, dz = target[:, 0] - origin[0], target[:, 1] - origin[1], -self.height
        x, y = (r[0, i] * dx + r[1, i] * dy + r[2, i] * dz for i in range(2))
        return x, y

    def sensors(self, acceleration: Float[Array, " 3"]) -> Float[Array, " 24"]:
        """Accelerometer, velocimeter, gyro, magnetometer; the ball's angular velocity and rotation.

        The accelerometer shows the acceleration at this very instant, with gravity. The ball's are
        those of its joint: its angular velocity along its own axes, and its rotation matrix.
        """
        r = self._rotation()
        up = jnp.zeros_like(acceleration).at[2].set(GRAVITY)
        ball = rotation_matrices(self.ball)
        return jnp.concatenate(
            [
                _seen_from(r, acceleration + up),
                _seen_from(r, self.linear),
                self.spin,
                MAGNETIC_FIELD * r[1],
                _seen_from(ball, self.ball_spin),
                ball.reshape(9),
            ]
        )

    def standing(self) -> Float[Array, " 3"]:
        """The acceleration as an episode begins: none.

        Deviation: the original's is decided by the last bits of where its wheels are.
        """
        return jnp.zeros_like(self.linear)

    def simulate_free(self, action: Float[Array, " 2"]) -> tuple["Car", Float[Array, " 3"]]:
        """Ten physics steps on the floor, and the acceleration of the body's origin after them."""
        return in_chunks(_simulate, (self, action), _CHUNK)

    def _rotation(self) -> Float[Array, "3 3"]:
        return rotation_matrices(self.quaternion)


def at_rest(start: Float[Array, " 2"], rotation: Float[Array, ""]) -> Car:
    """The robot as an episode begins."""
    dtype, zero = start.dtype, jnp.zeros_like(rotation)
    return Car(
        start,
        offset=jnp.array([0.0, 0.0, car_body.HEIGHT], dtype),
        quaternion=jnp.stack([jnp.cos(rotation / 2), zero, zero, jnp.sin(rotation / 2)]),
        linear=jnp.zeros(3, dtype),
        spin=jnp.zeros(3, dtype),
        wheels=jnp.zeros(2, dtype),
        ball=jnp.array([1.0, 0.0, 0.0, 0.0], dtype),
        ball_spin=jnp.zeros(3, dtype),
    )


def _simulate(
    given: tuple[Car, Float[Array, "B 2"]],
) -> tuple[Car, Float[Array, "B 3"]]:
    """`Car.simulate_free` of a whole batch."""
    start, action = given
    # Each component an array of its own, over the batch.
    components: Any = (tuple(jnp.unstack(x, axis=1)) for x in start[1:])
    motion = car_body.Motion(*components)
    end, acceleration = car_floor.simulate(motion, car_body.torques(action.T))
    moved = Car(start.start, *(jnp.stack(x, axis=1) for x in end))
    return moved, jnp.stack(acceleration, axis=1)


def _seen_from(rotation: Float[Array, "3 3"], vector: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """A vector of the world in the axes of a body."""
    return rotation[0] * vector[0] + rotation[1] * vector[1] + rotation[2] * vector[2]
