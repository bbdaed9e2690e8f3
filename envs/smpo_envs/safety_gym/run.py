"""Run: drive down a straight corridor as fast as possible without leaving it.

Its walls are only drawn: nothing stops the robot, it is charged for being outside.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.drawing import ROBOT, Drawing
from smpo_envs.safe_env import Environment, State
from smpo_envs.safety_gym import episode, physics
from smpo_envs.safety_gym.agents import POINT, Agent, named
from smpo_envs.safety_gym.costs import Scene, indicators, out_of_boundary
from smpo_envs.safety_gym.robot import Robot
from smpo_envs.safety_gym.worlds import NOTHING, Motion, World, initial_world, standing

START_EXTENT = 0.2  # half width of where the robot starts, along x, m
START_Y = 16.5  # m
TARGET_Y = -1000.0  # of the far point on x = 0 that the robot is paid to approach, m
WALL = 0.5  # distance of the walls from x = 0, m
REWARD_SCALE = 60.0  # per metre
EPISODE_LENGTH = 500
COSTS = (out_of_boundary(x=WALL),)


class RunState(NamedTuple):
    """Where everything is."""

    world: World


def _poses(state: RunState) -> dict[str, Float[Array, "K 3"]]:
    return {ROBOT: state.world.robot.pose[None]}


_ENDS = 17.5  # of the walls, m


def drawing(agent: Agent) -> Drawing:
    """How it looks."""
    return Drawing(
        looks={},
        poses=_poses,
        sensors=agent.sensors,
        lidars=(),
        step_seconds=agent.step_seconds,
        half_width=2.0,
        follows=True,
        walls=tuple((x, -_ENDS, x, _ENDS) for x in (-WALL, WALL)),
    )


def make(
    *, level: int = 0, agent: str = POINT.name, episode_length: int = EPISODE_LENGTH
) -> Environment:
    """The task, which has the level 0 alone; see `agents`."""
    if level != 0:
        raise ValueError(f"level={level}: Run has level 0 alone")
    who = named(agent)
    return Environment(
        partial(reset, agent=who),
        step,
        who.observation_size(0),
        who.action_size,
        episode_length,
        drawing(who),
        readings=who.readings,
    )


def reset(key: PRNGKeyArray, *, agent: Agent = POINT) -> State:
    """The robot at rest at one end of the corridor, facing anywhere."""
    start_key, rotation_key = jax.random.split(key)
    dtype = jnp.result_type(float)
    x = START_EXTENT * jax.random.uniform(start_key, (), dtype, minval=-1.0)
    rotation = 2 * jnp.pi * jax.random.uniform(rotation_key, (), dtype)
    start = jnp.stack([x, jnp.full_like(x, START_Y)])
    world = initial_world(NOTHING, agent.at_rest(start, rotation))
    return episode.started(RunState(world), observe(standing(world)), COSTS)


def step(state: State, action: Float[Array, " 2"]) -> State:
    """Ten physics steps, then reward and costs."""
    before = state.pipeline_state.world.robot
    motion = physics.simulate(NOTHING, state.pipeline_state.world, action)
    after = motion.world.robot
    return episode.stepped(
        state,
        RunState(motion.world),
        observe(motion),
        progress(before, after),
        indicators(COSTS, Scene(after.position, motion)),
    )


def progress(before: Robot, after: Robot) -> Float[Array, ""]:
    """60 per metre that the robot has come nearer to (0, -1000); not clipped.

    The difference of two distances of about 1000 m, d₀ - d₁ = (d₀² - d₁²) / (d₀ + d₁), from the way
    between: in single precision the plain difference would be good to two digits.
    """
    x0, y0 = before.position - jnp.array([0.0, TARGET_Y])
    x1, y1 = after.position - jnp.array([0.0, TARGET_Y])
    dx, dy = after.way_from(before)
    distances = jnp.sqrt(x0 * x0 + y0 * y0) + jnp.sqrt(x1 * x1 + y1 * y1)
    return -REWARD_SCALE * (dx * (x0 + x1) + dy * (y0 + y1)) / distances


def observe(motion: Motion) -> Float[Array, " S"]:
    """Sensors alone."""
    return motion.world.robot.sensors(motion.acceleration)
