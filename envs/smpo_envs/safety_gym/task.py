"""Tasks in an arena, as values: what the robot is paid for, and what it is to go to.

`environment` puts one on a level. A task that needs no goal, or no arena, is written as two
functions instead, `reset` and `step`, as `circle` and `run` are.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smpo_envs.safe_env import Environment, State
from smpo_envs.safety_gym import arena, costs, episode, physics, scene
from smpo_envs.safety_gym.agents import POINT, Agent, named
from smpo_envs.safety_gym.arena import Arena
from smpo_envs.safety_gym.levels import GOAL, Level
from smpo_envs.safety_gym.sensors import lidars
from smpo_envs.safety_gym.shifts import shifted
from smpo_envs.safety_gym.worlds import Motion, standing
from smpo_envs.shift import Shift

EPISODE_LENGTH = 1000
REWARD_LIMIT = 10.0  # never reached in sane motion


class Outcome(NamedTuple):
    """What a task makes of a step.

    Attributes:
        state: the task's own, from which the next step is judged.
        reward: of this step.
        met: whether it reached the goal; the metric `goal_met`.
        done: whether the episode cannot go on.
        exempt: things standing fast that could be touched free of charge; None: none of them.
    """

    state: Any
    reward: Float[Array, ""]
    met: Bool[Array, ""]
    done: Bool[Array, ""] | bool = False
    exempt: Bool[Array, " F"] | None = None


class Task(NamedTuple):
    """What the robot is to do in an arena; its functions are pure and work on single states.

    A task has a state of its own, any pytree with a field `arena`: where everything is now.

    Attributes:
        start: the state as an episode begins, `(level, arena, goal_key, next_key) -> state`. The
            first key is for what is drawn now, the second for what is drawn later.
        judge: `(level, state, arena, motion) -> Outcome`: the state before a step, the arena after
            it, and the motion that led there.
        goal: where the robot is to go, `(state) -> [2]`; seen by the lidar of the goal, and drawn.
        hidden: kinds of objects that the lidars do not see where the flag is true,
            `(state) -> {name: flag}`.
    """

    start: Callable[[Level, Arena, PRNGKeyArray, PRNGKeyArray], Any]
    judge: Callable[[Level, Any, Arena, Motion], Outcome]
    goal: Callable[[Any], Float[Array, " 2"]]
    hidden: Callable[[Any], Mapping[str, Bool[Array, ""]]] = lambda state: {}


def environment(
    task: Task,
    level: Level,
    agent: Agent = POINT,
    *,
    episode_length: int = EPISODE_LENGTH,
    shift: Shift | None = None,
) -> Environment:
    """A task at any level, also one of your own, for any agent.

    Args:
        task: what is to be done.
        level: where; with a shift, what `shifts.shifted` gave.
        agent: who does it; it is given objects of its own instead of some (`Agent.instead`).
        episode_length: steps after which an episode is cut.
        shift: other hazards than the level's, also as `shifted` gave it.
    """
    level = agent.fitted(level)
    return Environment(
        reset=partial(reset, task, level, agent=agent, shift=shift),
        step=partial(step, task, level),
        observation_size=agent.observation_size(len(level.seen)),
        action_size=agent.action_size,
        episode_length=episode_length,
        drawing=scene.drawing(agent, level, task.goal),
        shift=shift,
        readings=(*agent.readings, *lidars(level.seen)),
    )


def maker(task: Task, levels: Sequence[Level]) -> Callable[..., Environment]:
    """The `make` of a task, for the registry.

    Args:
        task: what is to be done.
        levels: its levels, by difficulty.
    """

    def make(
        *,
        level: int,
        agent: str = POINT.name,
        episode_length: int = EPISODE_LENGTH,
        shift: Shift | None = None,
        most: int | None = None,
    ) -> Environment:
        """The task at difficulty 0, 1 or 2; see `agents` and `shifted`."""
        own = levels[level]
        if shift is not None:
            own, shift = shifted(own, shift, most)
        return environment(task, own, named(agent), episode_length=episode_length, shift=shift)

    return make


def reset(
    task: Task,
    level: Level,
    key: PRNGKeyArray,
    shift: Shift | None = None,
    *,
    agent: Agent = POINT,
) -> State:
    """A fresh random layout, the robot at rest."""
    layout_key, rotation_key, goal_key, next_key = jax.random.split(key, 4)
    around = arena.sample(agent, level, layout_key, rotation_key, shift)
    state = task.start(level, around, goal_key, next_key)
    observation = observe(task, level, state, standing(around.world))
    return episode.started(state, observation, level.costs, events=("goal_met",))


def step(task: Task, level: Level, state: State, action: Float[Array, " 2"]) -> State:
    """Ten physics steps, and what the task and the level make of them."""
    before = state.pipeline_state
    motion = physics.simulate(level.solids, before.arena.world, action)
    now = before.arena._replace(world=motion.world)
    outcome = task.judge(level, before, now, motion)
    return episode.stepped(
        state,
        outcome.state,
        observe(task, level, outcome.state, motion),
        outcome.reward,
        costs.indicators(level.costs, scene.scene(now, motion, outcome.exempt)),
        done=outcome.done,
        events={"goal_met": outcome.met},
    )


def observe(task: Task, level: Level, state: Any, motion: Motion) -> Float[Array, " O"]:
    """Sensors, then a lidar of each kind of object that there is."""
    where = arena.positions(level, state.arena) | {GOAL: task.goal(state)[None]}
    return scene.observe(level, motion, where, task.hidden(state))
