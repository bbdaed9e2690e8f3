"""States of the tasks of Goal, Button and Push, built from recordings of the real package."""

import importlib
from functools import lru_cache, partial
from types import ModuleType

import car_recorded
import jax
import jax.numpy as jnp
import numpy as np
from precision import double_precision

from smpo_envs.safe_env import State
from smpo_envs.safety_gym import gremlins, task
from smpo_envs.safety_gym.agents import POINT, Agent, named
from smpo_envs.safety_gym.arena import Arena
from smpo_envs.safety_gym.boxes import Body, FreeBoxes, yaw_quaternion
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.goal import GoalState
from smpo_envs.safety_gym.gremlins import Circling
from smpo_envs.safety_gym.levels import GOAL, Level
from smpo_envs.safety_gym.point import Point
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.task import Task
from smpo_envs.safety_gym.worlds import Motion, World

# How the original calls the objects of a kind, but for their number.
_PREFIX = {
    "hazards": "hazard",
    "vases": "vase",
    "buttons": "button",
    "gremlins": "gremlin",
    "pillars": "pillar",
    "push_box": "push_box",
}
# Recorded states are rounded to 2^-40: closer to the common motion than this is in it.
IN_TUNE = 1e-11


def task_of(recording: dict) -> ModuleType:
    """The module of the task."""
    return importlib.import_module(f"smpo_envs.safety_gym.{recording['meta']['task'][:-1].lower()}")


def agent_of(recording: dict) -> Agent:
    return named(recording["meta"]["agent"])


def level_of(recording: dict) -> Level:
    return agent_of(recording).fitted(task_of(recording).LEVELS[int(recording["meta"]["task"][-1])])


def _rows(recording: dict, kind: str) -> list[int]:
    """Of the layout, those of a kind of object."""
    names = enumerate(map(str, recording["layout_names"]))
    return [i for i, name in names if name.startswith(_PREFIX[kind])]


def arenas(recording: dict) -> Arena:
    """Where everything is after reset and after each step, leaves `[T + 1, ...]`."""
    dtype = jnp.result_type(float)
    with double_precision():
        precise = _arenas(recording)
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x), dtype if jnp.issubdtype(x.dtype, float) else x.dtype),
        precise,
    )


def _arenas(recording: dict) -> Arena:
    rows = len(recording["qpos"])
    level, dtype = level_of(recording), jnp.result_type(float)
    xy, rotation = recording["layout_xy"], recording["layout_rot"]

    def constant(x):
        return jnp.broadcast_to(jnp.asarray(x, dtype), (rows, *np.shape(x)))

    def varying(x):
        return jnp.asarray(x, dtype)

    q, v = recording["qpos"], recording["qvel"]
    boxes_q, boxes_v = boxes_of(recording)
    boxes = FreeBoxes(
        varying(boxes_q[..., :3]),
        varying(boxes_q[..., 3:]),
        varying(boxes_v[..., :3]),
        varying(boxes_v[..., 3:]),
    )
    if agent_of(recording) == POINT:
        robot = Point(constant(xy[0]), constant(rotation[0]), varying(q[:, :3]), varying(v[:, :3]))
    else:
        robot = car_recorded.cars(recording)
    markers, fixed, circling = {}, np.zeros((0, 2)), None
    for kind, _ in level.objects:
        if kind.name == GOAL:
            continue
        these = _rows(recording, kind.name)
        if isinstance(kind.solid, Post):
            fixed = xy[these]
        elif kind.solid is None:
            markers[kind.name] = constant(xy[these])
        elif kind.solid == gremlins.GREMLIN:
            home = np.concatenate([xy[these], rotation[these, None]], axis=1)
            circling = _circling(rows, home, robot.timing)
            boxes = _beside(boxes, circling)
    return Arena(World(robot, boxes, constant(fixed), circling), markers)


