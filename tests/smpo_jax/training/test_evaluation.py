from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_envs
from smpo_jax.training import evaluation, loop

pytestmark = pytest.mark.usefixtures("quick_compilation")


def follow(obs, key):
    del key
    return obs


def test_whole_episodes_are_played_and_summed():
    env, _ = toy.problem(num_envs=4, stagger=False)
    episodes = evaluation.evaluate(follow, env, jax.random.key(0), 10)
    assert all(x.shape == (10,) for x in episodes)
    np.testing.assert_allclose(episodes.return_, 10.0, rtol=1e-6)
    np.testing.assert_array_equal(episodes.length, 10)
    assert len(np.unique(episodes.cost)) == 10  # each its own episode


def test_pieces_of_staggered_episodes_are_not_counted():
    env, _ = toy.problem(num_envs=5, stagger=True)
    episodes = evaluation.evaluate(follow, env, jax.random.key(0), 5)
    np.testing.assert_array_equal(episodes.length, 10)


def test_short_episodes_are_not_favoured():
    """`exits` at random: an environment that is done early does not play more of the sample."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeExits"), 64, stagger=False)

    def drift(obs, key):
        return jnp.sign(jax.random.uniform(key, obs.shape) - 0.5)

    run = jax.jit(lambda key, count: evaluation.evaluate(drift, env, key, count), static_argnums=1)
    episodes = run(jax.random.key(0), 512)
    # A walk of unit steps from 0 leaves (-4, 2) after 4 * 2 = 8 steps on average (cut at 40: 7.97);
    # its deviation is about 8, the standard error of 512 episodes 0.35.
    np.testing.assert_allclose(np.mean(episodes.length), 8.0, atol=4 * 0.35)
    np.testing.assert_array_equal(episodes.return_, -episodes.length)


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("task", ["ProbeExits", "ProbeFollow"])
def test_in_pieces_the_same_episodes_are_played(task, rows):
    """Of both kinds: episodes of one length, and such that environments finish at other times."""
    env = smpo_envs.VectorEnv(smpo_envs.make(task), 16, stagger=False)

    def act(obs, key):
        return jnp.sign(jax.random.uniform(key, (16, env.action_size)) - 0.5)

    key = jax.random.key(3)
    whole = jax.jit(lambda: evaluation.evaluate(act, env, jax.random.clone(key), 100))()
    go_on = jax.jit(lambda playing: evaluation.play_on(act, env, playing))
    shown = []
    first = evaluation.begin(env, key, rows=rows)
    pieces = evaluation.collect_pieces(first, go_on, 100, shown.append)
    for ours, theirs in zip(pieces, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert shown and shown == sorted(shown) and shown[-1] <= 100


def test_deterministic_acting_is_the_mean_and_noisy_acting_is_not():
    env, spec = toy.problem()
    algorithm = toy.small("ppo", spec)
    learner = loop.init(algorithm, env, jax.random.key(0)).learner
    obs = jnp.linspace(-1.0, 1.0, 4)[:, None]
    act = evaluation.make_act(algorithm, learner, deterministic=True)
    np.testing.assert_array_equal(act(obs, jax.random.key(1)), act(obs, jax.random.key(2)))
    act = evaluation.make_act(algorithm, learner, deterministic=False)
    assert np.all(act(obs, jax.random.key(1)) != act(obs, jax.random.key(2)))


def test_an_evaluator_is_compiled_once_for_all_learners():
    env, spec = toy.problem()
    algorithm = toy.small("ppo", spec)
    run: Any = evaluation.make_evaluator(algorithm, env, 6, deterministic=False)
    learners = [loop.init(algorithm, env, jax.random.key(seed)).learner for seed in (0, 1)]
    results = [run(learner, jax.random.key(5)) for learner in learners]
    assert np.any(results[0].return_ != results[1].return_)
    assert run._cache_size() == 1
