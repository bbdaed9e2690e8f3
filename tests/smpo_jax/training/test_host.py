"""Acting in environments outside JAX: the same rollouts, and episodes counted without bias."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lockstep import Lockstep

import smpo_envs
import smpo_jax as sx
from smpo_envs import Step
from smpo_jax.training import host, rollout

LENGTH = 24


class OutsideJax(Lockstep):
    """A native batch of environments behind the protocol of those outside JAX, in float64."""

    def __init__(self, env):
        self._env, self._step = env, jax.jit(env.step)
        self._state = None
        self.num_envs, self.episode_length = env.num_envs, env.episode_length
        self.observation_size, self.action_size = env.observation_size, env.action_size

    def reset(self, seed):
        self._state = self._env.reset(jax.random.key(seed))
        return np.asarray(self._state.obs, np.float64)

    def step(self, action):
        self._state, seen = self._step(self._state, jnp.asarray(action, float))
        seen = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), seen)
        return np.asarray(self._state.obs, np.float64), seen


class Countdown(Lockstep):
    """Environment `i` plays episodes of `lengths[i]` steps in turn; step k of one earns k, costs 1.

    The observation is [i, k], k = steps taken in the episode.
    """

    observation_size, action_size, episode_length = 2, 1, 100

    def __init__(self, lengths, terminates=False):
        self._lengths, self._terminates = lengths, terminates
        self.num_envs = len(lengths)
        self.steps, self.seed = 0, None

    def reset(self, seed):
        self.seed = seed
        self._episode = np.zeros(self.num_envs, int)
        self._k = np.zeros(self.num_envs)
        return self._obs()

    def step(self, action):
        assert action.shape == (self.num_envs, 1)
        self.steps += 1
        self._k += 1
        reward: np.ndarray = self._k.copy()
        next_obs = self._obs()
        limits = [own[e % len(own)] for own, e in zip(self._lengths, self._episode, strict=True)]
        over = (self._k == limits) * 1.0
        self._episode += over > 0
        self._k[over > 0] = 0
        ended, cut = (over, 0 * over) if self._terminates else (0 * over, over)
        return self._obs(), Step(reward, np.ones_like(reward), ended, cut, next_obs)

    def _obs(self):
        return np.stack([np.arange(self.num_envs), self._k], axis=1)


def zero(obs, key):
    return jnp.zeros((obs.shape[0], 1))


@pytest.fixture(scope="module")
def problem():
    """An environment with both kinds of ends, and a method for it."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeExits", episode_length=10), 4, stagger=False)
    spec = sx.make_spec(env, rollout_length=LENGTH, total_iterations=5)
    return env, sx.make("ppo", spec, minibatches=2), spec


