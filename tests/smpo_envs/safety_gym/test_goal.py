"""The rules of the Goal task on hand-made states."""

from functools import lru_cache, partial

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded
from numpy.testing import assert_allclose

from smpo_envs.safety_gym import arena, goal, point, task
from smpo_envs.safety_gym.goal import LEVELS, TASK, progress
from smpo_envs.safety_gym.levels import Level

pytestmark = pytest.mark.usefixtures("quick_compilation")


@lru_cache
def compiled(level: Level):
    return jax.jit(partial(task.reset, TASK, level)), jax.jit(partial(task.step, TASK, level))


def at(state, agent, goal_position):
    """A state with the robot and the goal put elsewhere."""
    s = state.pipeline_state
    world = s.arena.world
    robot = world.robot._replace(start=jnp.asarray(agent, s.goal.dtype))
    around = s.arena._replace(world=world._replace(robot=robot))
    moved = recorded.goal_state(goal, around, jnp.asarray(goal_position, s.goal.dtype), s.key)
    return state.replace(pipeline_state=moved)


def _in_frame(robot, place):
    """A place as the robot's slides measure it."""
    offset = place - robot.start
    return point.rotate(offset, jnp.cos(robot.rotation), -jnp.sin(robot.rotation))


def keys_differ(a, b):
    return not np.array_equal(jax.random.key_data(a), jax.random.key_data(b))


def test_progress_rewards_approach_and_pays_one_at_the_goal():
    assert progress(jnp.float32(5.0), jnp.float32(4.0)) == (1.0, False)
    assert progress(jnp.float32(0.5), jnp.float32(0.25)) == (0.25 + 1, True)
    assert progress(jnp.float32(0.25), jnp.float32(0.375)) == (-0.125, False)


def test_progress_is_clipped():
    assert progress(jnp.float32(50.0), jnp.float32(1.0))[0] == 10.0


def test_observation_sizes_are_those_of_the_original():
    assert [task.environment(TASK, level).observation_size for level in LEVELS] == [28, 60, 60]


def test_reset_stands_still_and_knows_no_cost():
    reset, _ = compiled(LEVELS[2])
    state = reset(jax.random.key(0))
    robot = state.pipeline_state.arena.world.robot
    assert not np.any(robot.q) and not np.any(robot.v)
    sensors = [0, 0, 9.81, 0, 0, 0, 0, 0, 0]
    assert_allclose(state.obs[:9], sensors, rtol=1e-6)
    assert state.reward == state.done == state.info["cost"] == 0
    assert not any(map(float, state.metrics.values()))


def test_step_moves_only_a_goal_that_is_met():
    reset, step = compiled(LEVELS[1])
    state = reset(jax.random.key(1))
    away = step(at(state, [0.0, 0.0], [1.0, 1.0]), jnp.zeros(2))
    assert_allclose(away.pipeline_state.goal, [1.0, 1.0])
    assert not keys_differ(away.pipeline_state.key, state.pipeline_state.key)
    assert away.metrics["goal_met"] == 0 and away.reward == 0

    met = step(at(state, [0.0, 0.0], [0.1, 0.1]), jnp.zeros(2))
    assert np.linalg.norm(met.pipeline_state.goal) >= 0.4 + 0.305
    assert keys_differ(met.pipeline_state.key, state.pipeline_state.key)
    assert met.metrics["goal_met"] == 1 and met.reward == 1 and met.done == 0

    # The reward of the next step is measured against the new goal: no jump.
    after = step(met, jnp.zeros(2))
    assert_allclose(after.reward, 0, atol=1e-6)


def test_step_observes_the_new_goal_with_the_reward_of_the_old_one():
    reset, step = compiled(LEVELS[0])
    met = step(at(reset(jax.random.key(2)), [0.0, 0.0], [0.1, 0.1]), jnp.zeros(2))
    # The robot stands at the origin, and its sector reads (3 - distance) / 3.
    seen = 3 * (1 - np.max(met.obs[12:28]))
    assert_allclose(seen, np.linalg.norm(met.pipeline_state.goal), rtol=1e-5)
    assert met.reward == 1


