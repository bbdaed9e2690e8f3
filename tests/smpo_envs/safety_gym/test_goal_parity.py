"""The Goal tasks against recordings of the real package, from its own states.

Recorded states are rounded to 2^-40, which the lidar of an object close by magnifies to about
1e-11; the turn servo magnifies it by up to 2e4 within one environment step (specification,
section 11). Nothing else separates the two in double precision.
"""

import contextlib
from functools import lru_cache, partial

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.safety_gym import goal, scene, task
from smpo_envs.safety_gym.costs import indicators

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECORDINGS = golden.names("PointGoal*")
CONTRACTING = [name for name in RECORDINGS if "_bang_" in name or "_cycle_" in name]
GOAL_LIDAR = slice(12, 28)
MOTION_SENSORS = slice(0, 9)  # accelerometer, velocimeter, gyro


@lru_cache
def recording(name):
    return golden.recording(name)


@lru_cache
def compiled_steps(level):
    def step(state, action):
        return task.step(goal.TASK, level, recorded.state(state), action)

    return jax.jit(jax.vmap(step))


@lru_cache
def one_step_each(name, double):
    """One step from every recorded state with the recorded action."""
    with double_precision() if double else contextlib.nullcontext():
        states = jax.tree.map(lambda x: x[:-1], recorded.states(recording(name)))
        action = jnp.asarray(recording(name)["action"], jnp.result_type(float))
        out = compiled_steps(recorded.level_of(recording(name)))(states, action)
        return jax.tree.map(np.asarray, out.replace(pipeline_state=out.pipeline_state.goal))


def untouched(name):
    """Transitions in which the robot touches nothing; vases may still be sliding."""
    return ~recording(name)["agent_contact_in_step"]


def observation_error(name, double):
    """Absolute difference, without the lidar of a goal that each side has drawn on its own."""
    error = np.abs(one_step_each(name, double).obs - recording(name)["obs"][1:])
    error[np.ix_(recording(name)["goal_met"], np.arange(60)[GOAL_LIDAR])] = 0
    return error[untouched(name)]


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_double_precision_agrees_where_nothing_is_touched(name):
    assert np.max(observation_error(name, double=True)) < 1e-9
    reward = one_step_each(name, True).reward
    assert_allclose(reward[untouched(name)], recording(name)["reward"][untouched(name)], atol=1e-12)


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_single_precision_agrees_where_nothing_is_touched(name):
    error = observation_error(name, double=False)
    # Positions, hence lidars and reward, are good to single precision at any step; the rates and
    # above all the accelerations are those of a servo that magnifies round-off.
    assert np.max(error[:, 9:]) < 5e-5
    assert np.median(np.max(error[:, MOTION_SENSORS], axis=1)) < 5e-5
    assert np.max(error[:, MOTION_SENSORS]) < 0.5
    if name in CONTRACTING:
        assert np.max(error) < 2e-5
    reward = one_step_each(name, False).reward
    assert_allclose(reward[untouched(name)], recording(name)["reward"][untouched(name)], atol=2e-6)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_charges_and_meets_goals_as_recorded(name, double):
    # At every step, contact or not.
    ours = one_step_each(name, double)
    assert_array_equal(ours.metrics["goal_met"], recording(name)["goal_met"])
    assert_array_equal(ours.info["cost"], recording(name)["cost"])
    recorded = {key for key in recording(name) if key.startswith("cost_")}
    assert set(ours.metrics) == recorded | {"goal_met"}
    for key in recorded:
        assert_array_equal(ours.metrics[key], recording(name)[key], err_msg=key)
    assert not np.any(ours.done)


@pytest.mark.parametrize("name", RECORDINGS)
def test_observation_of_every_recorded_state(name):
    # Contacts or not: all but the accelerometer, which needs forces that are not recorded.
    with double_precision():
        states, motions = recorded.states(recording(name)), recorded.motions(recording(name))

        level = recorded.level_of(recording(name))
        ours = jax.jit(jax.vmap(partial(task.observe, goal.TASK, level)))(states, motions)
        assert_allclose(ours[:, 3:], recording(name)["obs"][:, 3:], rtol=0, atol=2e-11)


@pytest.mark.parametrize("name", RECORDINGS)
def test_reward_and_costs_of_every_recorded_state(name):
    r, level = recording(name), recorded.level_of(recording(name))
    with double_precision():
        states, motions = recorded.states(r), recorded.motions(r)
        positions = jax.vmap(lambda robot: robot.position)(states.arena.world.robot)
        assert_allclose(positions, r["agent_pos"][:, :2], rtol=0, atol=1e-12)
        distance = np.linalg.norm(positions[1:] - states.goal[:-1], axis=1)
        reward, met = jax.vmap(goal.progress)(states.distances[:-1], distance)
        assert_allclose(reward, r["reward"], rtol=0, atol=1e-12)
        assert_array_equal(met, r["goal_met"])

        scenes = jax.vmap(scene.scene)(states.arena, motions)
        scenes = jax.tree.map(lambda x: x[1:], scenes)
        charged = jax.vmap(partial(indicators, level.costs))(scenes)
        for key, indicator in charged.items():
            assert_array_equal(indicator, r[key], err_msg=key)
        assert_array_equal(charged["cost_sum"], r["cost"])
        for cost in level.costs:
            amount = jax.vmap(cost.amount)(scenes)
            assert_allclose(amount, r[f"raw_{cost.name}"], rtol=0, atol=1e-11, err_msg=cost.name)


@lru_cache
def compiled_rollout(level):
    def follow(state, inputs):
        action, goal_position = inputs
        # Goals are drawn at random: each step starts with the recorded one.
        s = state.pipeline_state
        aimed = recorded.goal_state(goal, s.arena, goal_position, s.key)
        after = task.step(goal.TASK, level, state.replace(pipeline_state=aimed), action)
        seen = (after.obs, after.reward, after.info["cost"], after.metrics["goal_met"])
        return after, (after.pipeline_state.arena.world.robot, *seen)

    return jax.jit(partial(jax.lax.scan, follow))


@pytest.mark.parametrize("name", CONTRACTING)
def test_whole_trajectory_in_double_precision(name):
    r, level = recording(name), recorded.level_of(recording(name))
    with double_precision():
        states = recorded.states(r)
        first = task.reset(goal.TASK, level, jax.random.key(0)).replace(
            pipeline_state=jax.tree.map(lambda x: x[0], states)
        )
        inputs = (jnp.asarray(r["action"]), states.goal[:-1])
        _, (robot, obs, reward, cost, met) = compiled_rollout(level)(first, inputs)
        assert_allclose(robot.q, r["qpos"][1:, :3], rtol=0, atol=1e-6)
        assert_allclose(robot.v, r["qvel"][1:, :3], rtol=0, atol=1e-6)
        error = np.abs(np.asarray(obs) - r["obs"][1:])
        error[np.ix_(r["goal_met"], np.arange(60)[GOAL_LIDAR])] = 0
        assert np.max(error) < 1e-6
        assert_allclose(reward, r["reward"], rtol=0, atol=1e-6)
        assert_array_equal(cost, r["cost"])
        assert_array_equal(met, r["goal_met"])
