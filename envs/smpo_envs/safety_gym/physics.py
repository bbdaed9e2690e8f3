"""One environment step of the robot among vases.

The robot alone has a closed-form step, which is what nearly every environment needs at nearly every
step. Where it may touch a vase, or a vase is still moving, robot and vases are stepped together
under all their contacts (`island`); only those environments pay for it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import island
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import HALF_SIZE, FreeBoxes, at_rest, count
from smpo_envs.safety_gym.point import Point, heading, position, velocity
from smpo_envs.sparse import apply_where

__all__ = [
    "FreeBoxes",
    "Motion",
    "Point",
    "World",
    "advance",
    "at_rest",
    "heading",
    "position",
    "velocity",
]

# Vases that are stepped together with the robot. Deviation: if more than these are moving or near
# the robot, the least urgent ones wait.
INVOLVED = 2
# Centre distance below which two vases may touch within an environment step, m: a vase reaches
# 0.142 (a little more when tilted) and does not move by more than 0.04.
REACH_OF_VASE = 0.33
# For where the robot may touch a vase its outline is two discs, the sphere and the one around the
# arrow, in which the robot's rates may exceed those at both ends of the step by a little.
_DISCS = ((0.0, 0.1), (0.1, 0.0708))  # how far ahead, radius, m
_MARGIN = 2e-3  # m
# rad/s; the turn servo changes the rate by up to 0.8 within a physics step.
_SPIN_MARGIN = 1.0
# Deviation: a vase slower than this, away from the robot, is put to rest; the original lets it
# settle for ever. Five times below the speed that is charged for.
RESTING_SPEED = 2e-5  # m/s
RESTING_SPIN = 2e-4  # rad/s


class World(NamedTuple):
    """Everything that moves."""

    point: Point
    vases: FreeBoxes


def alone(point: Point) -> World:
    """The robot with nothing to push."""
    none = jnp.zeros(0, point.start.dtype)
    return World(point, at_rest(none.reshape(0, 2), none))


class Motion(NamedTuple):
    """Where one environment step leads.

    Attributes:
        world: the new state.
        acceleration: of the robot's joints at the new state under the same action, without the
            implicit part of the damping: what the accelerometer shows.
        contacts: number of contact points of the robot with each vase at the new state.
    """

    world: World
    acceleration: Float[Array, " 3"]
    contacts: Int[Array, " V"]


def standing(world: World) -> Motion:
    """A world as it stands at the start of an episode; nothing accelerates, nothing touches."""
    return Motion(world, jnp.zeros_like(world.point.v), jnp.zeros(count(world.vases), jnp.int32))


def advance(world: World, action: Float[Array, " 2"]) -> Motion:
    """Ten physics steps under one action, whose components act within [-1, 1]."""
    point, acceleration = robot.advance(world.point, action)
    untouched = Motion(
        World(point, world.vases), acceleration, jnp.zeros(count(world.vases), jnp.int32)
    )
    if count(world.vases) == 0:
        return untouched
    urgency = _urgency(world, _in_reach(world, point))
    involved = urgency.min() < _WAITING
    several = _several(urgency, world.vases)
    context = (world, action, urgency)
    one = partial(_together, 1)
    rate = _HITS_PER_VASE * count(world.vases)
    motion = apply_where(one, involved & ~several, untouched, *context, grouped=True, rate=rate)
    if count(world.vases) == 1:
        return motion
    more = partial(_together, min(INVOLVED, count(world.vases)))
    return apply_where(more, several, motion, *context, grouped=True, rate=rate / 8)


_WAITING = 2.0  # urgency of a vase that nothing can happen to
_HITS_PER_VASE = 1 / 256  # share of steps in which a vase may be touched or moves, roughly


def _in_reach(world: World, end: Point) -> Bool[Array, " V"]:
    """Whether the robot may touch a vase that stands, on its way to `end`, where it gets alone."""
    start, vases = world.point, world.vases
    squares = [v[0] * v[0] + v[1] * v[1] for v in (start.v, end.v)]
    path = robot.STEP_SECONDS * jnp.sqrt(jnp.maximum(*squares)) + _MARGIN
    swing = robot.STEP_SECONDS * (
        jnp.maximum(jnp.abs(start.v[2]), jnp.abs(end.v[2])) + _SPIN_MARGIN
    )
    origin, angle = position(start), heading(start)
    w, x, y, z = (vases.quaternion[:, i] for i in range(4))
    # The horizontal rows of the rotation matrix; a vase may stand on any of its faces.
    east = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    north = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    in_reach = jnp.zeros(count(vases), bool)
    for ahead, radius in _DISCS:
        center = origin + ahead * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        dx, dy = center[0] - vases.position[:, 0], center[1] - vases.position[:, 1]
        excess = (
            jnp.maximum(jnp.abs(e * dx + n * dy) - HALF_SIZE, 0)
            for e, n in zip(east, north, strict=True)
        )
        reach = radius + path + ahead * swing
        in_reach |= sum(x * x for x in excess) < reach * reach
    return in_reach


def _urgency(world: World, in_reach: Bool[Array, " V"]) -> Float[Array, " V"]:
    """In [0, 1) for vases in the robot's reach, in [1, 2) for other moving ones, else 2 or more.

    Smaller is more urgent; within a class the nearer to the robot.
    """
    offset = world.vases.position[:, :2] - position(world.point)[None]
    distance = jnp.sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])
    rank = jnp.where(_is_moving(world.vases), 1.0, _WAITING)
    return jnp.where(in_reach, 0.0, rank) + distance / (1.0 + distance)


def _is_moving(vases: FreeBoxes) -> Bool[Array, "*batch V"]:
    """Whether a vase is anything but exactly at rest."""
    return jnp.any(vases.velocity != 0, axis=-1) | jnp.any(vases.angular_velocity != 0, axis=-1)


def _several(urgency: Float[Array, " V"], vases: FreeBoxes) -> Bool[Array, ""]:
    """Whether more than one vase is involved, one that a moving one may reach included."""
    first = urgency == urgency.min()
    x, y = vases.position[:, 0], vases.position[:, 1]
    dx, dy = x - jnp.sum(jnp.where(first, x, 0)), y - jnp.sum(jnp.where(first, y, 0))
    close = ~first & (dx * dx + dy * dy < REACH_OF_VASE**2)
    moves = jnp.any(first & _is_moving(vases))
    return (jnp.sum(urgency < _WAITING) > 1) | (moves & jnp.any(close))


def _together(
    number: int,
    untouched: Motion,
    world: World,
    action: Float[Array, "B 2"],
    urgency: Float[Array, "B V"],
) -> Motion:
    """What happens to the robot and the most urgent vases under contacts.

    All leaves have a group axis `B`.
    """
    _, chosen = jax.lax.top_k(-_with_neighbours(urgency, world.vases), number)  # [B, K]
    begin = island.gather(world.point, world.vases, chosen)
    end, acceleration, touching = island.advance(begin, action)
    point, vases = island.scatter(begin, end, world.point, world.vases, chosen)
    vases = _put_to_rest(vases, near_robot=urgency < 1.0)
    contacts = jnp.put_along_axis(untouched.contacts, chosen, touching, axis=1, inplace=False)
    acceleration = island.in_start_frame(point, acceleration)
    return Motion(World(point, vases), acceleration, contacts)


def _with_neighbours(urgency: Float[Array, "B V"], vases: FreeBoxes) -> Float[Array, "B V"]:
    """Urgency, where a standing vase that a moving one may reach comes before the rest."""
    x, y = vases.position[..., 0], vases.position[..., 1]
    dx, dy = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]
    close = dx * dx + dy * dy < REACH_OF_VASE**2
    reachable = jnp.any(close & _is_moving(vases)[:, None], axis=2)
    return jnp.where((urgency >= _WAITING) & reachable, urgency - 0.5, urgency)


def _put_to_rest(vases: FreeBoxes, *, near_robot: Bool[Array, "B V"]) -> FreeBoxes:
    slow = jnp.all(jnp.abs(vases.velocity) < RESTING_SPEED, axis=-1)
    slow &= jnp.all(jnp.abs(vases.angular_velocity) < RESTING_SPIN, axis=-1)
    rests = (slow & ~near_robot)[..., None]
    return vases._replace(
        velocity=jnp.where(rests, 0.0, vases.velocity),
        angular_velocity=jnp.where(rests, 0.0, vases.angular_velocity),
    )
