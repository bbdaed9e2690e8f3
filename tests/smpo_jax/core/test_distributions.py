import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from smpo_jax.core import distributions
from smpo_jax.types import DiagonalGaussian

DIST = DiagonalGaussian(jnp.array([[0.5, -1.0]]), jnp.log(jnp.array([[2.0, 0.5]])))


def test_log_prob_is_that_of_independent_normals():
    action = jnp.array([[1.0, -1.5]])
    expected = stats.norm.logpdf(1.0, 0.5, 2.0) + stats.norm.logpdf(-1.5, -1.0, 0.5)
    np.testing.assert_allclose(distributions.log_prob(DIST, action), [expected], rtol=1e-6)


def test_entropy_is_that_of_independent_normals():
    expected = stats.norm.entropy(0.5, 2.0) + stats.norm.entropy(-1.0, 0.5)
    np.testing.assert_allclose(distributions.entropy(DIST), [expected], rtol=1e-6)


def test_kl_matches_hand_worked_numbers_and_vanishes_for_equals():
    # KL(N(0,1) || N(1,2²)) = ln 2 + (1 + 1)/8 - 1/2
    old = DiagonalGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    new = DiagonalGaussian(jnp.ones((1, 1)), jnp.full((1, 1), jnp.log(2.0)))
    np.testing.assert_allclose(distributions.kl(old, new), [np.log(2) - 0.25], rtol=1e-6)
    assert distributions.kl(DIST, DIST) == 0


def test_kl_is_the_mean_log_ratio_over_samples():
    new = DiagonalGaussian(DIST.mean + 0.3, DIST.log_std - 0.2)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (200_000, 2)), (DIST, new))
    action = distributions.sample(many[0], jax.random.key(0))
    log_ratio = distributions.log_prob(many[0], action) - distributions.log_prob(many[1], action)
    error = 4 * jnp.std(log_ratio) / 200_000**0.5  # four standard errors
    np.testing.assert_allclose(distributions.kl(DIST, new)[0], jnp.mean(log_ratio), atol=error)


def test_samples_have_the_mean_and_spread_and_carry_gradients():
    def spread(log_std):
        many = DiagonalGaussian(jnp.zeros((50_000, 1)), jnp.full((50_000, 1), log_std))
        return jnp.std(distributions.sample(many, jax.random.key(1)))

    value, slope = jax.value_and_grad(spread)(jnp.log(3.0))
    np.testing.assert_allclose(value, 3.0, rtol=0.02)  # six standard errors
    np.testing.assert_allclose(slope, value, rtol=1e-4)  # d(e^s)/ds = e^s
