import math

import numpy as np
import pytest

from smpo_jax.experiment.results import intervals


def test_mean_has_students_interval():
    # mean 2, standard deviation 1, standard error 1/sqrt(3), t quantile of 2 degrees 4.3027
    value, low, high = intervals.mean(np.array([1.0, 2.0, 3.0]))
    assert value == 2.0
    np.testing.assert_allclose([low, high], [2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], rtol=1e-4)


def test_share_has_wilsons_interval():
    # none of ten: [0, z^2 / (n + z^2)] with z = 1.96
    value, low, high = intervals.share(0, 10)
    assert value == 0.0 and abs(low) < 1e-12
    np.testing.assert_allclose(high, 1.959964**2 / (10 + 1.959964**2), rtol=1e-6)
    mirrored = intervals.share(10, 10)
    np.testing.assert_allclose([mirrored.low, mirrored.high], [1 - high, 1], rtol=1e-12)


def test_interquartile_mean_drops_a_quarter_at_both_ends():
    assert intervals.interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0  # of 3: all
    assert intervals.interquartile_mean(np.array([100.0, 2.0, 3.0, -9.0])) == 2.5
    assert intervals.interquartile_mean(np.array([100.0, 2.0, 3.0, 4.0, -9.0])) == 3.0
    columns = np.array([[1.0, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(intervals.interquartile_mean(columns), [2.0, 2.0])


def test_bootstrap_of_two_values_reaches_from_one_to_the_other():
    # means of resamples: 0 and 1 with chance 1/4 each, 1/2 with 1/2; both tails are above 2.5 %
    assert intervals.interquartile_estimate(np.array([0.0, 1.0])) == (0.5, 0.0, 1.0)


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample():
    # the quartiles' mean of n uniform numbers has variance 1/12 (1 - 0.5)... compared by simulation
    random = np.random.default_rng(1)
    sample = random.uniform(size=200)
    value, low, high = intervals.interquartile_estimate(sample)
    repeated = [float(intervals.interquartile_mean(random.uniform(size=200))) for _ in range(2000)]
    assert low < value < high
    assert (high - low) == pytest.approx(2 * 1.96 * np.std(repeated), rel=0.2)


def test_bootstrap_draws_within_each_stratum():
    # Without strata, resamples of these four could all be 0 or all be 10.
    value, low, high = intervals.interquartile_estimate(
        np.array([0.0, 0.0]), np.array([10.0, 10.0])
    )
    assert (value, low, high) == (5.0, 5.0, 5.0)


def test_a_single_value_has_no_interval():
    value, low, high = intervals.interquartile_estimate(np.array([3.0]))
    assert value == 3.0 and math.isnan(low) and math.isnan(high)
