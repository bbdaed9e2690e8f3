"""States of the PointGoal tasks, built from recordings of the real package."""

import jax
import jax.numpy as jnp
import numpy as np

from smpo_envs.safe_env import State
from smpo_envs.safety_gym.boxes import FreeBoxes
from smpo_envs.safety_gym.goal import LEVELS, GoalState, Level, state_of
from smpo_envs.safety_gym.physics import Motion, World
from smpo_envs.safety_gym.point import Point


def level_of(recording: dict) -> Level:
    return LEVELS[int(recording["meta"]["task"][-1])]


def states(recording: dict) -> GoalState:
    """The state after reset and after each step, leaves `[T + 1, ...]`, in the default float."""
    rows = len(recording["qpos"])
    names = recording["layout_names"]
    hazards = recording["layout_xy"][[name.startswith("hazard") for name in names]]
    vases = sum(name.startswith("vase") for name in names)
    q, v = recording["qpos"], recording["qvel"]
    boxes_q = q[:, 3:].reshape(rows, vases, 7)
    boxes_v = v[:, 3:].reshape(rows, vases, 6)
    dtype = jnp.result_type(float)

    def constant(x):
        return jnp.broadcast_to(jnp.asarray(x, dtype), (rows, *np.shape(x)))

    def varying(x):
        return jnp.asarray(x, dtype)

    return jax.vmap(state_of)(
        World(
            point=Point(
                start=constant(recording["layout_xy"][0]),
                rotation=constant(recording["layout_rot"][0]),
                q=varying(q[:, :3]),
                v=varying(v[:, :3]),
            ),
            vases=FreeBoxes(
                position=varying(boxes_q[..., :3]),
                quaternion=varying(boxes_q[..., 3:]),
                velocity=varying(boxes_v[..., :3]),
                angular_velocity=varying(boxes_v[..., 3:]),
            ),
        ),
        constant(hazards),
        varying(recording["goal_pos"][:, :2]),
        jax.random.split(jax.random.key(0), rows),
    )


def state(goal_state: GoalState) -> State:
    """What `goal.step` takes, for one state; only the pipeline state matters to it."""
    zero = jnp.zeros(())
    return State(pipeline_state=goal_state, obs=zero, reward=zero, done=zero)


def motions(recording: dict) -> Motion:
    """The motion that led to each row, without the acceleration, which is not recorded."""
    worlds = states(recording).world
    rows, vases = worlds.vases.position.shape[:2]
    contacts = np.zeros((rows, vases), np.int32)
    for name, points in zip(recording["touch_names"], recording["touch_points"].T, strict=True):
        contacts[1:, int(str(name).removeprefix("vase"))] = points
    return Motion(worlds, jnp.full((rows, 3), jnp.nan), jnp.asarray(contacts))