def test_new_goal_keeps_clear_of_where_things_are_now():
    # Vases pushed to one spot, the robot far from its start: only present positions count.
    level = LEVELS[2]
    state = compiled(level)[0](jax.random.key(3)).pipeline_state
    world = state.arena.world
    boxes = world.boxes
    here = boxes.position.at[:, :2].set(jnp.array([0.5, 0.5]))
    agent = jnp.array([-0.5, -0.5])
    elsewhere = world.robot._replace(q=jnp.zeros(3).at[:2].set(_in_frame(world.robot, agent)))
    world = world._replace(robot=elsewhere, boxes=boxes._replace(position=here))
    around = state.arena._replace(world=world)

    def one(key):
        redrawn, _, stuck = arena.redraw_goal(level, jnp.bool_(True), state.goal, key, around)
        return redrawn, stuck

    goals, stuck = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), 4000))
    assert not np.any(stuck)
    for others, keepout in (
        (agent[None], 0.4),
        (around.markers["hazards"], 0.18),
        (here[:1, :2], 0.15),
    ):
        gaps = np.linalg.norm(goals[:, None] - others[None], axis=-1)
        assert np.min(gaps) >= 0.305 + keepout - 1e-6
        # As close as that is reached, so it is not something stricter that keeps the distance.
        assert np.min(gaps) < 0.305 + keepout + 0.05
    start = world.robot.start
    assert np.min(np.linalg.norm(goals - start, axis=-1)) < 0.6
    assert np.max(np.abs(goals)) <= 2.0 - 0.305


def test_episode_terminates_when_no_goal_can_be_placed():
    # A robot in the middle of an arena that leaves the goal 0.1 in each direction.
    level = Level(extent=0.405, objects=((goal.GOAL, 1),))
    state = compiled(LEVELS[0])[0](jax.random.key(5))
    end = jax.jit(partial(task.step, TASK, level))(at(state, [0.0, 0.0], [0.1, 0.1]), jnp.zeros(2))
    assert end.done == 1 and end.metrics["goal_met"] == 1
    assert_allclose(end.pipeline_state.goal, [0.1, 0.1])
    assert np.all(np.isfinite(end.obs))


def test_actions_act_within_one():
    reset, step = compiled(LEVELS[1])
    state = reset(jax.random.key(6))
    clipped, wild = (step(state, jnp.array(a)) for a in ([1.0, -1.0], [7.0, -30.0]))
    assert np.array_equal(clipped.obs, wild.obs)


def test_step_keeps_what_wrappers_have_added():
    reset, step = compiled(LEVELS[0])
    state = reset(jax.random.key(7))
    state = state.replace(
        info={**state.info, "steps": jnp.int32(3)}, metrics={**state.metrics, "mine": jnp.ones(())}
    )
    after = step(state, jnp.zeros(2))
    assert after.info["steps"] == 3 and after.metrics["mine"] == 1


def test_recorded_goals_keep_the_distances_ours_keep():
    # The rule itself, on the original's own draws: every new goal is clear of what stands there.
    for name in golden.names("PointGoal*"):
        recording = golden.recording(name)
        states = recorded.states(recording)
        level = recorded.level_of(recording)
        for k in np.flatnonzero(recording["goal_met"]) + 1:
            now = jax.tree.map(lambda x, k=k: x[k], states.arena)
            others = np.asarray(arena.obstacles(level, now))
            gaps = np.linalg.norm(others - states.goal[k], axis=-1)
            assert np.all(
                gaps
                >= 0.305
                + np.array([x.keepout for x, n in level.objects[1:] for _ in range(n)])
                - 1e-6
            )
            agent = recording["agent_pos"][k, :2]
            assert np.linalg.norm(agent - states.goal[k]) >= 0.305 + 0.4 - 1e-6
