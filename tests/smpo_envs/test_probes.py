"""The probe problems do what their closed forms say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
from smpo_envs import probes


def play(name, act, num_envs=2000, seed=0):
    """Mean return and cost of the first episode under a policy `(obs [N, 1], t) -> [N, 1]`."""
    env = smpo_envs.make(name)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(seed), num_envs))
    alive, total, cost = np.ones(num_envs), np.zeros(num_envs), np.zeros(num_envs)
    step = jax.jit(jax.vmap(env.step))
    for t in range(env.episode_length):
        state = step(state, act(state.obs, t))
        total += alive * np.asarray(state.reward)
        cost += alive * np.asarray(state.info["cost"])
        alive *= 1 - np.asarray(state.done)
    return total.mean(), cost.mean(), alive.mean()


@pytest.mark.parametrize("a", [-1.0, 0.0, 0.3, 1.0, 5.0])
def test_tradeoff_pays_what_it_charges(a):
    total, cost, _ = play("ProbeTradeoff", lambda obs, t: jnp.full_like(obs, a), num_envs=2)
    assert total == pytest.approx(10 * min(a, 1), abs=1e-5)
    assert cost == pytest.approx(10 * np.clip(a, 0, 1), abs=1e-5)
    assert total <= probes.tradeoff_optimum(cost) + 1e-5


@pytest.mark.parametrize("a", [-1.0, 0.4, 1.0])
def test_diminishing_pays_less_for_every_further_unit_of_cost(a):
    # Noise of standard deviation 1 a step: 0.1 of the mean of 1000 episodes of 10.
    total, cost, _ = play("ProbeDiminishing", lambda obs, t: jnp.full_like(obs, a), num_envs=1000)
    assert cost == pytest.approx(10 * max(a, 0), abs=1e-4)
    assert total == pytest.approx(10 * (1 - (1 - a) ** 2), abs=0.4)
    assert probes.diminishing_optimum(cost) >= 10 * (1 - (1 - a) ** 2) - 1e-4


def test_follow_optimum_is_reached_by_capping_the_signal():
    # max(s, 0) capped at c costs E[min(max(s, 0), c)] = (c - c²/2) / 2 a step.
    # Means of 2000 episodes: standard errors of about 0.02.
    for cap in (0.0, 0.3, 1.0):
        act = lambda obs, t, cap=cap: jnp.minimum(obs, cap)  # noqa: E731
        total, cost, _ = play("ProbeFollow", act)
        assert cost == pytest.approx(10 * (cap - cap**2 / 2) / 2, abs=0.1)
        assert total == pytest.approx(probes.follow_optimum(cost), abs=0.1)


def test_exits_trade_a_short_way_that_costs_for_a_long_free_one():
    right = play("ProbeExits", lambda obs, t: jnp.ones_like(obs), num_envs=2)
    left = play("ProbeExits", lambda obs, t: -jnp.ones_like(obs), num_envs=2)
    assert right == (-2, 2, 0) and left == (-4, 0, 0)
    assert probes.exits_optimum(2.0) == -2 and probes.exits_optimum(0.0) == -4
    assert probes.exits_optimum(1.0) == -3
    stay = play("ProbeExits", lambda obs, t: jnp.zeros_like(obs), num_envs=2)
    assert stay == (-40, 0, 1)


def test_choices_earn_and_cost_what_the_tables_say_and_mixtures_are_best():
    played = [
        play("ProbeChoice", lambda obs, t, i=i: jnp.broadcast_to(jnp.eye(3)[i], (2, 3)), num_envs=2)
        for i in range(3)
    ]
    np.testing.assert_allclose([total for total, _, _ in played], [0.0, 6.0, 10.0], rtol=1e-5)
    np.testing.assert_allclose([cost for _, cost, _ in played], [0.0, 2.0, 10.0], rtol=1e-5)
    # 3/4 of the steps walking and 1/4 running cost 4 and earn 7; 9 are the most that 8 buy.
    assert probes.choice_optimum(4.0) == pytest.approx(7.0)
    assert probes.choice_optimum(8.0) == pytest.approx(9.0)
    assert probes.choice_optimum(1.0) == pytest.approx(3.0)
    assert probes.choice_optimum(float("inf")) == 10


def test_follow_draws_a_new_signal_at_every_step():
    env = smpo_envs.make("ProbeFollow")
    state = env.reset(jax.random.key(0))
    seen = [float(state.obs[0])]
    for _ in range(5):
        state = env.step(state, jnp.zeros(1))
        seen.append(float(state.obs[0]))
    assert len(set(seen)) == 6
