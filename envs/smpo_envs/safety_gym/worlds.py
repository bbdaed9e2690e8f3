"""Everything solid: what there is, where it is, and where an environment step has led."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import boxes, gremlins
from smpo_envs.safety_gym.boxes import Body, FreeBoxes, count
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.gremlins import Circling
from smpo_envs.safety_gym.robot import Robot


@dataclass(frozen=True)
class Solids:
    """What a robot can run into.

    Attributes:
        body: what the boxes are, all of one kind; None where there are none.
        post: what stands fast, all of one kind; None where nothing does.
    """

    body: Body | None = None
    post: Post | None = None


NOTHING = Solids()


class World(NamedTuple):
    """Everything solid.

    Attributes:
        robot: its state.
        boxes: what moves besides; for gremlins, beside their common motion.
        fixed: positions of what stands fast.
        circling: the common motion of gremlins; None without them.
    """

    robot: Robot
    boxes: FreeBoxes
    fixed: Float[Array, "F 2"]
    circling: Circling | None = None


def initial_world(
    solids: Solids,
    robot: Robot,
    places: Float[Array, "V 3"] | None = None,
    fixed: Float[Array, "F 2"] | None = None,
) -> World:
    """The world as an episode begins.

    Args:
        solids: what is in it.
        robot: its state.
        places: of the boxes: x, y and heading.
        fixed: positions of what stands fast.
    """
    dtype = robot.start.dtype
    places = jnp.zeros((0, 3), dtype) if places is None else places
    fixed = jnp.zeros((0, 2), dtype) if fixed is None else fixed
    body = solids.body or boxes.VASE
    circling = gremlins.start(places) if body == gremlins.GREMLIN else None
    return World(robot, boxes.at_rest(body, places[:, :2], places[:, 2]), fixed, circling)


def box_positions(world: World) -> Float[Array, "V 3"]:
    """Where the boxes are in the world."""
    if world.circling is None:
        return world.boxes.position
    return world.boxes.position + world.circling.offset


class Motion(NamedTuple):
    """Where one environment step leads.

    Attributes:
        world: the new state.
        acceleration: of the robot at the new state under the same action, as its sensors take it.
        box_contacts: number of contact points of the robot with each box at the new state.
        fixed_contacts: the same with each thing that stands fast.
    """

    world: World
    acceleration: Float[Array, " 3"]
    box_contacts: Int[Array, " V"]
    fixed_contacts: Int[Array, " F"]


def standing(world: World) -> Motion:
    """A world as it stands at the start of an episode; nothing accelerates, nothing touches."""
    return untouched(world, world.robot.standing())


def untouched(world: World, acceleration: Float[Array, " 3"]) -> Motion:
    """A motion in which the robot has touched nothing."""
    none = partial(jnp.zeros, dtype=jnp.int32)
    return Motion(world, acceleration, none(count(world.boxes)), none(len(world.fixed)))