def boxes_of(recording: dict) -> tuple[np.ndarray, np.ndarray]:
    """Recorded coordinates and rates of what can be pushed, `[T + 1, V, 7]` and `[T + 1, V, 6]`."""
    q, v = recording["qpos"], recording["qvel"]
    number = q.shape[1] // 7 - (agent_of(recording) != POINT)
    rows = len(q)
    return (
        q[:, q.shape[1] - 7 * number :].reshape(rows, number, 7),
        v[:, v.shape[1] - 6 * number :].reshape(rows, number, 6),
    )


def _circling(rows: int, home: np.ndarray, timing: Timing) -> Circling:
    """The common motion of gremlins, from our own integration of it."""
    start = gremlins.start(jnp.asarray(home, jnp.result_type(float)))
    _, steps = jax.lax.scan(lambda c, _: (gremlins.simulate_free(c, timing), c), start, length=rows)
    return steps


def _beside(boxes: FreeBoxes, circling: Circling) -> FreeBoxes:
    """Gremlins beside their common motion, exactly where they belong if they are close to it."""
    home, height = circling.home, gremlins.GREMLIN.height
    place = jnp.concatenate([home[..., :2], jnp.full_like(home[..., :1], height)], axis=-1)
    turn = yaw_quaternion(home[..., 2])
    position = boxes.position - circling.offset[:, None]
    velocity = boxes.velocity - circling.velocity[:, None]
    near = jnp.all(jnp.abs(position - place) < IN_TUNE, axis=-1, keepdims=True)
    near &= jnp.all(jnp.abs(velocity) < 100 * IN_TUNE, axis=-1, keepdims=True)
    return FreeBoxes(
        jnp.where(near, place, position),
        jnp.where(near, turn, boxes.quaternion),
        jnp.where(near, 0, velocity),
        jnp.where(near, 0, boxes.angular_velocity),
    )


def states(recording: dict):
    """The task's own state after reset and after each step, leaves `[T + 1, ...]`."""
    around, rows = arenas(recording), len(recording["qpos"])
    keys = jax.random.split(jax.random.key(0), rows)
    task = task_of(recording)
    if "goal_button" in recording:
        lit, timer = (jnp.asarray(recording[x], jnp.int32) for x in ("goal_button", "button_timer"))
        return jax.vmap(task.state_of)(around, lit, timer, keys)
    goal = jnp.asarray(recording["goal_pos"][:, :2], jnp.result_type(float))
    return jax.vmap(partial(goal_state, task))(around, goal, keys)


def goal_state(task: ModuleType, around: Arena, goal: jax.Array, key: jax.Array) -> GoalState:
    """The state of Goal or Push in which things stand like this."""
    return GoalState(around, goal, task.distances(around, goal), key)


def state(pipeline_state) -> State:
    """What a task's `step` takes, for one state; only the pipeline state matters to it."""
    zero = jnp.zeros(())
    return State(pipeline_state=pipeline_state, obs=zero, reward=zero, done=zero)


@lru_cache
def compiled_step(played: Task, level: Level):
    """One step of many states, one action each; compiled once for each kind of task."""

    def step(pipeline_state, action):
        return task.step(played, level, state(pipeline_state), action)

    return jax.jit(jax.vmap(step))


def motions(recording: dict) -> Motion:
    """The motion that led to each row, without the acceleration, which is not recorded."""
    worlds = arenas(recording).world
    rows, number = worlds.boxes.position.shape[:2]
    by_box = np.zeros((rows, number), np.int32)
    by_fixed = np.zeros((rows, worlds.fixed.shape[1]), np.int32)
    kinds = [kind for kind, _ in level_of(recording).objects if kind.solid is not None]
    for name, points in zip(recording["touch_names"], recording["touch_points"].T, strict=True):
        (kind,) = (k for k in kinds if str(name).startswith(_PREFIX[k.name]))
        into = by_box if isinstance(kind.solid, Body) else by_fixed
        digits = str(name).removeprefix(_PREFIX[kind.name]).removesuffix("obj")
        into[1:, int(digits or 0)] = points
    unknown = jnp.full((rows, 3), jnp.nan)
    return Motion(worlds, unknown, jnp.asarray(by_box), jnp.asarray(by_fixed))
