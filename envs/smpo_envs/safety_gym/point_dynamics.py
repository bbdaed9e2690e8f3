"""The Point under contacts: what it touches, and how it gives way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safety_gym import batched, contact, point, solver
from smpo_envs.safety_gym.broadphase import Disc, Outline
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.dynamics import Acting, Boxes
from smpo_envs.safety_gym.island import Island, Surroundings
from smpo_envs.safety_gym.point import Coordinates, Point
from smpo_envs.safety_gym.point_touches import system_of, touches_of_robot
from smpo_envs.safety_gym.robot import Timing

Control = tuple[jax.Array, jax.Array]


class _Pushed(NamedTuple):
    """What `PointMechanics.advance` needs: the mass matrix (solver units) and what contacts add."""

    mass: Float[Array, "3 3 B"]
    change: Float[Array, "3 B"]


class PointMechanics:
    """Of the Point; see `dynamics.Mechanics`."""

    timing: Timing = point.TIMING
    steps_in_one_kernel = True
    # The sphere, and the disc around the arrow. The turn servo changes the rate by up to 0.8 rad/s
    # within a physics step.
    outline = Outline(
        (Disc(0.0, 0.0, 0.1, 0.1), Disc(0.1, 0.0, 0.0708, 0.05)), margin=2e-3, spin_margin=1.0
    )

    def gather(self, robot: Point) -> Coordinates:
        """From the frame of the start to world axes."""
        c, s = jnp.cos(robot.rotation), jnp.sin(robot.rotation)
        angle = robot.rotation + robot.q[:, 2]
        x, y = _rotate(robot.q, c, s)
        vx, vy = _rotate(robot.v, c, s)
        return Coordinates(x, y, angle, vx, vy, robot.v[:, 2], jnp.cos(angle), jnp.sin(angle))

    def scatter(self, robot: Point, begin: Coordinates, end: Coordinates) -> Point:
        """Adds the change, in the frame of the start."""
        c, s = jnp.cos(robot.rotation), jnp.sin(robot.rotation)
        p = jax.tree.map(jnp.subtract, end, begin)
        q = jnp.stack([*_rotate(jnp.stack([p.x, p.y], -1), c, -s), p.angle], axis=-1)
        v = jnp.stack([*_rotate(jnp.stack([p.vx, p.vy], -1), c, -s), p.w], axis=-1)
        return robot._replace(q=robot.q + q, v=robot.v + v)

    def felt(self, robot: Point, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
        """Along the joints."""
        x, y = _rotate(acceleration, jnp.cos(robot.rotation), -jnp.sin(robot.rotation))
        return jnp.stack([x, y, acceleration[:, 2]], axis=-1)

    def controls(self, action: Float[Array, "2 B"]) -> Control:
        """Drive and turn."""
        return point.controls(action)

    def unwarmed(self, island: Island) -> solver.Change:
        """Contacts that add nothing."""
        x, position = island.robot.x, island.position
        boxes = jnp.zeros((6, *position.shape[1:]), x.dtype)
        return solver.Change(jnp.zeros((3, *x.shape), x.dtype), boxes)

    def act(
        self,
        surroundings: Surroundings,
        island: Island,
        boxes: Boxes,
        control: Control,
        warm: solver.Change,
    ) -> Acting:
        """Accelerations at a state."""
        x, y, turning = point.free_acceleration(island.robot, *control)
        free = solver.Change(jnp.stack([x, y, LENGTH * turning]), boxes.free)
        system, touching_fixed, touching = system_of(
            surroundings, island, boxes.rotation, free, boxes.inertia
        )
        change, _ = solver.newton(system, warm)
        ax, ay, turning = free.robot + change.robot
        return Acting(
            boxes=free.boxes + change.boxes,
            robot=_Pushed(system.mass, change.robot),
            warm=change,
            felt=jnp.stack([ax, ay, turning / LENGTH]),
            touching_fixed=touching_fixed,
            touching=touching,
        )

    def advance(self, coordinates: Coordinates, control: Control, acting: Acting) -> Coordinates:
        """The damping of the joints is implicit."""
        pushed: _Pushed = acting.robot
        fx, fy, torque = contact.MASS * batched.apply(pushed.mass, pushed.change)
        c, s = coordinates.cos, coordinates.sin
        along, across, spin = point.force(coordinates, *control)
        force = (along + c * fx + s * fy, across - s * fx + c * fy, spin + LENGTH * torque)
        return point.integrate(coordinates, *point.damped_acceleration(coordinates, *force))

    # A little more than an arc and its chord differ by, or two ways to integrate the same path.
    grazing = 1e-4  # m

    def path(self, begin: Coordinates, end: Coordinates, control: Control) -> Coordinates:
        """Step by step."""
        del end

        def step(now: Coordinates) -> Coordinates:
            force = point.force(now, *control)
            return point.integrate(now, *point.damped_acceleration(now, *force))

        return batched.passed_through(self.timing.substeps + 1, step, begin)

    def gap(
        self, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
    ) -> Float[Array, " B"]:
        """Of sphere and arrow from the nearest things."""
        touches = touches_of_robot(surroundings, island, rotation)
        found = [*touches.fixed, *(touches.boxes or ())]
        gaps = [touch.distance.reshape(-1, *island.robot.x.shape) for touch in found]
        return jnp.concatenate(gaps).min(0)


def _rotate(vector: Float[Array, "B n"], cos: jax.Array, sin: jax.Array) -> tuple:
    x, y = vector[:, 0], vector[:, 1]
    return cos * x - sin * y, sin * x + cos * y
