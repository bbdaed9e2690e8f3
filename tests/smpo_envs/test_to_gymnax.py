"""Our environments in gymnax's style, which needs no gymnax."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs

pytestmark = pytest.mark.usefixtures("quick_compilation")

ENVS, STEPS = 4, 25  # over two episodes of the probes


def rollout(env, params, acts, key):
    """Reset and steps of many, as gymnax's users write them."""
    reset_key, step_key = jax.random.split(key)

    def step(carry, x):
        obs, state = carry
        action, key = x
        after, state, reward, done, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            jax.random.split(key, ENVS), state, action, params
        )
        return (after, state), (obs, reward, done, info)

    first = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, ENVS), params)
    return jax.lax.scan(step, first, (acts, jax.random.split(step_key, len(acts))))[1]


def acts(size):
    return jax.random.uniform(jax.random.key(9), (STEPS, ENVS, size), minval=-1.0, maxval=1.0)


@pytest.mark.parametrize("raw", [True, False], ids=["raw keys", "typed keys"])
def test_episodes_are_ours_step_by_step(raw):
    env = smpo_envs.to_gymnax(smpo_envs.make("ProbeFollow"))
    key = jax.random.PRNGKey(0) if raw else jax.random.key(0)
    obs, reward, done, info = jax.jit(lambda key: rollout(env, env.default_params, acts(1), key))(
        key
    )
    np.testing.assert_array_equal(np.where(done.all(1))[0], [9, 19])
    np.testing.assert_allclose(reward, 1 - np.abs(acts(1) - obs)[..., 0], rtol=1e-6)
    np.testing.assert_allclose(info["cost"], np.maximum(acts(1)[..., 0], 0))
    np.testing.assert_array_equal(info["truncated"], done)
    assert not info["terminated"].any()


def test_a_step_is_that_of_the_environment_and_the_true_successor_is_told():
    native = smpo_envs.make("PointCircle1")
    env = smpo_envs.to_gymnax(native)
    params = env.default_params.replace(max_steps_in_episode=1)
    key, action = jax.random.key(3), jnp.array([1.0, 0.3])

    @jax.jit
    def both(key):
        first = native.reset(key)
        _, state = env.reset(key)
        return native.step(first, action), env.step(key, state, action, params)

    ours, (obs, state, reward, done, info) = both(key)
    assert done and info["truncated"]
    np.testing.assert_array_equal(info["final_observation"], ours.obs)
    assert np.any(obs != ours.obs) and state.time == 0
    np.testing.assert_array_equal(obs, state.env.obs)
    assert (reward, info["cost"]) == (ours.reward, ours.info["cost"])


def test_an_end_is_no_cut():
    env = smpo_envs.to_gymnax(smpo_envs.make("ProbeExits"))
    _, _, done, info = jax.jit(
        lambda key: rollout(env, env.default_params, jnp.ones((STEPS, ENVS, 1)), key)
    )(jax.random.key(0))
    np.testing.assert_array_equal(done[:, 0], np.arange(STEPS) % 2 == 1)  # two steps to the exit
    np.testing.assert_array_equal(info["terminated"], done)
    assert not info["truncated"].any()


def test_spaces():
    env = smpo_envs.to_gymnax(smpo_envs.make("PointGoal1"))
    space = env.action_space(env.default_params)
    assert (space.low, space.high, space.shape) == (-1.0, 1.0, (2,))
    assert space.contains(space.sample(jax.random.key(0)))
    assert not space.contains(jnp.array([0.0, 1.5]))
    assert env.observation_space(env.default_params).shape == (60,)
    assert env.num_actions == 2
    assert env.default_params.max_steps_in_episode == 1000


def test_a_scalar_is_an_action_of_one_number():
    env = smpo_envs.to_gymnax(smpo_envs.make("ProbeTradeoff"))
    _, state = env.reset(jax.random.key(0))
    assert env.step(jax.random.key(0), state, jnp.float32(0.5))[2] == 0.5


def test_there_and_back_is_the_same_environment():
    native = smpo_envs.make("ProbeExits")
    back = smpo_envs.from_gymnax(smpo_envs.to_gymnax(native))
    assert (back.observation_size, back.action_size) == (1, 1)
    assert back.episode_length == native.episode_length

    @jax.jit
    def play(key):
        def step(states, action):
            states = native.step(states[0], action), back.step(states[1], action)
            return states, [(x.obs, x.reward, x.done, x.info["cost"]) for x in states]

        start = native.reset(key), back.reset(key)
        return jax.lax.scan(step, start, jnp.full((6, 1), -0.9))[1]

    ours, theirs = play(jax.random.key(0))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_copied_as_trainers_copy_their_settings():
    env = copy.deepcopy(smpo_envs.to_gymnax(smpo_envs.make("PointGoal1")))
    assert env.default_params.max_steps_in_episode == 1000
