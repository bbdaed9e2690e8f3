"""Arenas: where the objects of a level stand, drawn at random around a robot."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smpo_envs.drawing import ROBOT
from smpo_envs.safety_gym import layout
from smpo_envs.safety_gym.agents import Agent
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.levels import GOAL, HAZARDS, Level
from smpo_envs.safety_gym.worlds import World, box_positions, initial_world
from smpo_envs.shift import Shift
from smpo_envs.sparse import apply_where

AGENT_KEEPOUT = 0.4


class Arena(NamedTuple):
    """Where everything but the goal is.

    Attributes:
        world: what is solid.
        markers: positions of the objects of each kind that can be driven over.
        radii: of those kinds whose discs are not as large as the level says (a shift).
    """

    world: World
    markers: dict[str, Float[Array, "K 2"]]
    radii: dict[str, Float[Array, ""]] | None = None


def sample(
    agent: Agent,
    level: Level,
    layout_key: PRNGKeyArray,
    rotation_key: PRNGKeyArray,
    shift: Shift | None = None,
) -> Arena:
    """A fresh layout with the robot at rest in it; level and shift are what `shifts.shifted` gave.

    The goal of the layout only pushes the other objects aside: tasks then place it anew.

    Deviation: the original draws from one stream of numbers; here each draw has a key of its own,
    so that layouts agree in distribution, not seed by seed.
    """
    keepouts = [kind.keepout for kind, number in level.objects for _ in range(number)]
    subset = None if shift is None else _subset(level, shift)
    positions = layout.sample(layout_key, (AGENT_KEEPOUT, *keepouts), level.extent, subset)
    place, rest = positions[0], positions[1:]
    markers, pushed, fixed = {}, None, None
    for kind, number in level.objects:
        these, rest = rest[:number], rest[number:]
        if isinstance(kind.solid, Body):
            pushed = these
        elif isinstance(kind.solid, Post):
            fixed = these
        elif kind.name != GOAL:
            markers[kind.name] = these
    number = 0 if pushed is None else len(pushed)
    rotation = 2 * jnp.pi * jax.random.uniform(rotation_key, (1 + number,), positions.dtype)
    places = None if pushed is None else jnp.column_stack([pushed, rotation[1:]])
    robot = agent.at_rest(place, rotation[0])
    radii = None if shift is None else {HAZARDS: jnp.asarray(shift.size, positions.dtype)}
    return Arena(initial_world(level.solids, robot, places, fixed), markers, radii)


def _subset(level: Level, shift: Shift) -> layout.Subset:
    """The hazards that a shift has, in their own square, and all of everything else."""
    names = [ROBOT, *(kind.name for kind, number in level.objects for _ in range(number))]
    place = np.cumsum([name == HAZARDS for name in names])
    is_hazard = jnp.asarray([name == HAZARDS for name in names])
    dtype = jnp.result_type(float)
    number = jnp.round(jnp.asarray(shift.hazards, dtype))
    present = ~is_hazard | (jnp.asarray(place, dtype) <= number)
    extent = jnp.where(is_hazard, jnp.asarray(shift.extent, dtype), level.extent)
    return layout.Subset(present, extent)


def positions(level: Level, arena: Arena) -> dict[str, Float[Array, "K 2"]]:
    """Where the objects of each kind are, but for the goal."""
    where = dict(arena.markers)
    for kind, _ in level.objects:
        if isinstance(kind.solid, Body):
            where[kind.name] = box_positions(arena.world)[:, :2]
        elif isinstance(kind.solid, Post):
            where[kind.name] = arena.world.fixed
    return where


def place_goal(
    level: Level, key: PRNGKeyArray, agent: Float[Array, " 2"], obstacles: Float[Array, "K 2"]
) -> tuple[Float[Array, " 2"], Bool[Array, ""]]:
    """A goal among the robot and all `obstacles` (see there), and whether there is room for it."""
    keepouts = [k.keepout for k, number in level.objects if k.name != GOAL for _ in range(number)]
    others = jnp.concatenate([agent[None], obstacles])
    (own,) = (kind.keepout for kind, _ in level.objects if kind.name == GOAL)
    return layout.place(key, others, (AGENT_KEEPOUT, *keepouts), own, level.extent)


def obstacles(level: Level, arena: Arena) -> Float[Array, "K 2"]:
    """Where all objects but the goal are, in the order of the level."""
    where = positions(level, arena)
    nothing = jnp.zeros((0, 2), arena.world.robot.start.dtype)
    return jnp.concatenate([nothing, *(where[name] for name in level.seen if name != GOAL)])


def redraw_goal(
    level: Level,
    met: Bool[Array, ""],
    goal: Float[Array, " 2"],
    key: PRNGKeyArray,
    arena: Arena,
) -> tuple[Float[Array, " 2"], PRNGKeyArray, Bool[Array, ""]]:
    """A new goal if the old one is met: the goal, the next key, whether there was no room."""

    def draw(operand, agent, around):
        goal, key, _ = operand
        draw_key, next_key = jax.random.split(key)
        drawn, found = place_goal(level, draw_key, agent, around)
        return jnp.where(found, drawn, goal), next_key, ~found

    context = (arena.world.robot.position, obstacles(level, arena))
    return apply_where(draw, met, (goal, key, jnp.bool_(False)), *context, rate=1 / 128)


def distance(
    a: Float[Array, " *d"], b: Float[Array, " *d"], rise: jax.Array | float = 0.0
) -> Float[Array, ""]:
    """Between two places, one of them higher by `rise`."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return jnp.sqrt(dx * dx + dy * dy + rise * rise)
