"""Environments with several costs: the contract, its adapters, and what a batch of them reports."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
from smpo_envs import probes
from smpo_envs.from_gymnax import from_gymnax


def with_cost(change, **fields):
    env = probes.spending()

    def changed(state):
        return state.replace(info={"cost": change(state.info["cost"])})

    return replace(
        env,
        reset=lambda key: changed(env.reset(key)),
        step=lambda state, action: changed(env.step(state, action)),
        **fields,
    )


@pytest.mark.parametrize("a", [(-1.0, 0.4), (0.3, 1.0), (5.0, 0.0)])
def test_spending_pays_less_for_every_further_unit_of_either_cost(a):
    env, number = smpo_envs.make("ProbeSpending"), 1000
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), number))
    total, cost, step = np.zeros(number), np.zeros((number, 2)), jax.jit(jax.vmap(env.step))
    for _ in range(env.episode_length):
        state = step(state, jnp.tile(jnp.array(a), (number, 1)))
        total, cost = total + state.reward, cost + state.info["cost"]
    clipped = np.clip(a, -1.0, 1.0)
    spent = tuple(10 * np.clip(a, 0.0, 1.0))
    np.testing.assert_allclose(cost.mean(axis=0), spent, atol=1e-4)
    # Noise of standard deviation 1 a step: 0.1 of the mean of 1000 episodes of 10.
    assert total.mean() == pytest.approx(10 * np.sum(1 - (1 - clipped) ** 2), abs=0.4)
    assert probes.spending_optimum(spent) >= 10 * np.sum(1 - (1 - clipped) ** 2) - 1e-4


def test_check_env_tells_of_each_cost():
    with pytest.warns(UserWarning, match="observations never change"):
        told = smpo_envs.check_env(replace(probes.spending(), episode_length=7), steps=50)
    assert "first 0." in told and "second 0." in told and "after 7 steps" in told


def test_a_batch_reports_each_cost_by_name():
    env = smpo_envs.VectorEnv(probes.spending(), 3)
    assert env.cost_names == ("first", "second")
    _, seen = env.step(env.reset(jax.random.key(0)), jnp.tile(jnp.array([0.5, -1.0]), (3, 1)))
    np.testing.assert_allclose(seen.cost["first"], [0.5] * 3)
    np.testing.assert_allclose(seen.cost["second"], [0.0] * 3)
    assert smpo_envs.VectorEnv(probes.follow(), 3).cost_names == ("cost",)
    assert smpo_envs.VectorEnv(with_cost(lambda c: c, cost_names=()), 3).cost_names == (
        "cost_1",
        "cost_2",
    )


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (with_cost(lambda c: c, cost_names=("a",)), r"\('a',\) are 1, but there are 2 costs"),
        (with_cost(lambda c: c, cost_names=("a", "a")), "must differ"),
        (with_cost(lambda c: c, cost_names=("a b", "c")), "each of letters, digits"),
        (with_cost(jnp.sum), "info.'cost'. is a scalar, one cost"),
        (with_cost(lambda c: c[:1]), "or a float vector of two or more costs, got float32.1."),
        (with_cost(lambda c: c[None]), "or a float vector of two or more costs"),
    ],
)
def test_what_is_no_vector_of_named_costs_is_refused_in_one_line(env, words):
    with pytest.raises(ValueError, match=words):
        smpo_envs.VectorEnv(env, 2)


def test_a_negative_cost_of_several_is_found():
    with pytest.raises(ValueError, match="costs must be 0 or more"):
        smpo_envs.check_env(with_cost(lambda c: c - jnp.array([0.0, 0.3])), steps=20)


class Box(NamedTuple):
    low: float = -2.0
    high: float = 2.0
    shape: tuple[int, ...] = (1,)


class Params(NamedTuple):
    max_steps_in_episode: int = 6


class Cart:
    """In gymnax's style."""

    default_params = Params()

    def action_space(self, params):
        return Box()

    def reset_env(self, key, params):
        return jnp.zeros(1), jnp.zeros(())

    def step_env(self, key, state, action, params):
        x = state + action[0]
        info = {"left": jnp.maximum(-x, 0.0), "right": jnp.maximum(x, 0.0)}
        return x[None], x, x, False, info


def test_gymnax_costs_are_named_by_where_they_are():
    batch = smpo_envs.VectorEnv(from_gymnax(Cart(), cost="info.left,info.right"), 1)
    state = batch.reset(jax.random.key(0))
    for sign, left, right in ((1.0, 0.0, 2.0), (-1.0, 0.0, 0.0), (-1.0, 2.0, 0.0)):
        state, seen = batch.step(state, jnp.array([[sign]]))
        np.testing.assert_allclose([seen.cost["left"][0], seen.cost["right"][0]], [left, right])
