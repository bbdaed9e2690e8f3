import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modulated import rollout, spec_of

from smpo_jax.algorithms.smpo import SMPOPaper, threshold
from smpo_jax.core import episodes
from smpo_jax.types import EpisodeStats


@pytest.mark.parametrize("epoch, expected", [(0, 50.0), (25, 37.5), (50, 25.0), (400, 25.0)])
def test_schedule_falls_from_twice_the_limit_to_the_limit(epoch, expected):
    assert threshold.Fall(2.0, 50.0).at(25.0, epoch) == expected


def test_schedule_of_no_length_is_the_limit_at_once():
    assert threshold.Fall(2.0, 0.0).at(25.0, 0) == 25


@pytest.mark.parametrize("measured, expected", [(20.0, 5.0), (31.0, -6.0), (200.0, -12.5)])
def test_slack_is_what_is_left_of_the_target_within_its_bound(measured, expected):
    assert threshold.slack(25.0, measured, bound=12.5) == expected


def tighten(s, *, iteration, cost=40.0, offset=0.0, limit=25.0):
    """One iteration of 4 steps is 0.2 epochs of 20 steps."""
    state = threshold.State(episodes.empty_window(), jnp.asarray(offset))
    finished = rollout([0.0] * 4, [0.0] * 4).episodes._replace(cost=jnp.asarray(cost))
    spec = spec_of(limit)
    epoch = s.epoch(spec, jnp.asarray(iteration))
    state, d = s.threshold(spec).update(state, finished, epoch)
    return float(state.threshold_offset), float(d)


def test_threshold_follows_the_schedule_and_the_measured_cost():
    s = SMPOPaper(epoch_steps=20.0, warmup_epochs=1.0, threshold_epochs=2.0, threshold_feedback=1.0)
    assert tighten(s, iteration=0) == (0.0, 50.0)
    assert tighten(s, iteration=4) == (0.0, 40.0)
    offset, d = tighten(s, iteration=5)  # d' = 37.5 + 0.2 * (25 - 40)
    np.testing.assert_allclose([offset, d], [-3.0, 34.5], rtol=1e-6)
    offset, d = tighten(s, iteration=10)  # 25 + the same
    np.testing.assert_allclose([offset, d], [-3.0, 22.0], rtol=1e-6)
    offset, d = tighten(s, iteration=11, offset=offset, cost=15.0)  # + 0.2 * 10
    np.testing.assert_allclose([offset, d], [-1.0, 24.0], rtol=1e-6)


def test_feedback_does_not_wind_up_at_its_bounds():
    s = SMPOPaper(
        epoch_steps=20.0, warmup_epochs=0.0, threshold_epochs=0.0, threshold_feedback=100.0
    )
    assert tighten(s, iteration=0, cost=9999.0) == (-24.0, 1.0)  # threshold_minimum
    assert tighten(s, iteration=0, cost=0.0) == (75.0, 100.0)  # 4 times the limit


def test_the_measured_cost_is_steered_to_a_target_that_falls():
    """η = 2 over 2 epochs: targets 50, 37.5 (epoch 1), 25; d' itself has no schedule here."""
    s = SMPOPaper(
        epoch_steps=20.0,
        warmup_epochs=0.0,
        threshold_factor=3.0,
        threshold_epochs=1e9,
        threshold_feedback=1.0,
        target_factor=2.0,
        target_epochs=2.0,
    )
    # 0.2 epochs an iteration; slack 50 - 40, then 37.5 - 40
    np.testing.assert_allclose(tighten(s, iteration=0), (2.0, 77.0), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=5), (-0.5, 74.5), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=10), (-3.0, 72.0), rtol=1e-6)


def test_feedback_is_bounded_and_what_is_proportional_is_not_summed_up():
    s = SMPOPaper(
        epoch_steps=20.0,
        warmup_epochs=0.0,
        threshold_factor=4.0,
        threshold_epochs=1e9,
        threshold_feedback=1.0,
        feedback_proportional=2.0,
        feedback_bound=0.4,
    )
    # J_c = 400: the slack of -375 counts as -10; -2 for good, -20 for now
    np.testing.assert_allclose(tighten(s, iteration=0, cost=400.0), (-2.0, 78.0), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=0, cost=30.0), (-1.0, 89.0), rtol=1e-6)


def test_without_a_finished_episode_nothing_is_fed_back():
    s = SMPOPaper(threshold_epochs=0.0, threshold_feedback=1.0)
    none = EpisodeStats(*[jnp.asarray(jnp.nan)] * 4, count=jnp.asarray(0.0))
    state = threshold.State(episodes.empty_window(), jnp.asarray(3.0))
    state, d = s.threshold(spec_of()).update(state, none, jnp.asarray(9.0))
    assert (state.threshold_offset, d) == (3.0, 28.0)


def test_without_feedback_the_measured_cost_changes_nothing():
    s = SMPOPaper(epoch_steps=20.0, warmup_epochs=0.0, threshold_epochs=2.0)
    for cost in (0.0, 400.0):
        assert tighten(s, iteration=5, cost=cost) == (0.0, 37.5)


def test_a_traced_feedback_of_zero_is_the_schedule():
    """Suites try several gains, 0 among them, in one program."""

    def traced(gain):
        s = SMPOPaper(epoch_steps=20.0, threshold_epochs=2.0, threshold_feedback=gain)
        finished = rollout([0.0] * 4, [0.0] * 4).episodes
        rule = s.threshold(spec_of())
        return rule.update(rule.init(), finished, jnp.asarray(1.0))[1]

    assert jax.jit(traced)(0.0) == 37.5
