"""What every registered environment promises, alone and as a batch with resets.

Everything runs with JAX's check that no key is consumed twice.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import smpo_envs
from smpo_envs.step import by_name

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = list(smpo_envs.TASKS)
NAVIGATION = [name for name in NAMES if smpo_envs.TASKS[name].task_id]
ENVS, LENGTH = 3, 4  # few, and soon over


@pytest.fixture(autouse=True)
def no_key_is_consumed_twice():
    with jax.debug_key_reuse(True):
        yield


@lru_cache
def single(name):
    """An environment whose episodes last 4 steps, which is traced once for all tests."""
    env: Any = smpo_envs.make(name, episode_length=LENGTH)
    env = replace(env, reset=jax.jit(env.reset), step=jax.jit(env.step))
    return env, env.reset, env.step


@lru_cache
def vector(name):
    """A batch of it, not staggered."""
    env = smpo_envs.VectorEnv(single(name)[0], ENVS, stagger=False)
    return env, jax.jit(env.reset), jax.jit(env.step)


@lru_cache
def episode(name, seed=0):
    """States and steps of one and a half episodes of the batch with small constant actions."""
    env, reset, step = vector(name)
    states, steps = [reset(jax.random.key(seed))], []
    for _ in range(LENGTH * 3 // 2):
        state, seen = step(states[-1], jnp.full((ENVS, env.action_size), 0.1))
        states.append(state)
        steps.append(seen)
    return states, steps


# They take longest to compile, and the others of their kind have all that is in them.
LONG = ("PointGoal2", "PointPush0", "PointPush2", "PointButton2", "CarGoal2", "CarPush0")
LONG += ("CarButton0", "CarButton1", "CarButton2", "CarPush1", "CarPush2", "CarCircle2")


def marked(names):
    return [pytest.param(x, marks=pytest.mark.slow) if x in LONG else x for x in names]


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_data(tree):
    """All keys in a tree, one row each."""
    keys = filter(is_key, jax.tree.leaves(tree))
    return [tuple(row) for k in keys for row in np.asarray(jax.random.key_data(k)).reshape(-1, 2)]


def robot(state):
    """Where the robot of a navigation task is."""
    inside = state.pipeline_state
    return (inside.arena if hasattr(inside, "arena") else inside).world.robot


def first_lidar(name):
    """Where an observation has the first of its lidars, if there is one."""
    env: Any = smpo_envs.make(name)
    sensors = env.drawing.sensors
    return slice(sensors, sensors + 16)


@pytest.mark.parametrize("name", marked(NAMES))
def test_reset_and_step_keep_one_structure(name):
    env, reset, step = single(name)
    first = reset(jax.random.key(0))
    second = step(first, jnp.zeros(env.action_size))
    assert first.obs.shape == (env.observation_size,)
    assert first.obs.dtype == jnp.result_type(float)
    assert signature(first) == signature(second)
    assert first.reward == first.done == 0 and np.all(first.info["cost"] == 0)
    assert np.all(np.isfinite(second.obs))
    assert np.all(second.info["cost"] >= 0)
    assert second.metrics["cost_sum"] == jnp.sum(second.info["cost"])


@pytest.mark.parametrize("name", marked(NAMES))
def test_batch_does_what_each_environment_does_alone(name):
    states, steps = episode(name)
    env, _, step = single(name)
    # The batch has used these keys already; here that is the point.
    again = jax.tree.map(lambda x: jax.random.clone(x) if is_key(x) else x, states[1].env)
    for i in range(ENVS):
        alone = jax.tree.map(lambda x, i=i: x[i], again)
        after = step(alone, jnp.full(env.action_size, 0.1))
        # The servo magnifies differences in rounding; accelerations are up to some ten m/s².
        assert_allclose(steps[1].next_obs[i], after.obs, rtol=1e-3, atol=1e-2)
        assert_allclose(steps[1].reward[i], after.reward, rtol=1e-5, atol=1e-6)
        cost = by_name(after.info["cost"], vector(name)[0].cost_names)
        jax.tree.map(lambda x, y, i=i: assert_array_equal(x[i], y), steps[1].cost, cost)


@pytest.mark.parametrize("name", marked(NAMES))
def test_the_key_decides_everything(name):
    env, reset, step = single(name)
    action = jnp.full(env.action_size, 0.3)
    once, again = (step(reset(jax.random.key(2)), action) for _ in range(2))
    for a, b in zip(jax.tree.leaves(once.obs), jax.tree.leaves(again.obs), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("name", marked(NAVIGATION))
def test_different_keys_give_different_layouts(name):
    _, reset, _ = single(name)
    a, b = reset(jax.random.key(3)), reset(jax.random.key(4))
    seen = first_lidar(name)
    assert not np.any(np.isclose(a.obs[seen], b.obs[seen]) & (a.obs[seen] > 0))
    assert robot(a).pose[2] != robot(b).pose[2]


@pytest.mark.parametrize("name", marked(NAMES))
def test_batch_reports_truncation_and_the_final_observation(name):
    states, steps = episode(name)
    for t, seen in enumerate(steps):
        over = (t + 1) % LENGTH == 0
        assert_array_equal(seen.terminated, np.zeros(ENVS))
        assert_array_equal(seen.truncated, np.full(ENVS, float(over)))
        assert seen.next_obs.shape == states[0].obs.shape
        each = (seen.reward, *jax.tree.leaves(seen.cost), seen.truncated)
        assert all(x.shape == (ENVS,) for x in each)
        if not over:
            assert_array_equal(seen.next_obs, states[t + 1].obs)
    assert_array_equal(states[LENGTH].steps, np.zeros(ENVS))
    assert signature(states[0]) == signature(states[LENGTH]) == signature(states[-1])


@pytest.mark.parametrize("name", marked(NAVIGATION))
def test_batch_starts_each_episode_with_a_fresh_layout(name):
    states, steps = episode(name)
    last, fresh = steps[LENGTH - 1].next_obs, states[LENGTH].obs
    # The final observation continues the episode; the next one belongs to another place.
    before, seen = states[LENGTH - 1].obs, first_lidar(name)
    assert_allclose(last[:, 9:12], before[:, 9:12], atol=0.02)  # the magnetometer: headings
    # What the robot nearly stands on is soon in another direction; else a step changes little.
    far = np.max(before[:, seen], axis=1, initial=0) < 0.95
    env: Any = single(name)[0]
    most = 2.5 * env.drawing.step_seconds
    assert_allclose(last[far][:, seen], before[far][:, seen], atol=most)
    first, second = (s.env.pipeline_state for s in (states[0], states[LENGTH]))
    drawn = [(robot(states[0].env).start, robot(states[LENGTH].env).start)]
    if hasattr(first, "goal"):
        drawn.append((first.goal, second.goal))
    for before, after in drawn:
        everywhere = np.concatenate([before, after])
        assert len(np.unique(everywhere.round(4), axis=0)) == 2 * ENVS
    assert_allclose(fresh[:, :9], [[0, 0, 9.81] + [0] * 6] * ENVS, rtol=1e-6)  # at rest
    moved = jax.vmap(lambda robot: robot.position - robot.start)(robot(states[LENGTH].env))
    assert not np.any(moved)


@pytest.mark.parametrize("name", marked(NAMES))
def test_batch_never_uses_a_key_twice(name):
    states, _ = episode(name)
    held = [key_data((s.env.pipeline_state, s.key)) for s in states]
    assert all(len(set(rows)) == len(rows) for rows in held)
    # A key is replaced when it is consumed: an environment that ended holds none of its old keys.
    assert not set(held[LENGTH - 1]) & set(held[LENGTH])


@pytest.mark.parametrize("name", marked(NAVIGATION))
def test_no_cost_is_due_at_the_start(name):
    """Without a command the robot stays exactly where it starts, and is charged for that."""
    states, _ = episode(name)
    env, _, step = single(name)
    for first in (states[0], states[LENGTH]):
        at_rest = jax.tree.map(lambda x: jax.random.clone(x) if is_key(x) else x, first.env)
        for i in range(ENVS):
            alone = jax.tree.map(lambda x, i=i: x[i], at_rest)
            assert step(alone, jnp.zeros(env.action_size)).metrics["cost_sum"] == 0
