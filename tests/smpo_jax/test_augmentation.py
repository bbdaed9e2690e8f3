"""Accounts of cost: what they show, when they end episodes, natively and outside JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lockstep import Lockstep, step

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms import early_terminated, registry, saute, simmer, smpo, unconstrained
from smpo_jax.augmentation import NONE, augment
from smpo_jax.training import host
from smpo_jax.types import EpisodeStats

PPO = unconstrained.PPO()
BUDGET = saute.Budget(budget_discount=0.5, unsafe_reward=-0.2)


def always(value):
    return lambda obs, key: jnp.full((obs.shape[0], 1), value)


def test_account_of_saute_by_hand():
    """γ_s = 1/2: what was spent and what it is measured against both double at every step."""
    kept = saute.augmentation(BUDGET, 1.0)
    z = jnp.asarray(kept.start)
    z = kept.step(z, jnp.asarray(1.0))
    np.testing.assert_allclose(z, [2.0, 2.0])
    z = kept.step(z, jnp.asarray(0.0))
    np.testing.assert_allclose(z, [4.0, 4.0])
    z = kept.step(z, jnp.asarray(3.0))
    np.testing.assert_allclose(z, [14.0, 8.0])


def test_what_is_left_follows_the_recursion_of_the_paper():
    """z' = (z - c / B) / γ_s from z = s, for any share s."""
    kept, costs, share, budget = saute.augmentation(BUDGET, 1.0), [1.0, 0.0, 0.5], 0.75, 8.0
    account, z = jnp.asarray(kept.start), share
    for cost in costs:
        account, z = kept.step(account, jnp.asarray(cost)), (z - cost / budget) / 0.5
        obs = saute.see(jnp.concatenate([jnp.array([7.0]), kept.observe(account)]), share, budget)
        np.testing.assert_allclose(obs, [7.0, z], rtol=1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_spending_the_limit_evenly_leaves_nothing_at_the_end(discount):
    settings = saute.Budget(budget_discount=discount)
    kept, limit, steps = saute.augmentation(settings, 6.0), 6.0, 20
    z = jnp.asarray(kept.start)
    for _ in range(steps):
        z = kept.step(z, jnp.asarray(limit / steps))
    budget = saute.whole_budget(limit, discount, steps)
    np.testing.assert_allclose(saute.see(z, 1.0, budget)[-1], 0.0, atol=2e-5)


def test_reward_is_replaced_where_the_step_ends_without_budget():
    next_obs = jnp.array([[[5.0, 0.1]], [[5.0, 0.0]], [[5.0, -2.0]]])
    reward = saute.reshape(jnp.array([[1.0], [2.0], [3.0]]), next_obs, unsafe_reward=-0.2)
    np.testing.assert_allclose(reward[:, 0], [1.0, -0.2, -0.2])


def test_environment_shows_the_account_and_keeps_reward_and_cost():
    """`tradeoff` at full speed earns and costs 1 a step."""
    env = augment(smpo_envs.make("ProbeTradeoff"), saute.augmentation(BUDGET, 1.0))
    assert env.observation_size == 3
    state = env.reset(jax.random.key(0))
    np.testing.assert_allclose(state.obs, [1.0, 0.0, 1.0])
    for expected in ([1.0, 2.0, 2.0], [1.0, 6.0, 4.0]):
        state = env.step(state, jnp.ones(1))
        np.testing.assert_allclose(state.obs, expected)
        assert (state.reward, state.info["cost"], state.done) == (1.0, 1.0, 0.0)


def test_a_new_episode_starts_a_new_account():
    single = augment(smpo_envs.make("ProbeTradeoff"), saute.augmentation(BUDGET, 1.0))
    env = smpo_envs.VectorEnv(single, 2, stagger=False)
    state = env.reset(jax.random.key(0))
    state, seen = env.step(state, jnp.ones((2, 1)))
    for _ in range(1, single.episode_length):
        state, seen = env.step(state, jnp.ones((2, 1)))
    np.testing.assert_allclose(seen.next_obs[0, -1], 2.0**10)  # the true successor
    np.testing.assert_allclose(state.obs, [[1.0, 0.0, 1.0]] * 2)


def test_an_environment_without_account_is_left_alone():
    env = smpo_envs.make("ProbeTradeoff")
    assert augment(env, NONE) is env
    assert registry.augmentation("ppo", PPO, 25.0) is NONE


@pytest.mark.parametrize("speed, steps", [(1.0, 3), (0.5, 6), (0.25, 10), (-1.0, 10)])
def test_episodes_end_when_their_cost_reaches_the_limit(speed, steps):
    """At a cost of 1 a step, the limit 3 is reached in 3 steps; never, in 10, at 1/4 a step."""
    single = augment(smpo_envs.make("ProbeTradeoff"), early_terminated.augmentation(PPO, 3.0))
    env = smpo_envs.VectorEnv(single, 2, stagger=False)
    episodes = sx.evaluate(always(speed), env, jax.random.key(0), 6)
    np.testing.assert_allclose(episodes.length, steps)
    np.testing.assert_allclose(episodes.cost, max(speed, 0.0) * steps)
    np.testing.assert_allclose(episodes.return_, speed * steps)


def test_a_limit_of_zero_is_not_reached_by_costing_nothing():
    kept = early_terminated.augmentation(PPO, 0.0)
    z = kept.step(jnp.asarray(kept.start), jnp.asarray(0.0))
    assert not kept.is_over(z)
    assert kept.is_over(kept.step(z, jnp.asarray(0.1)))


class Tradeoff(Lockstep):
    """`tradeoff` outside JAX, with the number of the episode for its observation."""

    observation_size, action_size, episode_length, num_envs = 1, 1, 10, 2

    def reset(self, seed):
        self._steps, self._episode = np.zeros(2, int), np.zeros(2)
        return self._episode[:, None].copy()

    def step(self, action):
        next_obs, a = self._episode[:, None].copy(), np.asarray(action)[:, 0].astype(float)
        self._steps += 1
        cut = (self._steps >= self.episode_length) * 1.0
        obs = self.again(cut > 0)
        return obs, smpo_envs.Step(a, np.maximum(a, 0), 0 * a, cut, next_obs)

    def again(self, over):
        self._episode += over
        self._steps[over] = 0
        return self._episode[:, None].copy()


def test_outside_jax_the_account_ends_episodes_and_starts_anew():
    env = host.augment_host(Tradeoff(), early_terminated.augmentation(PPO, 3.0))
    env.reset(0)
    speeds = np.array([[1.0], [0.25]])
    shown, seen = zip(*(step(env, speeds) for _ in range(10)), strict=True)
    np.testing.assert_array_equal(
        [each.terminated[0] for each in seen], [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    )
    np.testing.assert_array_equal([obs[0, 0] for obs in shown][:4], [0, 0, 1, 1])
    np.testing.assert_array_equal([each.next_obs[0, 0] for each in seen][:4], [0, 0, 0, 1])
    assert all(each.terminated[1] == 0 for each in seen) and seen[-1].truncated[1] == 1
    episodes = host.evaluate_host(always(1.0), env, jax.random.key(0), 4)
    np.testing.assert_allclose(episodes.cost, 3.0)
    np.testing.assert_allclose(episodes.length, 3.0)


def test_outside_jax_the_account_is_shown_as_natively():
    kept = saute.augmentation(BUDGET, 1.0)
    env = host.augment_host(Tradeoff(), kept)
    native = augment(smpo_envs.make("ProbeTradeoff"), kept)
    state = native.reset(jax.random.key(0))
    np.testing.assert_allclose(env.reset(0)[0, 1:], state.obs[1:])
    for speed in (1.0, -1.0, 0.5):
        state = native.step(state, jnp.full(1, speed))
        _, seen = step(env, np.full((2, 1), speed))
        np.testing.assert_allclose(seen.next_obs[0, 1:], state.obs[1:])
    assert host.augment_host(Tradeoff(), NONE).observation_size == 1


def test_outside_jax_each_episode_of_training_is_under_a_limit_of_its_own():
    kept = registry.augmentation("smpo-limits", smpo.SMPOLimits(), 25.0)
    env = host.augment_host(Tradeoff(), kept)
    limits = np.log1p([10.0, 25.0, 50.0])
    shown = [env.reset(3)]
    for _ in range(400):
        obs, seen = step(env, np.zeros((2, 1)))
        np.testing.assert_array_equal(seen.next_obs[:, 1], shown[-1][:, 1])  # until its end
        shown.append(obs)
    seen = np.stack(shown)
    # Both columns are of the same 41 episodes of 10 steps, each drawn by itself.
    starts = seen[::10, :, 1]
    assert {*np.round(starts.ravel(), 4)} == {*np.round(limits, 4)}
    assert np.mean(starts[:, 0] == starts[:, 1]) < 0.7
    np.testing.assert_array_equal(np.repeat(starts[:-1], 10, axis=0), seen[:-1, :, 1])
    told = host.augment_host(Tradeoff(), kept.apart_from_training())
    np.testing.assert_allclose(told.reset(3)[:, 1], np.log1p(25.0))


def finished(cost):
    one = jnp.asarray(1.0)
    return EpisodeStats(one, jnp.asarray(cost), one, one, count=jnp.asarray(100.0))


def controlled(**overrides):
    settings: dict[str, Any] = {
        "slack_smoothing": 0.0,
        "proportional_gain": 0.1,
        "integral_gain": 0.0,
    }
    return simmer.controller(simmer.PPOSimmer(**{**settings, **overrides}), 20.0)


def shares(controller, costs):
    state, seen = controller.init(), []
    for cost in costs:
        state = controller.update(state, finished(cost))
        seen.append(float(state.share))
    return seen


def test_simmer_moves_the_budget_with_the_slack():
    """Limit 20. Cost 25: 0.1 (20 - 25) = -0.5, to 19.5; cost 14.5: + 0.5, to 20, where it stays."""
    np.testing.assert_allclose(
        shares(controlled(budget_step=2.0), [25.0, 14.5, 15.0]), [0.975, 1.0, 1.0], rtol=1e-6
    )
    # a step is bounded, and so is the budget
    np.testing.assert_allclose(shares(controlled(), [120.0, 120.0]), [0.95, 0.9], rtol=1e-6)
    assert shares(controlled(budget_step=50.0), [1000.0]) == [0.0]


def test_simmer_sums_the_slack_over_its_window():
    """ki = 0.01, a window of 2; every slack is -10."""
    settings = {"proportional_gain": 0.0, "integral_gain": 0.01, "integral_window": 2}
    budgets = 20 * np.array(shares(controlled(**settings), [30.0, 29.9, 29.7]))
    # 20 - 0.1, then 19.9 - 0.2, then 19.7 - 0.2 and not 0.3
    np.testing.assert_allclose(budgets, [19.9, 19.7, 19.5], rtol=1e-5)


def test_simmer_waits_for_the_first_episode():
    nothing = EpisodeStats(*[jnp.asarray(jnp.nan)] * 4, count=jnp.asarray(0.0))
    controller = controlled(budget_start=0.5)
    assert controller.update(controller.init(), nothing).share == 0.5


def test_saute_learner_sees_one_number_for_the_account():
    env = augment(smpo_envs.make("ProbeTradeoff"), saute.augmentation(BUDGET, 4.0))
    spec = sx.make_spec(smpo_envs.VectorEnv(env, 4), rollout_length=4, total_iterations=1)
    settings = saute.PPOSaute(hidden=(3,), minibatches=2)
    learner = jax.eval_shape(saute.make(spec, settings).init, jax.random.key(0))
    kernel = learner.params["value"]["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (2, 3)  # of tradeoff's one and z
