"""Batches: staggered starts, resets of single environments, nested batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import smpo_envs
from smpo_envs import probes
from smpo_envs.safe_env import Environment, State


def counter(episode_length=6, terminate_at=None):
    """An environment that counts its steps; a positive action is its reward."""

    def reset(key):
        zero = jnp.zeros(())
        fresh = jax.random.uniform(key)
        return State((zero, fresh), jnp.stack([zero, fresh]), zero, zero, {}, {"cost": zero})

    def step(state, action):
        count, fresh = state.pipeline_state
        count = count + 1
        done = jnp.float32(count == terminate_at) if terminate_at else jnp.zeros(())
        obs = jnp.stack([count, fresh])
        reward = action[0]
        info = {"cost": jnp.maximum(reward, 0)}
        return State((count, fresh), obs, reward, done, state.metrics, info)

    return Environment(reset, step, 2, 1, episode_length)


def rollout(env, steps, seed=0):
    state = env.reset(jax.random.key(seed))

    def step(state, _):
        after, seen = env.step(state, jnp.ones((env.num_envs, 1)))
        return after, (state.obs, state.steps, seen)

    return jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(state)[1]


def test_staggered_first_episodes_end_at_evenly_spread_times():
    env = smpo_envs.VectorEnv(counter(episode_length=6), 3)
    _, clocks, seen = rollout(env, 8)
    assert_array_equal(clocks[0], [0, 2, 4])
    # First ends after 6, 4, 2 steps, and then every 6.
    expected = np.zeros((8, 3))
    expected[[5, 3, 1, 7], [0, 1, 2, 2]] = 1
    assert_array_equal(seen.truncated, expected)


def test_environments_that_end_restart_and_the_others_go_on():
    env = smpo_envs.VectorEnv(counter(episode_length=6), 3)
    obs, _, seen = rollout(env, 8)
    # The count of each environment starts again from 0 after its end.
    assert_array_equal(obs[:, 0, 0], [0, 1, 2, 3, 4, 5, 0, 1])
    assert_array_equal(obs[:, 1, 0], [0, 1, 2, 3, 0, 1, 2, 3])
    assert_array_equal(obs[:, 2, 0], [0, 1, 0, 1, 2, 3, 4, 5])
    # The true successor is seen even where the next observation is another episode's.
    assert_array_equal(seen.next_obs[[5, 3, 1], [0, 1, 2], 0], [6, 4, 2])
    # Every episode has drawn a number of its own.
    assert len(np.unique(obs[:, :, 1])) == 3 + 3 - (obs[7, 2, 1] == obs[1, 2, 1])


def test_termination_is_no_truncation_even_at_the_time_limit():
    env = smpo_envs.VectorEnv(counter(episode_length=4, terminate_at=4), 2, stagger=False)
    _, _, seen = rollout(env, 5)
    assert_array_equal(seen.terminated[:, 0], [0, 0, 0, 1, 0])
    assert not np.any(seen.truncated)


def test_termination_restarts_the_clock():
    env = smpo_envs.VectorEnv(counter(episode_length=5, terminate_at=3), 2, stagger=False)
    obs, clocks, seen = rollout(env, 7)
    assert_array_equal(seen.terminated[:, 0], [0, 0, 1, 0, 0, 1, 0])
    assert_array_equal(clocks[:, 0], obs[:, 0, 0])


def test_state_tells_of_the_step_that_ended_an_episode():
    env = smpo_envs.VectorEnv(counter(episode_length=2), 2, stagger=False)
    state = env.reset(jax.random.key(0))
    for _ in range(2):
        state, _ = env.step(state, jnp.ones((2, 1)))
    assert_array_equal(state.obs[:, 0], [0, 0])
    assert_array_equal(state.env.reward, [1, 1])
    assert_array_equal(state.env.info["cost"], [1, 1])


@pytest.mark.usefixtures("quick_compilation")
def test_batches_of_batches_agree_with_each_batch_alone():
    env = smpo_envs.VectorEnv(smpo_envs.make("PointGoal1", episode_length=5), 4)
    keys = jax.random.split(jax.random.key(0), 3)
    action = jax.random.uniform(jax.random.key(1), (3, 4, 2), minval=-1.0)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    states = jax.jit(jax.vmap(env.reset))(keys)
    nested_step = jax.jit(jax.vmap(env.step))
    alone = [reset(key) for key in keys]
    for _ in range(6):
        states, seen = nested_step(states, action)
        for i in range(3):
            alone[i], seen_alone = step(alone[i], action[i])
            np.testing.assert_allclose(states.obs[i], alone[i].obs, rtol=1e-3, atol=1e-3)
            assert_array_equal(seen.truncated[i], seen_alone.truncated)


@pytest.mark.parametrize("seeds", [None, 4])
def test_a_reset_costs_what_the_environments_that_end_cost(seeds):
    resets = []
    inner = counter(episode_length=64)

    def reset(key):
        jax.debug.callback(lambda: resets.append(1))
        return inner.reset(key)

    counted = Environment(reset, inner.step, 2, 1, 64)
    env = smpo_envs.VectorEnv(counted, 64)
    start, step, keys = env.reset, env.step, jax.random.key(0)
    if seeds:
        start, step, keys = jax.vmap(start), jax.vmap(step), jax.random.split(keys, seeds)
    state, step = jax.jit(start)(keys), jax.jit(step)
    actions = jnp.zeros((*keys.shape, 64, 1))
    per_step = []
    for _ in range(4):
        jax.effects_barrier()
        resets.clear()
        state, _ = step(state, actions)
        jax.effects_barrier()
        per_step.append(len(resets))
    # One environment of 64 ends at each step: one pass over a group, not over the batch.
    members = 64 * (seeds or 1)
    assert all(0 < count <= members // 8 for count in per_step)


def test_size_must_be_positive():
    with pytest.raises(ValueError, match="num_envs=0"):
        smpo_envs.VectorEnv(counter(), 0)


def test_costs_that_are_known_are_refused_where_a_step_has_others():
    """It is not looked at before, so a step does."""
    env = smpo_envs.VectorEnv(probes.spending(), 2, known_costs=("cost",))
    with pytest.raises(
        ValueError, match=r"known_costs=\('cost',\): info\['cost'\] has shape \[2\]"
    ):
        env.step(env.reset(jax.random.key(0)), jnp.zeros((2, env.action_size)))


def test_curriculum_decides_what_episodes_begin_with_as_time_goes_on():
    plain = counter(episode_length=3)

    def reset(key, taken):
        state = plain.reset(key)
        fresh = jnp.asarray(taken, jnp.float32)
        return state.replace(
            pipeline_state=(state.pipeline_state[0], fresh), obs=state.obs.at[1].set(fresh)
        )

    curriculum = smpo_envs.Curriculum(reset, np.int32(0), lambda taken: taken + 1)
    env = smpo_envs.VectorEnv(plain, 2, stagger=False, curriculum=curriculum)
    obs, _, _ = rollout(env, 7)
    # The third and the sixth step of all environments end an episode.
    assert_array_equal(obs[:, 0, 1], [0, 0, 0, 3, 3, 3, 6])
    assert_array_equal(obs[:, 1, 1], obs[:, 0, 1])


def test_every_environment_has_what_its_state_holds_in_a_row_of_its_own():
    curriculum = smpo_envs.Curriculum(lambda key, c: counter().reset(key), np.zeros(3))
    env = smpo_envs.VectorEnv(counter(), 4, curriculum=curriculum)
    state = env.reset(jax.random.key(0))
    after, _ = env.step(state, jnp.ones((4, 1)))
    for each in (state, after):
        assert {leaf.shape[0] for leaf in jax.tree.leaves(each)} == {4}
    some = jax.tree.map(lambda leaf: leaf[:2], state)  # as on one device of two
    part, _ = env.step(some, jnp.ones((2, 1)))
    assert_array_equal(part.obs, after.obs[:2])
