import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from smpo_jax.core import calibration


def test_bins_are_by_quantile_of_the_prediction():
    # by prediction: (1, 0), (2, 4), (3, 2) | (5, 6), (9, 8): ranks 0 to 2, and 3 to 4
    predicted = jnp.array([9.0, 1.0, 5.0, 2.0, 3.0])
    realised = jnp.array([8.0, 0.0, 6.0, 4.0, 2.0])
    found = calibration.by_quantile(predicted, realised, bins=2)
    assert_allclose(found.predicted, [2.0, 7.0])
    assert_allclose(found.realised, [2.0, 7.0])
    assert_array_equal(found.count, [3, 2])


def test_critic_that_knows_nothing_is_flat():
    rng = np.random.default_rng(0)
    predicted, realised = jnp.asarray(rng.uniform(size=(2, 100_000)), jnp.float32)
    found = calibration.by_quantile(predicted, realised)
    assert_allclose(found.predicted, np.arange(10) / 10 + 0.05, atol=0.01)
    assert_allclose(found.realised, 0.5, atol=0.015)  # 5 standard errors: 0.29 / sqrt(1e4) each


def test_fewer_samples_than_bins_are_refused():
    with pytest.raises(ValueError, match="3 samples cannot fill 10 bins"):
        calibration.by_quantile(jnp.zeros(3), jnp.zeros(3))


def test_settled_steps_have_seen_99_percent_of_their_weight():
    known = calibration.settled(1000, 0.99)
    assert 0.99 ** (1000 - known) <= 0.01 < 0.99 ** (1000 - known - 1)
    assert calibration.settled(10, 0.99) == 5  # half of a window too short
    assert calibration.settled(10, 1.0) == 5
