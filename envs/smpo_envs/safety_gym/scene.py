"""What is seen of an arena: by the robot's sensors, by the costs, and by a person from above."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_envs.drawing import ROBOT, Drawing
from smpo_envs.safety_gym import boxes
from smpo_envs.safety_gym.agents import Agent
from smpo_envs.safety_gym.arena import Arena, positions
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.costs import Scene
from smpo_envs.safety_gym.levels import GOAL, Level
from smpo_envs.safety_gym.lidar import lidar
from smpo_envs.safety_gym.worlds import Motion


def scene(arena: Arena, motion: Motion, exempt: Bool[Array, " F"] | None = None) -> Scene:
    """What costs depend on; `exempt` are things standing fast that may be touched just now."""
    return Scene(motion.world.robot.position, motion, arena.markers, exempt, arena.radii)


def observe(
    level: Level,
    motion: Motion,
    where: Mapping[str, Float[Array, "K 2"]],
    hidden: Mapping[str, Bool[Array, ""]] | None = None,
) -> Float[Array, " O"]:
    """Sensors, then a lidar for each kind, but for those that are `hidden` where that is true."""
    robot = motion.world.robot
    readings = [robot.sensors(motion.acceleration)]
    for name in level.seen:
        reading = lidar(*robot.in_frame(where[name]))
        dark = (hidden or {}).get(name)
        readings.append(reading if dark is None else jnp.where(dark, 0, reading))
    return jnp.concatenate(readings)


def drawing(agent: Agent, level: Level, goal: Callable[[Any], Float[Array, " 2"]]) -> Drawing:
    """How a level looks.

    Args:
        agent: who drives in it.
        level: what is in it.
        goal: where the goal is, of a task's state, whose field `arena` says where all else is.
    """
    charged = {cost.kind for cost in level.costs}
    looks = {
        kind.name: kind.look._replace(role="cost") if kind.name in charged else kind.look
        for kind, _ in level.objects
    }
    # The goal last, on top of what it may be drawn upon.
    looks[GOAL] = looks.pop(GOAL)

    def poses(state: Any) -> dict[str, Float[Array, "K 3"]]:
        arena: Arena = state.arena
        where = {**positions(level, arena), GOAL: goal(state)[None]}
        shown = {name: jnp.pad(xy, ((0, 0), (0, 1))) for name, xy in where.items()}
        for kind, _ in level.objects:
            if isinstance(kind.solid, Body):
                turned = boxes.poses(arena.world.boxes)
                shown[kind.name] = shown[kind.name].at[:, 2].set(turned[:, 2])
        return {ROBOT: arena.world.robot.pose[None], **shown}

    return Drawing(
        looks,
        poses,
        agent.sensors,
        level.seen,
        agent.step_seconds,
        half_width=level.extent + 0.5,
    )
