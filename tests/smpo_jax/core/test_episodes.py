import jax.numpy as jnp
import numpy as np
import oracles

from smpo_jax.core import episodes
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.types import EpisodeStats, Transition


def transition(reward, cost, terminated, truncated):
    reward, cost, terminated, truncated = (
        jnp.asarray(x, jnp.float32) for x in (reward, cost, terminated, truncated)
    )
    blank = jnp.zeros((*reward.shape, 1))
    dist = DiagonalGaussian(blank, blank)
    return Transition(
        blank, blank, reward, dist, reward, cost, terminated, truncated, next_obs=blank
    )


def annotate(tracker, t, *, cost_limit=2.0):
    return episodes.annotate(tracker, t, cost_limit=cost_limit)


def test_an_episode_across_two_rollouts_is_counted_once_and_whole():
    ones = np.ones((2, 1))
    first = transition(ones, 2 * ones, 0 * ones, 0 * ones)
    second = transition(ones, ones, 0 * ones, [[1.0], [0.0]])
    tracker, rollout = annotate(episodes.start(1), first)
    assert rollout.episodes.count == 0
    assert all(np.isnan(x) for x in rollout.episodes[:4])
    np.testing.assert_array_equal(rollout.cost_so_far[:, 0], [0, 2])

    tracker, rollout = annotate(tracker, second)
    # return 1+1+1, cost 2+2+1, over the limit of 2; the last step belongs to the next episode
    assert tuple(map(float, rollout.episodes)) == (3.0, 5.0, 3.0, 1.0, 1.0)
    np.testing.assert_array_equal(rollout.cost_so_far[:, 0], [4, 0])
    np.testing.assert_array_equal(rollout.elapsed[:, 0], [2, 0])
    assert tuple(float(x[0]) for x in tracker) == (1.0, 1.0, 1.0, 0.0)


def test_a_staggered_first_episode_is_not_counted_but_an_early_termination_is():
    ones = np.ones((2, 2))
    cut = transition(ones, ones, [[0, 0], [0, 1]], [[0, 0], [1, 0]])  # both end after two steps
    tracker, rollout = annotate(episodes.start(2, age=jnp.array([8, 8])), cut)
    assert rollout.episodes.count == 1
    assert rollout.episodes.length == 2
    np.testing.assert_array_equal(tracker.length, [0, 0])
    _, rollout = annotate(tracker, cut)  # the next ones were watched from their start
    assert rollout.episodes.count == 2


def test_an_episode_that_is_cut_early_counts_as_any_other():
    """By an environment that truncates by itself, or a time limit shorter than the stated one."""
    ones = np.ones((2, 1))
    cut = transition(ones, 3 * ones, 0 * ones, [[0.0], [1.0]])
    _, rollout = annotate(episodes.start(1), cut)
    assert (rollout.episodes.count, rollout.episodes.cost, rollout.episodes.length) == (1, 6, 2)


def test_over_limit_is_the_share_of_episodes_above_it():
    cost = [[1.0, 2.0, 3.0, 9.0]]
    t = transition(np.zeros((1, 4)), cost, np.ones((1, 4)), np.zeros((1, 4)))
    _, rollout = annotate(episodes.start(4), t, cost_limit=2.0)
    assert rollout.episodes.over_limit == 0.5  # 3 and 9; 2 is within
    assert rollout.episodes.cost == 3.75


def test_annotate_matches_the_loop():
    rng = np.random.default_rng(0)
    shape = (40, 6)
    reward, cost = rng.integers(-3, 4, shape), rng.integers(0, 3, shape)  # exact in float32
    terminated = (rng.random(shape) < 0.05).astype(float)
    truncated = (rng.random(shape) < 0.1) * (1 - terminated)
    partial = jnp.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    one, two, three = (jnp.arange(6.0) * k for k in (1, 2, 3))
    tracker = episodes.Tracker(one, two, three, partial)

    after, rollout = annotate(tracker, transition(reward, cost, terminated, truncated))
    so_far, elapsed, finished, expected_after = oracles.episodes(
        tracker, reward, cost, terminated, truncated
    )
    np.testing.assert_array_equal(rollout.cost_so_far, so_far)
    np.testing.assert_array_equal(rollout.elapsed, elapsed)
    np.testing.assert_array_equal(np.stack(after), expected_after)
    assert 0 < len(finished) < np.sum(terminated + truncated)  # some were pieces
    assert rollout.episodes.count == len(finished)
    stats = (rollout.episodes.return_, rollout.episodes.cost, rollout.episodes.length)
    np.testing.assert_allclose(stats, np.mean(finished, axis=0), rtol=1e-6)


def finished(cost, count):
    cost = jnp.asarray(cost if count else jnp.nan)
    return EpisodeStats(cost, cost, cost, cost, jnp.asarray(float(count)))


def test_window_is_the_plain_mean_until_it_is_full_and_then_forgets():
    window = episodes.empty_window()
    window = episodes.remember(window, finished(10.0, count=2), size=4.0)
    assert (window.cost, window.count) == (10, 2)
    window = episodes.remember(window, finished(40.0, count=1), size=4.0)
    assert (window.cost, window.count) == (20, 3)  # (10 + 10 + 40) / 3
    window = episodes.remember(window, finished(60.0, count=2), size=4.0)
    assert (window.cost, window.count) == (40, 4)  # 20 + 2/4 (60 - 20)
    window = episodes.remember(window, finished(7.0, count=9), size=4.0)
    assert (window.cost, window.count) == (7, 4)  # more than a window's worth: all new


def test_window_is_unchanged_and_finite_where_no_episode_finished():
    window = episodes.remember(episodes.empty_window(), finished(0.0, count=0), size=4.0)
    assert (window.cost, window.count) == (0, 0)
    window = episodes.remember(episodes.empty_window(), finished(5.0, count=1), size=4.0)
    assert episodes.remember(window, finished(0.0, count=0), size=4.0) == window