def test_collect_gives_the_rollout_of_the_compiled_collector(problem):
    env, algorithm, _ = problem
    learner = algorithm.init(jax.random.key(0))
    state = env.reset(jax.random.key(1))
    state, expected = jax.jit(
        lambda learner, state, key: rollout.collect(
            algorithm.policy(learner), env, state, key, LENGTH
        )
    )(learner, state, jax.random.key(2))

    outside = OutsideJax(env)
    collect = host.make_collector(algorithm, outside, LENGTH)
    obs, transition, lost = collect(learner, outside.reset(1), jax.random.key(2))
    assert lost.sum() == 0

    assert transition.terminated.sum() > 0
    assert transition.truncated.sum() > 0
    chex.assert_trees_all_equal_shapes_and_dtypes(transition, expected)
    chex.assert_trees_all_close(transition, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(obs, state.obs, rtol=1e-5)


def test_collect_goes_on_where_the_last_rollout_ended(problem):
    env, algorithm, _ = problem
    learner = algorithm.init(jax.random.key(0))
    outside = OutsideJax(env)
    collect = host.make_collector(algorithm, outside, 3)
    obs, first, _ = collect(learner, outside.reset(1), jax.random.key(2))
    _, second, _ = collect(learner, obs, jax.random.key(3))
    going_on = np.maximum(first.terminated[-1], first.truncated[-1]) == 0
    assert going_on.any()
    np.testing.assert_array_equal(second.obs[0][going_on], first.next_obs[-1][going_on])


def test_compiled_update_takes_rollouts_of_both_collectors(problem):
    env, algorithm, spec = problem

    @jax.jit
    @chex.assert_max_traces(n=1)
    def learn(learner, tracker, transition, key):
        _, seen = sx.track(spec, tracker, transition)
        return algorithm.update(learner, seen, key)

    learner = algorithm.init(jax.random.key(0))
    _, native = jax.jit(
        lambda state, key: rollout.collect(algorithm.policy(learner), env, state, key, LENGTH)
    )(env.reset(jax.random.key(1)), jax.random.key(2))
    outside = OutsideJax(env)
    _, real, _ = host.make_collector(algorithm, outside, LENGTH)(
        learner, outside.reset(1), jax.random.key(2)
    )
    results = [
        learn(learner, sx.start_tracking(spec), transition, jax.random.key(3))
        for transition in (native, real)
    ]
    # Adam's first steps are about the sign of the gradient: round-off may show as 1e-4.
    chex.assert_trees_all_close(*results, rtol=1e-3, atol=1e-4)


class Loses(Countdown):
    """Whose first environment loses the episode it is in at the third step of all."""

    def reset(self, seed):
        self._all = 0
        return super().reset(seed)

    def send(self, half, action):
        super().send(half, action)
        self._all += 1
        if self._all == 3:
            self._k[0] = 0
            lost = np.array([1.0, 0.0])
            _, step = self._reply
            cut = np.maximum(step.truncated, lost)
            self._reply = np.asarray(self._obs()), step._replace(truncated=cut, lost=lost)


def test_an_episode_that_is_lost_is_cut_and_counts_nowhere():
    env = Loses([[4], [4]])
    spec = sx.make_spec(env, rollout_length=8, total_iterations=1)
    algorithm = sx.make("ppo", spec, minibatches=2, hidden=(4,))
    learner = algorithm.init(jax.random.key(0))
    _, transition, lost = host.make_collector(algorithm, env, 8)(
        learner, env.reset(0), jax.random.key(1)
    )
    np.testing.assert_array_equal(lost[:, 0], [0, 0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(transition.truncated[:, 0], [0, 0, 1, 0, 0, 0, 1, 0])
    _, seen = sx.track(spec, sx.start_tracking(spec), transition, lost)
    # One whole episode of the first environment, two of the second, of 4 steps each.
    assert seen.episodes.count == 3 and seen.episodes.cost == 4 and seen.episodes.length == 4
    played = host.evaluate_host(zero, Loses([[4], [4]]), jax.random.key(0), 2)
    np.testing.assert_array_equal(played.length, [4, 4])


def test_evaluate_counts_the_same_number_of_episodes_of_every_environment():
    # First come, first served would take four episodes of the quick environment, return 1 each.
    env, shown = Countdown([[1], [4]]), []
    played = host.evaluate_host(zero, env, jax.random.key(0), 4, shown.append)
    # 1 + 2 + 3 + 4 = 10
    np.testing.assert_array_equal(np.sort(played.return_), [1, 1, 10, 10])
    np.testing.assert_array_equal(np.sort(played.cost), [1, 1, 4, 4])
    np.testing.assert_array_equal(np.sort(played.length), [1, 1, 4, 4])
    assert env.steps == 8
    assert shown == [1, 2, 2, 3, 3, 3, 3, 4]


def test_evaluate_counts_one_less_where_episodes_do_not_divide():
    # Shares of three episodes: two of the first environment, one of the second.
    env = Countdown([[2, 3, 1], [5]], terminates=True)
    played = host.evaluate_host(zero, env, jax.random.key(0), 3)
    np.testing.assert_array_equal(played.length, [2, 3, 5])
    np.testing.assert_array_equal(played.return_, [3, 6, 15])


def test_evaluate_needs_fewer_episodes_than_environments():
    played = host.evaluate_host(zero, Countdown([[2], [3], [100]]), jax.random.key(0), 2)
    np.testing.assert_array_equal(played.length, [2, 3])


def test_evaluate_acts_on_the_observation_after_the_reset():
    seen = []

    class Spy(Countdown):
        def step(self, action):
            seen.append(action[0, 0])
            return super().step(action)

    def act(obs, key):
        return obs[:, 1:]

    host.evaluate_host(act, Spy([[3]]), jax.random.key(0), 2)
    assert seen == [0, 1, 2, 0, 1, 2]


def test_evaluate_uses_a_fresh_key_at_every_step_and_the_same_ones_again():
    drawn = []

    class Spy(Countdown):
        def step(self, action):
            drawn.append(float(action[0, 0]))
            return super().step(action)

    def act(obs, key):
        return jax.random.normal(key, (1, 1))

    for seed in (0, 0, 1):
        host.evaluate_host(act, Spy([[3]]), jax.random.key(seed), 1)
    assert drawn[:3] == drawn[3:6]
    assert len({*drawn[:3], *drawn[6:]}) == 6


def test_evaluate_seeds_the_environments_by_the_key():
    seeds = []
    for seed in (0, 0, 1):
        env = Countdown([[1]])
        host.evaluate_host(zero, env, jax.random.key(seed), 1)
        seeds.append(env.seed)
    assert seeds[0] == seeds[1] != seeds[2]
