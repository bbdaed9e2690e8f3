"""One environment step of the robot among vases."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import FreeBoxes, at_rest, count
from smpo_envs.safety_gym.point import Point, heading, position, velocity

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
    contacts = jnp.zeros((count(world.vases),), jnp.int32)
    return Motion(World(point, world.vases), acceleration, contacts)
