"""The lidar against the original's rule, object by object and bin by bin."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from precision import double_precision

from smpo_envs.safety_gym.lidar import angle_in_bins, lidar

SECTOR = 2 * np.pi / 16


def original(ahead, left, reach=3.0):
    bins = np.zeros(16)
    for x, y in zip(ahead, left, strict=True):
        proximity = max(0.0, reach - np.hypot(x, y)) / reach
        angle = np.arctan2(y, x) % (2 * np.pi)
        b = int(angle / SECTOR)
        f = angle / SECTOR - b
        for k, value in ((b, proximity), (b + 1, f * proximity), (b - 1, (1 - f) * proximity)):
            bins[k % 16] = max(bins[k % 16], value)
    return bins


def test_lidar_of_one_object_lights_its_sector_and_its_neighbours():
    # 1.5 m away (half of the reach), a quarter of a sector into sector 2.
    angle = 2.25 * SECTOR
    ahead, left = jnp.array([1.5 * np.cos(angle)]), jnp.array([1.5 * np.sin(angle)])
    expected = np.zeros(16)
    expected[2], expected[3], expected[1] = 0.5, 0.25 * 0.5, 0.75 * 0.5
    assert_allclose(lidar(ahead, left), expected, atol=1e-6)


def test_lidar_shows_the_brightest_object_of_a_sector_and_nothing_beyond_reach():
    ahead = jnp.array([1.5, 0.75, 3.0])
    left = jnp.array([0.15, 0.075, -1.0])  # the last is 3.16 m away
    reading = np.asarray(lidar(ahead, left))
    assert_allclose(reading[0], 1 - np.hypot(0.75, 0.075) / 3, rtol=1e-6)
    assert np.all(reading[2:15] == 0)


@pytest.mark.parametrize(("reach", "spread"), [(3.0, 2.0), (6.0, 4.0)])
def test_lidar_agrees_with_the_rule_of_the_original(reach, spread):
    rng = np.random.default_rng(0)
    with double_precision():
        for _ in range(20):
            ahead, left = rng.uniform(-spread, spread, (2, 7))
            reading = lidar(jnp.asarray(ahead), jnp.asarray(left), reach=reach)
            assert_allclose(reading, original(ahead, left, reach), rtol=0, atol=1e-14)


def test_lidar_is_continuous_where_the_circle_closes():
    # Straight ahead is the edge of sectors 0 and 15: both light up, whatever the rounding.
    for left in (0.0, -0.0, 1e-9, -1e-9, -1e-30):
        reading = lidar(jnp.array([1.5]), jnp.array([left]))
        expected = np.zeros(16)
        expected[0] = expected[15] = 0.5
        assert_allclose(reading, expected, atol=1e-6)


@pytest.mark.parametrize(("double", "tolerance"), [(True, 4e-15), (False, 2e-6)])
def test_angle_in_bins_is_atan2(double, tolerance):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20_000)) * 10 ** rng.uniform(-3, 1, 20_000)
    # Axes and diagonals, where the folds meet.
    x = np.concatenate([x, [1, 1, 0, -1, -1, -1, 0, 1]])
    y = np.concatenate([y, [0, 1, 1, 1, 0, -1, -1, -1]])
    with double_precision() if double else np.errstate():
        ours = np.asarray(angle_in_bins(jnp.asarray(x), jnp.asarray(y)), np.float64)
    assert np.all((ours >= 0) & (ours <= 16))
    difference = ours - np.arctan2(y, x) % (2 * np.pi) / SECTOR
    difference = (difference + 8) % 16 - 8  # a full turn is no difference
    assert np.max(np.abs(difference)) < tolerance
