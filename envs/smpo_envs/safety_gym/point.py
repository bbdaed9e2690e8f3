"""The Point robot: a rigid body that slides along two axes and turns about the vertical.

The slides act along the axes of the body's *initial* frame, so the coordinates q = (x, y, angle)
are measured from the pose at reset. Everything here is exact: the equations of motion, their
semi-implicit Euler step with implicit joint damping, and the order of operations are those of the
simulator behind the original package. Numbers are of the compiled model (SI units).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safety_gym.batched import repeated
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.sensors import GRAVITY, MAGNETIC_FIELD, MOTION

TIMING = Timing(timestep=0.002, substeps=10)

HEIGHT = 0.1  # of the body's origin
MASS = 0.005188790204786391
OFFSET = 0.0192723151357623  # of the centre of mass, ahead of the body's origin
INERTIA = 2.84218274858122e-5  # about the vertical through the origin
SLIDE_DAMPING = 0.01
HINGE_DAMPING = 0.005
GEAR = 0.3  # of both actuators
FORCE_LIMIT = 0.05  # of both actuators, before the gear
READINGS = MOTION


class Point(NamedTuple):
    """Where the robot started, and how it has moved since.

    Attributes:
        start: world position of the body's origin at reset.
        rotation: heading at reset, rad; the slides act along the axes of this frame.
        q: joint coordinates: slide x, slide y, hinge. All 0 at reset.
        v: their rates.
    """

    start: Float[Array, " 2"]
    rotation: Float[Array, ""]
    q: Float[Array, " 3"]
    v: Float[Array, " 3"]

    @property
    def timing(self) -> Timing:
        """Physics steps of 2 ms, ten in an environment step."""
        return TIMING

    @property
    def position(self) -> Float[Array, " 2"]:
        """World position of the body's origin."""
        return self.start + rotate(self.q[:2], jnp.cos(self.rotation), jnp.sin(self.rotation))

    @property
    def height(self) -> float:
        """Of the body's origin, m."""
        return HEIGHT

    @property
    def heading(self) -> Float[Array, ""]:
        """World angle of the body's x axis, rad, not wrapped."""
        return self.rotation + self.q[2]

    @property
    def pose(self) -> Float[Array, " 3"]:
        """World position and heading."""
        return jnp.append(self.position, self.heading)

    @property
    def velocity(self) -> Float[Array, " 2"]:
        """World velocity of the body's origin."""
        return rotate(self.v[:2], jnp.cos(self.rotation), jnp.sin(self.rotation))

    @property
    def turning(self) -> Float[Array, ""]:
        """Rate of the hinge, rad/s."""
        return self.v[2]

    def way_from(self, before: "Point") -> Float[Array, " 2"]:
        """How the body's origin has moved since then, world axes."""
        turn = before.rotation
        return rotate(self.q[:2] - before.q[:2], jnp.cos(turn), jnp.sin(turn))

    def in_frame(self, target: Float[Array, "K 2"]) -> tuple[jax.Array, jax.Array]:
        """Coordinates ahead and left of the robot, each `[K]`, of world positions."""
        origin, (cos, sin) = self.position, self._axis()
        dx, dy = target[:, 0] - origin[0], target[:, 1] - origin[1]
        return cos * dx + sin * dy, cos * dy - sin * dx

    def sensors(self, acceleration: Float[Array, " 3"]) -> Float[Array, " 12"]:
        """Accelerometer, velocimeter, gyro and magnetometer, three axes each.

        The accelerometer shows the acceleration at this very instant (not a difference of
        velocities) with gravity, so +9.81 on z at rest. Rates of the slides are turned by the hinge
        angle, because the slides act along the axes of the body's initial frame.
        """
        cos, sin = self._axis()
        q, v = self.q, self.v
        c, s = jnp.cos(q[2]), jnp.sin(q[2])
        ax, ay = acceleration[0], acceleration[1]
        vx, vy, yaw_rate = v[0], v[1], v[2]
        zero = jnp.zeros_like(yaw_rate)
        return jnp.stack(
            [
                *(c * ax + s * ay, c * ay - s * ax, zero + GRAVITY),
                *(c * vx + s * vy, c * vy - s * vx, zero),
                *(zero, zero, yaw_rate),
                *(MAGNETIC_FIELD * sin, MAGNETIC_FIELD * cos, zero),
            ]
        )

    def standing(self) -> Float[Array, " 3"]:
        """The acceleration as an episode begins: none."""
        return jnp.zeros_like(self.v)

    def simulate_free(self, action: Float[Array, " 2"]) -> tuple["Point", Float[Array, " 3"]]:
        """Ten physics steps without contact, and the joint acceleration after them.

        The acceleration is the one at the new state under the same action, without the implicit
        part of the damping: what the accelerometer shows.
        """
        drive, turn = controls(action)

        def substep(_, motion: Coordinates) -> Coordinates:
            return integrate(motion, *damped_acceleration(motion, *force(motion, drive, turn)))

        motion = repeated(TIMING.substeps, substep, unpack(self))
        return pack(self, motion), free_acceleration(motion, drive, turn)

    def _axis(self) -> tuple[jax.Array, jax.Array]:
        """The direction of the body's x axis."""
        heading = self.heading
        return jnp.cos(heading), jnp.sin(heading)


