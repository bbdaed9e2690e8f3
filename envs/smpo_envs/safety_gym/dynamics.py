"""Ten physics steps of an island under contacts, and whether the robot would have any."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import batched, contact, gremlins, solver
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Touch
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.island import Island, Spring, Surroundings, rotated
from smpo_envs.safety_gym.narrowphase import system_of, touches_of_robot
from smpo_envs.safety_gym.scalars import rotation_matrices

GRAVITY = 9.81


class Free(NamedTuple):
    """What the robot and the boxes do without contacts, and how they resist them."""

    change: solver.Change
    inertia: solver.Inertia


def _free_fall(body: Body, island: Island, rotation: Float[Array, "3 3 K B"]) -> Free:
    """Boxes under gravity; one whose moments of inertia differ precesses."""
    spin = island.spin
    across, upright = body.inertia
    precession = (upright - across) / across
    turning = precession * spin[2] * jnp.stack([-spin[1], spin[0], jnp.zeros_like(spin[0])])
    fall = jnp.zeros_like(island.velocity).at[2].set(-GRAVITY)
    up = rotation[:, 2]
    eye = jnp.eye(3, dtype=spin.dtype)[:, :, None, None]
    unit = contact.MASS * LENGTH**2
    angular = (across * eye + (upright - across) * batched.outer(up, up)) / unit
    mass = jnp.full(spin.shape[1:], body.mass / contact.MASS, spin.dtype)
    return _free(fall, turning, rotation, solver.Inertia(mass, angular))


def _spring_held(
    spring: Spring, target: Float[Array, "3 K B"], island: Island, rotation: jax.Array
) -> Free:
    """Gremlins under gravity and their springs."""
    turn = gremlins.rotation_between(island.quaternion, spring.quaternion)
    error = target - island.position
    (pull, turning), (mass, angular) = gremlins.spring_response(
        error, island.velocity, turn, island.spin
    )
    # From body to world axes: R A Rᵀ.
    half_way = batched.total(rotation[:, i][:, None] * angular[i] for i in range(3))
    angular = batched.total(half_way[:, i][:, None] * rotation[:, i] for i in range(3))
    return _free(pull, turning, rotation, solver.Inertia(mass, angular))


def _free(linear, turning, rotation, inertia: solver.Inertia) -> Free:
    world = batched.apply(rotation, turning)
    twist = jnp.concatenate([linear, LENGTH * world])
    return Free(solver.Change(jnp.zeros((3, twist.shape[-1]), twist.dtype), twist), inertia)


class Dynamics(NamedTuple):
    """What acts at a state.

    Attributes:
        free: accelerations without contacts.
        change: what contacts add to them.
        rotation: of the boxes, body to world.
        mass: the robot's mass matrix, solver units.
        touching_fixed: contact points of the robot with each fixed thing.
        touching: contact points of the robot with each box.
    """

    free: solver.Change
    change: solver.Change
    rotation: Float[Array, "3 3 K B"]
    mass: Float[Array, "3 3 B"]
    touching_fixed: Int[Array, "F B"]
    touching: Int[Array, "K B"]


def dynamics(
    surroundings: Surroundings,
    island: Island,
    target: Float[Array, "3 K B"] | None,
    control: tuple[jax.Array, jax.Array],
    warm: solver.Change,
) -> Dynamics:
    """Accelerations at a state.

    Args:
        surroundings: what is around.
        island: the state.
        target: where springs would have the boxes, if there are any.
        control: of the robot's two actuators.
        warm: a guess of what contacts add, such as the last step's.
    """
    rotation = rotation_matrices(island.quaternion)
    if surroundings.body is None:
        free = Free(warm, solver.Inertia(island.position[0], rotation))  # of no boxes
    elif surroundings.spring is None:
        free = _free_fall(surroundings.body, island, rotation)
    else:
        assert target is not None
        free = _spring_held(surroundings.spring, target, island, rotation)
    x, y, turning = robot.free_acceleration(island.point, *control)
    robot_free = jnp.stack([x, y, LENGTH * turning])
    free = free._replace(change=free.change._replace(robot=robot_free))
    system, touching_fixed, touching = system_of(
        surroundings, island, rotation, free.change, free.inertia
    )
    change, _ = solver.newton(system, warm)
    return Dynamics(free.change, change, rotation, system.mass, touching_fixed, touching)


def integrate(island: Island, control: tuple[jax.Array, jax.Array], acting: Dynamics) -> Island:
    """One semi-implicit Euler step; the damping of the robot's joints is implicit."""
    h = robot.TIMESTEP
    by_contacts = batched.apply(acting.mass, acting.change.robot)
    fx, fy, torque = contact.MASS * by_contacts
    c, s = island.point.cos, island.point.sin
    along, across, spin = robot.force(island.point, *control)
    force = (along + c * fx + s * fy, across - s * fx + c * fy, spin + LENGTH * torque)
    point = robot.integrate(island.point, *robot.damped_acceleration(island.point, *force))
    acceleration = acting.free.boxes + acting.change.boxes
    velocity = island.velocity + h * acceleration[:3]
    angular = acceleration[3:] / LENGTH
    spin = island.spin + h * batched.apply_transposed(acting.rotation, angular)
    return Island(
        point, island.position + h * velocity, rotated(island.quaternion, h * spin), velocity, spin
    )


