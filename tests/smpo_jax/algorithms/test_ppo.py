import jax
import numpy as np

import smpo_envs
import smpo_jax as sx


def test_ppo_solves_follow():
    """Optimum 10: the action equals a signal that is new at every step; chance earns about 4."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=100)
    algorithm = sx.make("ppo", spec, learning_rate=3e-3, epochs=10, minibatches=8)
    state, metrics = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 100))(
        jax.random.key(0)
    )
    assert metrics["episode/return"][0] < 5
    episodes = sx.make_evaluator(algorithm, env, 128)(state.learner, jax.random.key(1))
    assert np.mean(episodes.return_) > 9.7  # the mean error |a - s| is below 0.03
    # Costs are ignored: following the signal costs 1/4 a step, 2.5 an episode.
    np.testing.assert_allclose(np.mean(episodes.cost), 2.5, atol=0.4)


def test_ppo_finds_the_near_exit_and_values_what_termination_cuts_off():
    """Optimum -2: two steps to the exit at 2. V counts the steps left, so it can be checked."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeExits"), 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=60)
    algorithm = sx.make("ppo", spec, learning_rate=3e-3, epochs=10, minibatches=8)
    state, _ = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 60))(jax.random.key(0))
    episodes = sx.make_evaluator(algorithm, env, 64)(state.learner, jax.random.key(1))
    np.testing.assert_allclose(episodes.return_, -2.0)
    np.testing.assert_allclose(episodes.length, 2.0)
