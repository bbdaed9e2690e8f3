from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

import smpo_envs
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.training.calibration import calibrate
from smpo_jax.types import Algorithm, CostCritic

UNUSED: Any = ()


def test_what_followed_is_the_discounted_sum_to_the_end_of_the_episode():
    def policy(learner):
        def act(obs, key):
            action = jnp.full((*obs.shape[:-1], 1), 0.5)
            return action, jnp.zeros(obs.shape[:-1]), DiagonalGaussian(action, action)

        return act

    critic = CostCritic(0.5, lambda learner, obs, action: 2.0 * action[..., 0])
    method = Algorithm(init=UNUSED, policy=policy, update=UNUSED, cost_critic=critic)
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeTradeoff"), num_envs=4, stagger=False)
    found = calibrate(method, critic, UNUSED, env, jax.random.key(0))
    # Episodes of 10 steps that each cost 0.5: at t, 0.5 (1 + 0.5 + ...) = 1 - 0.5^(10 - t).
    # The first 5 steps are told; equal predictions stay in the order of time, 4 samples a step.
    expected = np.repeat(1 - 0.5 ** (10.0 - np.arange(5)), 2)
    assert_allclose(found.realised, expected, rtol=1e-6)
    assert_allclose(found.predicted, 1.0)
    assert_allclose(found.count, 2.0)