class IslandMotion(NamedTuple):
    """What came of an environment step on an island.

    Attributes:
        end: the new state.
        acceleration: of the robot there, world axes.
        touching_fixed: contact points of the robot with each fixed thing there.
        touching: contact points of the robot with each box there.
    """

    end: Island
    acceleration: Float[Array, "B 3"]
    touching_fixed: Int[Array, "B F"]
    touching: Int[Array, "B K"]


def simulate_contacts(
    surroundings: Surroundings, island: Island, action: Float[Array, "B 2"]
) -> IslandMotion:
    """Ten physics steps."""
    control = robot.controls(action.T)

    # After the last step the accelerations are wanted once more; a scan of its own length keeps the
    # contact code to a single copy, which halves the time to compile.
    def substep(carry, now):
        island, warm = carry
        moves, target = now
        acting = dynamics(surroundings, island, target, control, warm)
        after = integrate(island, control, acting)
        island = jax.tree.map(lambda old, new: jnp.where(moves, new, old), island, after)
        felt = acting.free.robot + acting.change.robot
        return (island, acting.change), (felt, acting.touching_fixed, acting.touching)

    batch, dtype = action.shape[:1], action.dtype
    zeros = solver.Change(
        jnp.zeros((3, *batch), dtype), jnp.zeros((6, *island.position.shape[1:]), dtype)
    )
    moves = jnp.arange(robot.SUBSTEPS + 1) < robot.SUBSTEPS
    inputs = (moves, surroundings.spring.target if surroundings.spring else None)
    (island, _), seen = jax.lax.scan(substep, (island, zeros), inputs)
    (x, y, turning), touching_fixed, touching = (x[-1] for x in seen)
    acceleration = jnp.stack([x, y, turning / LENGTH], axis=-1)
    return IslandMotion(island, acceleration, touching_fixed.T, touching.T)


# A little more than an arc and its chord differ by, or two ways to integrate the same path.
_GRAZING = 1e-4  # m


def would_touch(
    surroundings: Surroundings,
    island: Island,
    displacement: Float[Array, "3 B"],
    action: Float[Array, "B 2"],
) -> Bool[Array, " B"]:
    """Whether the robot would touch something within an environment step if nothing moved it.

    All boxes are taken to move by `displacement` (m), steadily.
    """
    control = robot.controls(action.T)
    rotation = rotation_matrices(island.quaternion)

    def gap(point, position) -> Float[Array, " B"]:
        now = island._replace(point=point, position=position)
        touches = jax.tree.leaves(touches_of_robot(surroundings, now, rotation), is_leaf=_is_touch)
        gaps = [touch.distance.reshape(-1, *point.x.shape) for touch in touches]
        return jnp.concatenate(gaps).min(0)

    def later(point, position):
        force = robot.force(point, *control)
        point = robot.integrate(point, *robot.damped_acceleration(point, *force))
        return point, position + displacement[:, None] / robot.SUBSTEPS

    def in_turn(*start):
        return jax.lax.scan(
            lambda now, _: (later(*now), gap(*now)), start, length=robot.SUBSTEPS + 1
        )[1]

    def at_once(*start):
        path = [start]
        for _ in range(robot.SUBSTEPS):
            path.append(later(*path[-1]))
        return jax.vmap(gap)(*jax.tree.map(lambda *x: jnp.stack(x), *path))

    # A CPU is faster with what fits into its cache, an accelerator with one wide look.
    start = (island.point, island.position)
    gaps = jax.lax.platform_dependent(*start, cpu=in_turn, default=at_once)
    return gaps.min(0) <= _GRAZING


def _is_touch(x: object) -> bool:
    return isinstance(x, Touch)
