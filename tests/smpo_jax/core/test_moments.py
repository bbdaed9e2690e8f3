import jax.numpy as jnp
import numpy as np

from smpo_jax.core import moments


def test_before_any_sample_normalising_only_clips():
    x = jnp.array([[0.5, -7.0]])
    np.testing.assert_array_equal(moments.normalise(moments.start(2), x, clip=5.0), [[0.5, -5.0]])


def test_batches_one_after_another_give_the_moments_of_all_samples():
    rng = np.random.default_rng(0)
    data = rng.normal(3.0, 2.0, size=(60, 4)).astype(np.float32)
    m = moments.start(4)
    for piece in (data[:7], data[7:10], data[10:]):
        m = moments.update(m, jnp.asarray(piece))
    np.testing.assert_allclose(m.mean, data.mean(0), rtol=1e-6)
    np.testing.assert_allclose(m.variance, data.var(0), rtol=1e-5)
    assert m.count == 60


def test_variance_survives_a_large_mean():
    """Sums of squares would cancel: 1e4² leaves float32 no digits for a variance of 1."""
    rng = np.random.default_rng(1)
    data = (1e4 + rng.normal(size=(4000, 1))).astype(np.float32)
    m = moments.start(1)
    for piece in np.split(data, 10):
        m = moments.update(m, jnp.asarray(piece))
    np.testing.assert_allclose(m.variance, data.astype(np.float64).var(0), rtol=2e-3)


def test_leading_axes_are_all_samples():
    data = jnp.arange(24.0).reshape(2, 3, 4)
    flat = moments.update(moments.start(4), data.reshape(6, 4))
    nested = moments.update(moments.start(4), data)
    for a, b in zip(flat, nested, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_constant_component_does_not_explode_when_it_moves():
    m = moments.update(moments.start(1), jnp.full((10, 1), 2.0))
    assert m.variance[0] == 0
    np.testing.assert_allclose(moments.normalise(m, jnp.array([2.01]), clip=5.0), [1.0], rtol=1e-4)
