"""One environment step of the robot among vases.

The robot alone has a closed-form step, which is what nearly every environment needs at nearly every
step. Where it may touch a vase, or a vase is still moving, robot and vases are stepped together
under all their contacts (`island`); only those environments pay for it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import island
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import FreeBoxes, at_rest, count
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
# Centre distances below which bodies may touch within an environment step, m: the robot's outline
# reaches 0.158, a vase's 0.142 (a little more when tilted), and no body moves by more than 0.04.
REACH_OF_ROBOT = 0.345
REACH_OF_VASE = 0.33
# Deviation: a vase slower than this, away from the robot, is put to rest; the original lets it
# settle for ever. Five times below the speed that is charged for.
RESTING_SPEED = 2e-5  # m/s
RESTING_SPIN = 2e-4  # rad/s


class World(NamedTuple):
    """Everything that moves."""

    point: Point
    vases: FreeBoxes


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


def advance(world: World, action: Float[Array, " 2"]) -> Motion:
    """Ten physics steps under one action, whose components act within [-1, 1]."""
    point, acceleration = robot.advance(world.point, action)
    alone = Motion(
        World(point, world.vases), acceleration, jnp.zeros(count(world.vases), jnp.int32)
    )
    if count(world.vases) == 0:
        return alone
    urgency = _urgency(world)
    involved = apply_where(
        _together, jnp.min(urgency) < _WAITING, (world, action, urgency, alone), grouped=True
    )
    return involved[-1]


_WAITING = 2.0  # urgency of a vase that nothing can happen to


def _urgency(world: World) -> Float[Array, " V"]:
    """In [0, 1) for vases near the robot, in [1, 2) for other moving ones, 2 or more for the rest.

    Smaller is more urgent; within a class the nearer to the robot.
    """
    offset = world.vases.position[:, :2] - position(world.point)[None]
    distance = jnp.sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])
    rank = jnp.where(_is_moving(world.vases), 1.0, _WAITING)
    return jnp.where(distance < REACH_OF_ROBOT, 0.0, rank) + distance / (1.0 + distance)


def _is_moving(vases: FreeBoxes) -> Bool[Array, "*batch V"]:
    """Whether a vase is anything but exactly at rest."""
    return jnp.any(vases.velocity != 0, axis=-1) | jnp.any(vases.angular_velocity != 0, axis=-1)


def _together(
    operand: tuple[World, Array, Float[Array, "B V"], Motion],
) -> tuple[World, Array, Float[Array, "B V"], Motion]:
    """The last entry replaced by what happens with contacts; all leaves have a group axis `B`."""
    world, action, urgency, alone = operand
    number = min(INVOLVED, urgency.shape[1])
    _, chosen = jax.lax.top_k(-_with_neighbours(urgency, world.vases), number)  # [B, K]
    begin = island.gather(world.point, world.vases, chosen)
    end, acceleration, touching = island.advance(begin, action)
    point, vases = island.scatter(begin, end, world.point, world.vases, chosen)
    vases = _put_to_rest(vases, near_robot=urgency < 1.0)
    contacts = jnp.put_along_axis(alone.contacts, chosen, touching, axis=1, inplace=False)
    acceleration = island.in_start_frame(point, acceleration)
    return world, action, urgency, Motion(World(point, vases), acceleration, contacts)


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