def at_rest(start: Float[Array, " 2"], rotation: Float[Array, ""]) -> Point:
    """The robot as an episode begins."""
    zeros = jnp.zeros(3, start.dtype)
    return Point(start, rotation, q=zeros, v=zeros)


class Coordinates(NamedTuple):
    """Coordinates and rates as scalars, with the cosine and sine of the hinge angle.

    Scalars, because under `vmap` each becomes a contiguous array, and the arithmetic between them
    vectorises.
    """

    x: jax.Array
    y: jax.Array
    angle: jax.Array
    vx: jax.Array
    vy: jax.Array
    w: jax.Array
    cos: jax.Array
    sin: jax.Array


def rotate(vector: Float[Array, " 2"], cos: jax.Array, sin: jax.Array) -> Float[Array, " 2"]:
    """A vector turned counter-clockwise by the angle of the given cosine and sine."""
    x, y = vector[0], vector[1]
    return jnp.stack([cos * x - sin * y, sin * x + cos * y])


def controls(action: Float[Array, " 2"]) -> tuple[jax.Array, jax.Array]:
    """The drive force (N) and the commanded turn (before the servo's feedback).

    Actions are clipped here and nowhere else; the force limit is within [-1, 1].
    """
    drive = GEAR * jnp.clip(action[0], -FORCE_LIMIT, FORCE_LIMIT)
    return drive, jnp.clip(action[1], -1.0, 1.0)


def unpack(point: Point) -> Coordinates:
    """The scalars of a state; the only transcendental functions of an environment step."""
    q, v = point.q, point.v
    return Coordinates(q[0], q[1], q[2], v[0], v[1], v[2], jnp.cos(q[2]), jnp.sin(q[2]))


def pack(point: Point, motion: Coordinates) -> Point:
    """The state that `motion` describes, of the episode that `point` belongs to."""
    q = jnp.stack([motion.x, motion.y, motion.angle])
    return point._replace(q=q, v=jnp.stack([motion.vx, motion.vy, motion.w]))


def force(motion: Coordinates, drive: jax.Array, turn: jax.Array) -> tuple[jax.Array, ...]:
    """Generalised force in body axes: actuators, centrifugal term and damping."""
    c, s, w = motion.cos, motion.sin, motion.w
    # A velocity servo whose gain makes it unstable at this timestep; the limit holds it.
    torque = GEAR * jnp.clip(turn - GEAR * w, -FORCE_LIMIT, FORCE_LIMIT)
    along = drive + MASS * OFFSET * w * w - SLIDE_DAMPING * (c * motion.vx + s * motion.vy)
    across = -SLIDE_DAMPING * (c * motion.vy - s * motion.vx)
    return along, across, torque - HINGE_DAMPING * w


def free_acceleration(motion: Coordinates, drive: jax.Array, turn: jax.Array) -> Float[Array, " 3"]:
    """Joint acceleration M⁻¹f without contact."""
    along, across, spin = _solve(*force(motion, drive, turn), damping_time=0.0)
    c, s = motion.cos, motion.sin
    return jnp.stack([c * along - s * across, s * along + c * across, spin])


def damped_acceleration(
    motion: Coordinates, along: jax.Array, across: jax.Array, torque: jax.Array
) -> tuple[jax.Array, ...]:
    """(M + hD)⁻¹ f in joint coordinates, for a force f in body axes."""
    along, across, spin = _solve(along, across, torque, damping_time=TIMING.timestep)
    c, s = motion.cos, motion.sin
    return c * along - s * across, s * along + c * across, spin


def integrate(motion: Coordinates, ax: jax.Array, ay: jax.Array, spin: jax.Array) -> Coordinates:
    """One semi-implicit Euler step: first the rates, then the coordinates with the new rates."""
    h = TIMING.timestep
    vx, vy, w = motion.vx + h * ax, motion.vy + h * ay, motion.w + h * spin
    c, s = _small_rotation(h * w)
    return Coordinates(
        motion.x + h * vx,
        motion.y + h * vy,
        motion.angle + h * w,
        vx,
        vy,
        w,
        motion.cos * c - motion.sin * s,
        motion.sin * c + motion.cos * s,
    )


def _small_rotation(angle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine by their series, good to 2e-16 for |angle| < 0.04, i.e. rates of 20 rad/s."""
    a2 = angle * angle
    cos = 1 - a2 * (1 / 2 - a2 * (1 / 24 - a2 / 720))
    sin = angle * (1 - a2 * (1 / 6 - a2 * (1 / 120 - a2 / 5040)))
    return cos, sin


def _solve(
    along: jax.Array, across: jax.Array, torque: jax.Array, *, damping_time: float
) -> tuple[jax.Array, ...]:
    """(M + tD)⁻¹ f in body axes, where the mass matrix M is constant.

    M = [[m, 0, 0], [0, m, mc], [0, mc, I]],  D = diag(slide, slide, hinge)
    """
    m = MASS + damping_time * SLIDE_DAMPING
    inertia = INERTIA + damping_time * HINGE_DAMPING
    coupling = MASS * OFFSET
    scale = 1 / (m * inertia - coupling**2)
    return (
        along * (1 / m),
        (inertia * scale) * across - (coupling * scale) * torque,
        (m * scale) * torque - (coupling * scale) * across,
    )
