"""The robot among a few vases, in contact: the ten physics steps done in full."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, boxes, collision, contact, solver
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.contact import LENGTH

GRAVITY = 9.81
ROBOT_HEIGHT = 0.1  # of the body's origin
SPHERE_RADIUS = 0.1
ARROW_OFFSET = 0.1  # of the arrow box's centre, ahead of the origin
ARROW_HALF = 0.05


class Island(NamedTuple):
    """The robot in world axes (but about its start), and `K` vases."""

    point: robot.Coordinates  # fields [B]
    position: Float[Array, "3 K B"]
    quaternion: Float[Array, "4 K B"]
    velocity: Float[Array, "3 K B"]
    spin: Float[Array, "3 K B"]  # angular velocity, body axes


def axes(quaternion: Float[Array, "4 *s"]) -> Float[Array, "3 3 *s"]:
    """Rotation matrix of a unit quaternion: its columns are the body's axes."""
    w, x, y, z = quaternion
    return jnp.stack(
        [
            jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            jnp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )


def turned(quaternion: Float[Array, "4 *s"], rotation: Float[Array, "3 *s"]) -> jax.Array:
    """A unit quaternion after a small rotation given in body axes (its length is the angle)."""
    square = batched.dot(rotation, rotation) / 4
    c = 1 - square * (1 / 2 - square * (1 / 24 - square / 720))
    s = (1 - square * (1 / 6 - square * (1 / 120 - square / 5040))) / 2
    w, v = quaternion[0], quaternion[1:]
    r = s * rotation
    new = jnp.concatenate([(w * c - batched.dot(v, r))[None], w * r + c * v + batched.cross(v, r)])
    return new * jax.lax.rsqrt((new * new).sum(0))


def _system(
    island: Island, rotation: Float[Array, "3 3 K B"], free: solver.Change
) -> tuple[solver.System, Int[Array, "K B"]]:
    """All that touches, and the number of contact points of the robot with each vase."""
    point = island.point
    b = contact.DAMPING
    cube = collision.upright(island.position, rotation)
    angular = batched.total(rotation[:, i] * island.spin[i] for i in range(3))
    drift = free.vases + b * jnp.concatenate([island.velocity, LENGTH * angular])
    robot_drift = free.robot + b * jnp.stack([point.vx, point.vy, LENGTH * point.w])
    zero = jnp.zeros_like(point.x)
    center = jnp.stack([point.x, point.y, zero + ROBOT_HEIGHT])[:, None]
    lever = (island.position[:2] - center[:2]) / LENGTH

    on_floor = collision.floor_and_cube(cube, boxes.HALF_SIZE)
    floor = contact.rows(
        on_floor,
        friction=contact.DEFAULT_FRICTION,
        weight=contact.VASE_WEIGHT,
        reference=island.position[:, None],
        drift=jnp.broadcast_to(drift[:, None], (6, *on_floor.distance.shape)),
    )
    relative = drift - solver.carried(lever, robot_drift)
    weight = contact.VASE_WEIGHT + contact.POINT_WEIGHT
    sphere = collision.sphere_and_cube(center, SPHERE_RADIUS, cube, boxes.HALF_SIZE)
    ahead = jnp.stack([point.cos, point.sin, zero])
    side = jnp.stack([-point.sin, point.cos, zero])
    up = jnp.stack([zero, zero, zero + 1])
    arrow_cube = collision.Cube(
        center + ARROW_OFFSET * ahead[:, None], jnp.stack([ahead, side, up], axis=1)[:, :, None]
    )
    arrow = collision.cube_and_cube(arrow_cube, ARROW_HALF, cube, boxes.HALF_SIZE)
    touching = [floor] + [
        contact.rows(
            touch,
            friction=friction,
            weight=weight,
            reference=island.position[:, None],
            drift=jnp.broadcast_to(relative[:, None], (6, *touch.distance.shape)),
        )
        for touch, friction in (
            (sphere, contact.SPHERE_FRICTION),
            (arrow, contact.DEFAULT_FRICTION),
        )
    ]
    touching = jax.tree.map(lambda *a: jnp.concatenate(a, axis=a[0].ndim - 3), *touching)
    first, second = (jnp.array(x, int) for x in solver.pairs(island.position.shape[1]))
    link = (island.position[:, second] - island.position[:, first]) / LENGTH
    pick = lambda i: jax.tree.map(lambda x: x[..., i, :], cube)  # noqa: E731
    both = collision.cube_and_cube(pick(first), boxes.HALF_SIZE, pick(second), boxes.HALF_SIZE)
    between = contact.rows(
        both,
        friction=contact.DEFAULT_FRICTION,
        weight=2 * contact.VASE_WEIGHT,
        reference=island.position[:, second][:, None],
        drift=jnp.broadcast_to(
            (drift[:, second] - solver.moved(link, drift[:, first]))[:, None],
            (6, *both.distance.shape),
        ),
    )
    coupling = robot.MASS * robot.OFFSET / LENGTH
    m = zero + robot.MASS
    mass = (
        jnp.stack(
            [
                jnp.stack([m, zero, -coupling * point.sin]),
                jnp.stack([zero, m, coupling * point.cos]),
                jnp.stack(
                    [-coupling * point.sin, coupling * point.cos, zero + robot.INERTIA / LENGTH**2]
                ),
            ]
        )
        / boxes.MASS
    )
    listed = [jnp.sum(touch.distance <= 0, axis=0, dtype=jnp.int32) for touch in (sphere, arrow)]
    return solver.System(mass, lever, link, touching, between), listed[0] + listed[1]


class Dynamics(NamedTuple):
    """What acts at a state.

    Attributes:
        free: accelerations without contacts.
        change: what contacts add to them.
        rotation: of the vases, body to world.
        mass: the robot's mass matrix, solver units.
        touching: contact points of the robot with each vase.
    """

    free: solver.Change
    change: solver.Change
    rotation: Float[Array, "3 3 K B"]
    mass: Float[Array, "3 3 B"]
    touching: Int[Array, "K B"]


def dynamics(
    island: Island, drive: Float[Array, " B"], turn: Float[Array, " B"], warm: solver.Change
) -> Dynamics:
    """Accelerations at a state; `warm` is a guess of what contacts add, such as the last step's."""
    rotation = axes(island.quaternion)
    a = robot.free_acceleration(island.point, drive, turn)
    free = solver.Change(
        jnp.stack([a[0], a[1], LENGTH * a[2]]),
        jnp.zeros_like(warm.vases).at[2].set(-GRAVITY),
    )
    system, touching = _system(island, rotation, free)
    change, _ = solver.newton(system, warm)
    return Dynamics(free, change, rotation, system.mass, touching)


def integrate(
    island: Island, drive: Float[Array, " B"], turn: Float[Array, " B"], acting: Dynamics
) -> Island:
    """One semi-implicit Euler step; the damping of the robot's joints is implicit."""
    h = robot.TIMESTEP
    by_contacts = batched.total(acting.mass[:, i] * acting.change.robot[i] for i in range(3))
    fx, fy, torque = boxes.MASS * by_contacts
    c, s = island.point.cos, island.point.sin
    along, across, spin = robot.force(island.point, drive, turn)
    force = (along + c * fx + s * fy, across - s * fx + c * fy, spin + LENGTH * torque)
    point = robot.integrate(island.point, *robot.damped_acceleration(island.point, *force))
    acceleration = acting.free.vases + acting.change.vases
    velocity = island.velocity + h * acceleration[:3]
    angular = acceleration[3:] / LENGTH
    spin = island.spin + h * batched.total(acting.rotation[i] * angular[i] for i in range(3))
    return Island(
        point, island.position + h * velocity, turned(island.quaternion, h * spin), velocity, spin
    )


def gather(point: robot.Point, vases: boxes.FreeBoxes, chosen: Int[Array, "B K"]) -> Island:
    """The island of some vases; leaves of the arguments have the batch in front.

    Positions are relative to where the robot started, which keeps them small and exact.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    angle = point.rotation + point.q[:, 2]
    x, y = _rotate(point.q, c, s)
    vx, vy = _rotate(point.v, c, s)
    pick = lambda x: jnp.moveaxis(jnp.take_along_axis(x, chosen[..., None], axis=1), 0, -1)  # noqa: E731
    position = pick(vases.position).swapaxes(0, 1)
    position = position.at[:2].add(-point.start.T[:, None])
    return Island(
        robot.Coordinates(x, y, angle, vx, vy, point.v[:, 2], jnp.cos(angle), jnp.sin(angle)),
        position,
        *(
            pick(x).swapaxes(0, 1)
            for x in (vases.quaternion, vases.velocity, vases.angular_velocity)
        ),
    )


def scatter(
    begin: Island,
    end: Island,
    point: robot.Point,
    vases: boxes.FreeBoxes,
    chosen: Int[Array, "B K"],
) -> tuple[robot.Point, boxes.FreeBoxes]:
    """Robot and vases with what happened on the island from `begin`, which `gather` made, to `end`.

    Changes are added, so that what stood still is the same to the last bit.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    change = jax.tree.map(jnp.subtract, end, begin)
    p = change.point
    q = jnp.stack([*_rotate(jnp.stack([p.x, p.y], -1), c, -s), p.angle], axis=-1)
    v = jnp.stack([*_rotate(jnp.stack([p.vx, p.vy], -1), c, -s), p.w], axis=-1)

    def add(old, new):
        new = jnp.moveaxis(new.swapaxes(0, 1), -1, 0)
        return old.at[jnp.arange(old.shape[0])[:, None], chosen].add(new)

    changes = (change.position, change.quaternion, change.velocity, change.spin)
    moved = point._replace(q=point.q + q, v=point.v + v)
    return moved, boxes.FreeBoxes(*map(add, vases, changes))


def in_start_frame(point: robot.Point, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """The robot's acceleration along its joints, from world axes."""
    x, y = _rotate(acceleration, jnp.cos(point.rotation), -jnp.sin(point.rotation))
    return jnp.stack([x, y, acceleration[:, 2]], axis=-1)


def advance(
    island: Island, action: Float[Array, "B 2"]
) -> tuple[Island, Float[Array, "B 3"], Int[Array, "B K"]]:
    """Ten physics steps: the island, the robot's acceleration (world axes), its contact points."""
    drive, turn = robot.controls(action.T)

    # After the last step the accelerations are wanted once more; a scan of its own length keeps the
    # contact code to a single copy, which halves the time to compile.
    def substep(carry, moves):
        island, warm = carry
        acting = dynamics(island, drive, turn, warm)
        after = integrate(island, drive, turn, acting)
        island = jax.tree.map(lambda old, new: jnp.where(moves, new, old), island, after)
        felt = acting.free.robot + acting.change.robot
        return (island, acting.change), (felt, acting.touching)

    zeros = solver.Change(
        jnp.zeros((3, *drive.shape), drive.dtype),
        jnp.zeros((6, *island.position.shape[1:]), drive.dtype),
    )
    moves = jnp.arange(robot.SUBSTEPS + 1) < robot.SUBSTEPS
    (island, _), (felt, touching) = jax.lax.scan(substep, (island, zeros), moves)
    x, y, turning = felt[-1]
    return island, jnp.stack([x, y, turning / LENGTH], axis=-1), touching[-1].T


def _rotate(vector: Float[Array, "B n"], cos: jax.Array, sin: jax.Array) -> tuple:
    x, y = vector[:, 0], vector[:, 1]
    return cos * x - sin * y, sin * x + cos * y
