"""Trainers that no one here wrote learn in our environments, behind the interfaces they know.

Stable-Baselines3 does, too: `tests/test_readme.py` has it learn with the README's program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from follow import IDLE, LEARNT, earned

import smpo_envs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of their own


def test_doing_nothing_earns_half():
    assert earned(jnp.zeros_like) < IDLE


def test_brax_ppo_learns_behind_braxs_interface():
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    from brax.training.agents.ppo import train as ppo

    make_policy, params, metrics = ppo.train(
        environment=smpo_envs.to_brax(smpo_envs.make("ProbeFollow")),
        num_timesteps=100_000,
        episode_length=10,
        num_envs=64,
        batch_size=16,
        num_minibatches=4,
        unroll_length=10,
        num_updates_per_batch=8,
        learning_rate=1e-3,
        discounting=0.9,
        entropy_cost=1e-3,
        num_evals=2,
        num_eval_envs=64,
        seed=0,
    )
    act = jax.jit(make_policy(params, deterministic=True))
    assert earned(lambda obs: act(obs, jax.random.key(0))[0]) > LEARNT
    # Doing what is best costs E[max(s, 0)] = 1/4 a step.
    assert 1.0 < metrics["eval/episode_cost"] < 4.0


def test_rejax_ppo_learns_in_gymnaxs_style():
    rejax = pytest.importorskip("rejax", reason="needs rejax: pip install rejax")
    agent = rejax.PPO.create(
        env=smpo_envs.to_gymnax(smpo_envs.make("ProbeFollow")),
        total_timesteps=60_000,
        eval_freq=60_000,
        num_envs=64,
        num_steps=10,
        num_minibatches=4,
        num_epochs=4,
        learning_rate=3e-3,
        gamma=0.9,
        ent_coef=0.001,
    )
    state, (length, return_) = jax.jit(agent.train)(jax.random.PRNGKey(0))
    assert np.all(length == 10)
    assert return_[0].mean() < IDLE
    act = jax.vmap(agent.make_act(state), in_axes=(0, None))
    assert earned(lambda obs: jnp.reshape(act(obs, jax.random.key(0)), (-1, 1))) > LEARNT - 1
    assert return_[-1].mean() > LEARNT - 1  # of actions that it draws
