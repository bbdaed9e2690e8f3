"""Observations of several parts, and pictures, as vectors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
from smpo_envs.adapters import as_safe_env
from smpo_envs.observations import layout
from smpo_envs.safe_env import Environment, State, kind

ZERO = jnp.zeros(())


class Robot(NamedTuple):
    speed: Any
    gripped: Any


OBS = {
    "robot": Robot(jnp.array(0.5), jnp.array([True, False])),
    "goal": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
    "count": jnp.array([7], jnp.int32),
}


def test_parts_come_by_sorted_key_with_their_names_and_can_be_put_back():
    found = layout("reset", OBS)
    assert found.names == ("count[1]", "goal[2, 2]", "robot/speed[]", "robot/gripped[2]")
    vector = found.flatten(OBS)
    np.testing.assert_array_equal(vector, [7, 1, 2, 3, 4, 0.5, 1, 0])
    assert vector.dtype == jnp.float32 and found.size == 8 and found.shape == ()
    back = found.restore(vector)
    jax.tree.map(np.testing.assert_array_equal, back, OBS)
    assert jax.tree.map(lambda x: x.dtype, back) == jax.tree.map(lambda x: x.dtype, OBS)


@pytest.mark.parametrize(
    ("obs", "problem"),
    [
        (ZERO, r"obs: expected a vector, got shape \[\]"),
        ({}, "a dict with nothing in it"),
        ({"key": jax.random.key(0)}, r"obs\['key'\]: expected an array of numbers"),
        ({"text": "near"}, r"obs\['text'\]: expected an array of numbers, got a str"),
    ],
)
def test_what_can_be_no_vector_is_refused(obs, problem):
    with pytest.raises(ValueError, match=problem):
        layout("reset", obs)


def drifting(observe):
    """A number that actions move; a step looks at its own observation, in whatever form."""

    def reset(key):
        x = jax.random.uniform(key)
        return State(x, observe(x), ZERO, ZERO, info={"cost": ZERO})

    def step(state, action):
        x = state.pipeline_state + 0.1 * action[0]
        first = jnp.asarray(jax.tree.leaves(state.obs)[0], float).ravel()[0]
        return state.replace(
            pipeline_state=x, obs=observe(x), reward=first, info={"cost": jnp.abs(x)}
        )

    return Environment(reset, step, 1, 1, 10)


def test_dictionaries_are_flattened_and_the_environment_gets_its_own_back():
    env = as_safe_env(drifting(lambda x: {"b": jnp.stack([x, -x]), "a": 2 * x}))
    assert env.observation_size == 3 and kind(env).observation_names == ("a[]", "b[2]")
    assert kind(env).observation_shape == ()
    smpo_envs.check_env(env)
    many = smpo_envs.VectorEnv(env, 4)
    assert many.observation_names == kind(env).observation_names
    state = many.reset(jax.random.key(0))
    x = state.env.pipeline_state
    np.testing.assert_allclose(state.obs, jnp.stack([2 * x, x, -x], axis=-1), rtol=1e-6)
    _, seen = many.step(state, jnp.ones((4, 1)))
    np.testing.assert_allclose(seen.reward, 2 * x, rtol=1e-6)  # of a[], the first part
    assert kind(as_safe_env(env, episode_length=5)) == kind(env)


def test_pictures_are_flattened_and_keep_their_shape():
    env = as_safe_env(drifting(lambda x: jnp.full((4, 3, 2), 100.0 * x).astype(jnp.uint8)))
    assert env.observation_size == 24 and kind(env).observation_shape == (4, 3, 2)
    many = smpo_envs.VectorEnv(env, 2)
    assert many.reset(jax.random.key(0)).obs.shape == (2, 24)
    assert many.observation_shape == (4, 3, 2)


def test_vectors_are_left_alone():
    env = smpo_envs.make("ProbeFollow")
    assert as_safe_env(env) is env
