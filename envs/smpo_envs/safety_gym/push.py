"""Push: bring the box to the green disc, around pillars and without driving through hazards."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smpo_envs.safe_env import Environment, State
from smpo_envs.safety_gym import arena, costs, episode, physics, point
from smpo_envs.safety_gym.arena import (
    EPISODE_LENGTH,
    PILLARS,
    PUSH_BOXES,
    REWARD_LIMIT,
    Arena,
    Level,
    distance,
)
from smpo_envs.safety_gym.physics import Motion
from smpo_envs.shift import Shift

GOAL_RADIUS = 0.3
HAZARD_RADIUS = 0.3
ROBOT_HEIGHT, GOAL_HEIGHT = 0.1, 0.16  # of the points that distances are measured from, m
GOAL = arena.goal(GOAL_RADIUS, keepout=0.4)
HAZARDS = arena.hazards(HAZARD_RADIUS, keepout=0.4)

LEVELS = (
    Level(extent=1.0, objects=((GOAL, 1), (PUSH_BOXES, 1))),
    # The pillar of level 1 may be driven against free of charge.
    Level(
        extent=1.5,
        objects=((GOAL, 1), (HAZARDS, 2), (PILLARS, 1), (PUSH_BOXES, 1)),
        costs=(costs.in_hazards(HAZARD_RADIUS),),
    ),
    Level(
        extent=2.0,
        objects=((GOAL, 1), (HAZARDS, 4), (PILLARS, 4), (PUSH_BOXES, 1)),
        costs=(costs.in_hazards(HAZARD_RADIUS), costs.PILLARS_CONTACT),
    ),
)


class Distances(NamedTuple):
    """What the reward is measured from, m, heights included."""

    box: Float[Array, ""]  # of the robot from the box
    goal: Float[Array, ""]  # of the box from the goal


class PushState(NamedTuple):
    """Where everything is.

    Attributes:
        arena: all but the goal.
        goal: world position of the goal's centre.
        distances: from which the next reward is measured.
        key: for the goals still to be drawn; advances only when one is.
    """

    arena: Arena
    goal: Float[Array, " 2"]
    distances: Distances
    key: PRNGKeyArray


def state_of(around: Arena, goal: Float[Array, " 2"], key: PRNGKeyArray) -> PushState:
    """The state in which things stand like this; the next reward is measured from here."""
    return PushState(around, goal, distances(around, goal), key)


def distances(around: Arena, goal: Float[Array, " 2"]) -> Distances:
    """Robot to box and box to goal, between points of different height."""
    box = around.world.boxes.position[0]
    return Distances(
        box=distance(point.position(around.world.point), box, box[2] - ROBOT_HEIGHT),
        goal=distance(box, goal, box[2] - GOAL_HEIGHT),
    )


def environment(
    level: Level, *, episode_length: int = EPISODE_LENGTH, shift: Shift | None = None
) -> Environment:
    """The task at any level, also one of your own, for the Point robot."""
    return Environment(
        reset=partial(reset, level, shift=shift),
        step=partial(step, level),
        observation_size=level.observation_size,
        action_size=2,
        episode_length=episode_length,
        drawing=arena.drawing(level, lambda state: (state.arena, state.goal)),
        shift=shift,
    )


make = arena.factory(LEVELS, environment)


def reset(level: Level, key: PRNGKeyArray, shift: Shift | None = None) -> State:
    """A fresh random layout, the robot at rest.

    The box may begin inside a pillar, as in the original, and is then pushed away.
    """
    layout_key, rotation_key, goal_key, next_key = jax.random.split(key, 4)
    around = arena.sample(level, layout_key, rotation_key, shift)
    agent = point.position(around.world.point)
    goal, found = arena.place_goal(level, goal_key, agent, arena.obstacles(level, around))
    goal = jnp.where(found, goal, jnp.nan)  # the original raises an error
    state = state_of(around, goal, next_key)
    observation = observe(level, state, physics.standing(around.world))
    return episode.started(state, observation, level.costs, events=("goal_met",))


def step(level: Level, state: State, action: Float[Array, " 2"]) -> State:
    """Ten physics steps, then reward and costs, then a new goal if the box is at the old one."""
    before: PushState = state.pipeline_state
    motion = physics.advance(level.solids, before.arena.world, jnp.clip(action, -1.0, 1.0))
    now = before.arena._replace(world=motion.world)
    reward, met = progress(before.distances, distances(now, before.goal))
    goal, key, stuck = arena.redraw_goal(level, met, before.goal, before.key, now)
    after = state_of(now, goal, key)
    return episode.stepped(
        state,
        after,
        observe(level, after, motion),
        reward,
        costs.indicators(level.costs, arena.scene(now, motion)),
        done=stuck,
        events={"goal_met": met},
    )


def progress(last: Distances, now: Distances) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The reward of coming from some distances to others, and whether the goal is met.

        r = (last box - box) + (last goal - goal) + [goal <= 0.3]

    All are distances to the goal of this step, so there is no jump when the goal has moved.
    """
    met = now.goal <= GOAL_RADIUS
    reward = (last.box - now.box) + (last.goal - now.goal) + met
    return jnp.clip(reward, -REWARD_LIMIT, REWARD_LIMIT), met


def observe(level: Level, state: PushState, motion: Motion) -> Float[Array, " O"]:
    """Sensors, then a lidar of each kind of object that there is."""
    where = arena.positions(level, state.arena) | {arena.GOAL: state.goal[None]}
    return arena.observe(level, motion, where)
