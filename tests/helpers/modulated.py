"""Small rollouts and critics by hand, for tests of SMPO's parts."""

import jax.numpy as jnp

import smpo_jax as sx
from smpo_jax.algorithms.smpo import critic as safety_critic
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.types import EpisodeStats, Rollout, Transition


def rollout(reward, cost, *, cost_so_far=None, elapsed=None):
    """One environment; what is not said is 0. Two episodes of cost 40 have finished."""
    reward, cost = (jnp.asarray(x, jnp.float32)[:, None] for x in (reward, cost))
    none, blank = jnp.zeros_like(reward), jnp.zeros((*reward.shape, 1))
    t = Transition(
        blank, blank, none, DiagonalGaussian(blank, blank), reward, cost, none, none, blank
    )
    stats = EpisodeStats(*(jnp.asarray(x) for x in (0.0, 40.0, 10.0, 1.0, 2.0)))
    before = none if cost_so_far is None else jnp.asarray(cost_so_far)[:, None]
    ages = none if elapsed is None else jnp.asarray(elapsed)[:, None]
    return Rollout(t, before, ages, stats)


def spec_of(limit=25.0, steps=4, envs=1):
    """One observation, one action, episodes of 10 steps."""
    return sx.Spec(1, 1, envs, steps, episode_length=10, total_iterations=10, cost_limit=limit)


def learning(discount, trace, regularisation, **others):
    """How a safety critic learns; one round, one pass, one minibatch."""
    plain = safety_critic.Learning(
        discount,
        trace,
        regularisation,
        samples=0,
        rounds=1,
        epochs=1,
        minibatches=1,
        learning_rate=0.02,
    )
    return plain._replace(**others)


def quadratic(obs, action):
    """Q(s, a) = a²."""
    del obs
    return action[..., 0] ** 2
