"""Goal: drive to the green disc, which then moves elsewhere, and keep out of hazards and vases."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smpo_envs.safe_env import Environment, State
from smpo_envs.safety_gym import arena, costs, episode, physics, point
from smpo_envs.safety_gym.arena import EPISODE_LENGTH, REWARD_LIMIT, VASES, Arena, Level, distance
from smpo_envs.safety_gym.physics import Motion
from smpo_envs.shift import Shift

GOAL_RADIUS = 0.3
HAZARD_RADIUS = 0.2
GOAL = arena.goal(GOAL_RADIUS, keepout=0.305)
HAZARDS = arena.hazards(HAZARD_RADIUS, keepout=0.18)

LEVELS = (
    Level(extent=1.0, objects=((GOAL, 1),)),
    # The vase of level 1 may be pushed around free of charge.
    Level(
        extent=1.5,
        objects=((GOAL, 1), (HAZARDS, 8), (VASES, 1)),
        costs=(costs.in_hazards(HAZARD_RADIUS),),
    ),
    Level(
        extent=2.0,
        objects=((GOAL, 1), (HAZARDS, 10), (VASES, 10)),
        costs=(costs.in_hazards(HAZARD_RADIUS), costs.VASES_CONTACT, costs.VASES_VELOCITY),
    ),
)


class GoalState(NamedTuple):
    """Where everything is.

    Attributes:
        arena: all but the goal.
        goal: world position of the goal's centre.
        distance: of the robot from the goal, from which the next reward is measured.
        key: for the goals still to be drawn; advances only when one is.
    """

    arena: Arena
    goal: Float[Array, " 2"]
    distance: Float[Array, ""]
    key: PRNGKeyArray


def state_of(arena: Arena, goal: Float[Array, " 2"], key: PRNGKeyArray) -> GoalState:
    """The state in which things stand like this; the next reward is measured from here."""
    return GoalState(arena, goal, distance(goal, point.position(arena.world.point)), key)


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
    """A fresh random layout, the robot at rest."""
    layout_key, rotation_key, goal_key, next_key = jax.random.split(key, 4)
    around = arena.sample(level, layout_key, rotation_key, shift)
    agent = point.position(around.world.point)
    goal, found = arena.place_goal(level, goal_key, agent, arena.obstacles(level, around))
    goal = jnp.where(found, goal, jnp.nan)  # the original raises an error
    state = state_of(around, goal, next_key)
    observation = observe(level, state, physics.standing(around.world))
    return episode.started(state, observation, level.costs, events=("goal_met",))


def step(level: Level, state: State, action: Float[Array, " 2"]) -> State:
    """Ten physics steps, then reward and costs, then a new goal if the old one is reached."""
    before: GoalState = state.pipeline_state
    motion = physics.advance(level.solids, before.arena.world, jnp.clip(action, -1.0, 1.0))
    now = before.arena._replace(world=motion.world)
    reached = distance(before.goal, point.position(motion.world.point))
    reward, met = progress(before.distance, reached)
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


def progress(
    last: Float[Array, ""], distance: Float[Array, ""]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The reward of coming from one distance to another, and whether the goal is met.

        r = last - distance + [distance <= 0.3]

    Both are distances to the goal of this step, so there is no jump when the goal has moved.
    """
    met = distance <= GOAL_RADIUS
    return jnp.clip(last - distance + met, -REWARD_LIMIT, REWARD_LIMIT), met


def observe(level: Level, state: GoalState, motion: Motion) -> Float[Array, " O"]:
    """Sensors, then a lidar of each kind of object that there is."""
    where = arena.positions(level, state.arena) | {arena.GOAL: state.goal[None]}
    return arena.observe(level, motion, where)
