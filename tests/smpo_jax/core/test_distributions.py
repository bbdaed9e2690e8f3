import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from smpo_jax.core.distributions import Categorical, DiagonalGaussian, SquashedGaussian

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


P, Q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
CHOICE = Categorical(jnp.log(jnp.array([P])) + 3.0)  # logits are known up to a constant only
OTHER = Categorical(jnp.log(jnp.array([Q])))


def test_categorical_matches_hand_worked_numbers():
    np.testing.assert_allclose(CHOICE.log_prob(jnp.eye(3)[None, 1]), [np.log(0.25)], rtol=1e-6)
    # (1/2) ln 2 + 2 (1/4) ln 4 = 1.5 ln 2
    np.testing.assert_allclose(CHOICE.entropy(), [1.5 * np.log(2)], rtol=1e-6)
    # (1/2) ln 2 + 0 - (1/4) ln 2
    np.testing.assert_allclose(CHOICE.kl(OTHER), [0.25 * np.log(2)], rtol=1e-5)
    np.testing.assert_allclose(CHOICE.std(), [[0.5, 3**0.5 / 4, 3**0.5 / 4]], rtol=1e-6)
    np.testing.assert_array_equal(CHOICE.mode(), [[1.0, 0.0, 0.0]])
    assert CHOICE.kl(CHOICE) == 0


def test_categorical_matches_scipy_over_any_leading_axes():
    logits, other = (jax.random.normal(jax.random.key(i), (4, 5, 6)) for i in (0, 1))
    p, q = jax.nn.softmax(logits), jax.nn.softmax(other)
    dist = Categorical(logits)
    np.testing.assert_allclose(dist.entropy(), stats.entropy(p, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(dist.kl(Categorical(other)), stats.entropy(p, q, axis=-1), rtol=1e-4)
    action = dist.sample(jax.random.key(2))
    index = np.argmax(action, axis=-1)[..., None]
    chosen = np.log(np.take_along_axis(np.asarray(p), index, axis=-1))[..., 0]
    np.testing.assert_allclose(dist.log_prob(action), chosen, rtol=1e-5)


def test_categorical_draws_are_one_hot_and_as_frequent_as_they_should_be():
    many = Categorical(jnp.broadcast_to(CHOICE.logits, (40_000, 3)))
    draws = many.sample(jax.random.key(0))
    assert draws.dtype == jnp.float32
    np.testing.assert_array_equal(jnp.sum(draws, axis=-1), 1.0)
    np.testing.assert_array_equal(draws.max(axis=-1), 1.0)
    # standard error at most 0.5 / 200
    np.testing.assert_allclose(draws.mean(axis=0), P, atol=4 * 0.0025)


def test_a_choice_that_is_ruled_out_is_never_made_and_leaves_everything_finite():
    ruled_out = jnp.array([[0.0, -jnp.inf, 0.0]])

    def outcome(logits):
        dist = Categorical(logits)
        action = dist.sample(jax.random.key(0))
        return jnp.sum(dist.entropy() + dist.kl(Categorical(logits + 1.0)) + dist.log_prob(action))

    value, slope = jax.value_and_grad(outcome)(ruled_out)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)  # ln 2 + 0 - ln 2
    assert np.isfinite(slope).all()
    draws = Categorical(jnp.broadcast_to(ruled_out, (1000, 3))).sample(jax.random.key(1))
    assert np.all(draws[:, 1] == 0)


@pytest.mark.parametrize(
    "dist",
    [DIST, SquashedGaussian(*DIST), CHOICE],
    ids=["gaussian", "squashed", "categorical"],
)
def test_divergence_has_no_slope_where_policies_agree(dist):
    slope = jax.grad(lambda new: jnp.sum(dist.kl(new)))(dist)
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 0.0, atol=1e-6), slope)


def test_squashed_divergence_is_the_mean_log_ratio_over_samples():
    other = SquashedGaussian(SQUASHED.mean + 0.3, SQUASHED.log_std - 0.2)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (100_000, 1)), (SQUASHED, other))
    action = many[0].sample(jax.random.key(0))
    log_ratio = many[0].log_prob(action) - many[1].log_prob(action)
    error = 4 * jnp.std(log_ratio) / 100_000**0.5  # four standard errors
    np.testing.assert_allclose(SQUASHED.kl(other)[0], jnp.mean(log_ratio), atol=error)
