import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from smpo_jax.core.distributions import DiagonalGaussian, SquashedGaussian

DIST = DiagonalGaussian(jnp.array([[0.5, -1.0]]), jnp.log(jnp.array([[2.0, 0.5]])))


def test_log_prob_is_that_of_independent_normals():
    action = jnp.array([[1.0, -1.5]])
    expected = stats.norm.logpdf(1.0, 0.5, 2.0) + stats.norm.logpdf(-1.5, -1.0, 0.5)
    np.testing.assert_allclose(DIST.log_prob(action), [expected], rtol=1e-6)


def test_entropy_is_that_of_independent_normals():
    expected = stats.norm.entropy(0.5, 2.0) + stats.norm.entropy(-1.0, 0.5)
    np.testing.assert_allclose(DIST.entropy(), [expected], rtol=1e-6)


def test_kl_matches_hand_worked_numbers_and_vanishes_for_equals():
    # KL(N(0,1) || N(1,2²)) = ln 2 + (1 + 1)/8 - 1/2
    old = DiagonalGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    new = DiagonalGaussian(jnp.ones((1, 1)), jnp.full((1, 1), jnp.log(2.0)))
    np.testing.assert_allclose(old.kl(new), [np.log(2) - 0.25], rtol=1e-6)
    assert DIST.kl(DIST) == 0


def test_kl_is_the_mean_log_ratio_over_samples():
    new = DiagonalGaussian(DIST.mean + 0.3, DIST.log_std - 0.2)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (200_000, 2)), (DIST, new))
    action = many[0].sample(jax.random.key(0))
    log_ratio = many[0].log_prob(action) - many[1].log_prob(action)
    error = 4 * jnp.std(log_ratio) / 200_000**0.5  # four standard errors
    np.testing.assert_allclose(DIST.kl(new)[0], jnp.mean(log_ratio), atol=error)


def test_samples_have_the_mean_and_spread_and_carry_gradients():
    def spread(log_std):
        many = DiagonalGaussian(jnp.zeros((50_000, 1)), jnp.full((50_000, 1), log_std))
        return jnp.std(many.sample(jax.random.key(1)))

    value, slope = jax.value_and_grad(spread)(jnp.log(3.0))
    np.testing.assert_allclose(value, 3.0, rtol=0.02)  # six standard errors
    np.testing.assert_allclose(slope, value, rtol=1e-4)  # d(e^s)/ds = e^s


def test_noise_and_action_give_each_other():
    noise = jnp.array([[0.3, -1.2]])
    np.testing.assert_allclose(DIST.with_noise(noise), [[0.5 + 0.6, -1.0 - 0.6]], rtol=1e-6)
    np.testing.assert_allclose(DIST.noise(DIST.with_noise(noise)), noise, rtol=1e-6)
    squashed = SquashedGaussian(*DIST)
    np.testing.assert_allclose(squashed.noise(squashed.with_noise(noise)), noise, rtol=1e-4)


SQUASHED = SquashedGaussian(jnp.array([[0.4]]), jnp.log(jnp.array([[0.8]])))


def test_squashed_density_integrates_to_one_and_gives_its_entropy():
    """On a fine grid of (-1, 1), by the midpoint rule."""
    edges = jnp.linspace(-1.0, 1.0, 200_001)
    action = ((edges[1:] + edges[:-1]) / 2)[:, None]
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, action.shape), SQUASHED)
    log_density = np.asarray(many.log_prob(action), float)
    weight = np.exp(log_density) * 1e-5
    np.testing.assert_allclose(weight.sum(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(SQUASHED.entropy(), [-(weight * log_density).sum()], rtol=1e-3)


def test_squashed_actions_are_within_bounds_and_divergence_is_that_of_the_normals():
    action = jnp.tanh(100.0) * jnp.ones((1, 1))  # 1 in float32
    assert np.isfinite(SQUASHED.log_prob(action)[0]) and np.isfinite(SQUASHED.noise(action)[0, 0])
    draws = jax.vmap(SQUASHED.sample)(jax.random.split(jax.random.key(0), 10_000))
    assert np.all(np.abs(draws) <= 1)
    np.testing.assert_allclose(np.median(draws), SQUASHED.mode()[0, 0], atol=0.03)
    other = SquashedGaussian(SQUASHED.mean + 0.3, SQUASHED.log_std - 0.2)
    np.testing.assert_array_equal(SQUASHED.kl(other), SQUASHED.normal.kl(other.normal))
    assert SQUASHED.kl(SQUASHED) == 0
