from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from modulated import quadratic, rollout

from smpo_jax.algorithms import recipes
from smpo_jax.algorithms.smpo import SMPOPaper, gradient
from smpo_jax.core.distributions import Categorical, DiagonalGaussian


def prices(charge, terminated, truncated, *, trace, elapsed=None, discount=0.9):
    elapsed = jnp.zeros_like(charge) if elapsed is None else elapsed
    flags = (jnp.asarray(terminated), jnp.asarray(truncated))
    return gradient.price_of(charge, elapsed, *flags, discount=discount, trace=trace)


def test_price_of_one_step_is_the_discounted_charge_of_the_step_before():
    charge = jnp.array([[1.0], [2.0], [4.0], [8.0]])
    end = jnp.array([[0.0], [1.0], [0.0], [0.0]])
    w = prices(charge, end, 0 * end, trace=0.0, discount=0.5)
    np.testing.assert_allclose(w[:, 0], [0.0, 0.5, 0.0, 2.0])  # nothing crosses the end


def test_price_with_the_whole_recursion_gathers_all_earlier_charges():
    charge = jnp.array([[1.0], [2.0], [4.0], [8.0]])
    none = jnp.zeros((4, 1))
    w = prices(charge, none, none, trace=1.0, discount=0.5)
    np.testing.assert_allclose(w[:, 0], [0.0, 0.5, 1.25, 2.625])  # W <- (charge + W) / 2


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_price_matches_the_sum_over_pairs(trace):
    rng = np.random.default_rng(0)
    charge = rng.random((15, 4)).astype(np.float32)
    terminated = (rng.random((15, 4)) < 0.1).astype(np.float32)
    truncated = (rng.random((15, 4)) < 0.1).astype(np.float32)
    w = prices(jnp.asarray(charge), terminated, truncated, trace=trace)
    expected = oracles.price(charge, terminated, truncated, 0.9, trace)
    np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trace, discount", [(0.0, 0.9), (0.7, 0.9), (1.0, 0.9), (1.0, 1.0)])
def test_price_of_a_steady_charge_does_not_depend_on_where_the_rollout_begins(trace, discount):
    none, charge = jnp.zeros((12, 1)), jnp.full((12, 1), 0.3)
    settings = {"trace": trace, "discount": discount}
    whole = prices(charge, none, none, **settings)
    elapsed = jnp.arange(5.0, 12.0)[:, None]
    later = prices(charge[5:], none[5:], none[5:], elapsed=elapsed, **settings)
    np.testing.assert_allclose(later, whole[5:], rtol=1e-5)


def test_price_is_in_units_of_the_advantage_where_it_is_standardised():
    r, advantage = rollout([1.0, 1.0, 1.0], [0.0] * 3), jnp.array([[1.0], [2.0], [6.0]])
    charge = jnp.ones((3, 1))
    plain = SMPOPaper(critic_gradient_coefficient=2.0)
    scaled = SMPOPaper(critic_gradient_coefficient=2.0, critic_gradient_standardised=True)
    price, small = (s.gradient().price(charge, r, advantage) for s in (plain, scaled))
    np.testing.assert_allclose(price[:, 0], [0.0, 1.98, 1.98], rtol=1e-6)
    np.testing.assert_allclose(small, price / np.std([1.0, 2.0, 6.0]), rtol=1e-6)


def test_cost_is_paid_for_above_its_mean_and_never_rewarded():
    advantage, price = jnp.array([[1.0], [1.0], [1.0]]), jnp.array([[2.0], [2.0], [-2.0]])
    paid = gradient.ON_ADVANTAGE.charge(advantage, price, jnp.array([[3.0], [0.0], [0.0]]))
    np.testing.assert_allclose(paid[:, 0], [1 - 2 * 2, 1 + 2 * 1, 1.0])
    assert gradient.OFF.charge(advantage, price, price) is advantage


def samples(action, mean, *, price, cost_value) -> Any:
    action, mean = jnp.asarray(action)[:, None], jnp.asarray(mean)[:, None]
    dist = DiagonalGaussian(mean, jnp.zeros_like(mean))
    log_prob = -0.5 * (action - mean)[:, 0] ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    zero = jnp.zeros_like(log_prob)
    extra = gradient.Priced(jnp.asarray(price), jnp.asarray(cost_value))
    return recipes.Batch(mean * 0, action, log_prob, dist, zero, {"value": zero}, extra)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_reparameterised_gradient_is_the_critics_slope_at_the_moved_action(shift):
    s = samples([1.0, -2.0], [0.5, 0.5], price=[2.0, 1.0], cost_value=[1.0, 4.0])

    def term(mean):
        dist = DiagonalGaussian(s.dist.mean + mean, s.dist.log_std)
        return gradient.reparameterised(quadratic)(dist, s)

    # mean over samples of W * 2 (a + shift)
    expected = (2 * 2 * (1.0 + shift) + 1 * 2 * (-2.0 + shift)) / 2
    np.testing.assert_allclose(jax.grad(term)(shift), expected, rtol=1e-5)


def test_score_gradient_is_that_of_log_prob_where_the_policies_agree():
    s = samples([1.0, -2.0], [0.5, 0.5], price=[2.0, 1.0], cost_value=[3.0, 4.0])

    def term(mean):
        dist = DiagonalGaussian(s.dist.mean + mean, s.dist.log_std)
        return gradient.score(quadratic)(dist, s)

    # mean of W Q d log π / d mean = W Q (a - mean)
    expected = (2 * 3 * 0.5 + 1 * 4 * -2.5) / 2
    np.testing.assert_allclose(jax.grad(term)(0.0), expected, rtol=1e-5)


def test_summed_gradient_is_that_of_the_papers_sum_over_actions():
    """Σ_a ∇π(a|s) Q(s, a) in logits: p (Q - E Q), p = (1/2, 1/4, 1/4), Q = (0, 1, 3), E Q = 1."""
    logits = jnp.log(jnp.array([[2.0, 1.0, 1.0]]))
    one, action = jnp.ones(1), jnp.eye(3)[:1]
    s = recipes.Batch(
        0 * action, action, 0 * one, Categorical(logits), 0 * one, {}, gradient.Priced(2 * one, one)
    )
    term = gradient.summed(lambda obs, action: action @ jnp.array([0.0, 1.0, 3.0]))
    slope = jax.grad(lambda logits: term(Categorical(logits), s))(logits)
    np.testing.assert_allclose(slope, [[2 * -0.5, 0.0, 2 * 0.5]], atol=1e-6)


def test_choices_have_the_sum_where_other_actions_are_reparameterised():
    settings = SMPOPaper(critic_gradient="reparameterised")
    assert settings.gradient(discrete=True).form is gradient.SUMMED
    assert settings.gradient().form is gradient.REPARAMETERISED


def test_both_forms_estimate_the_same_gradient():
    """E_a Q(a) for a ~ N(m, 1), Q = a²: d/dm (m² + 1) = 2 m, at m = 0.5."""
    action = 0.5 + jax.random.normal(jax.random.key(0), (200_000,))
    ones = jnp.ones(200_000)
    s = samples(action, 0.5 * ones, price=ones, cost_value=action**2)

    def slope_of(form):
        def term(mean):
            dist = DiagonalGaussian(mean * jnp.ones((200_000, 1)), 0 * s.action)
            return form(quadratic)(dist, s)

        return jax.grad(term)(0.5)

    # Standard errors: 2 / sqrt(2e5) = 0.0045, and about 3.2 / sqrt(2e5) = 0.007.
    np.testing.assert_allclose(slope_of(gradient.reparameterised), 1.0, atol=4 * 0.0045)
    np.testing.assert_allclose(slope_of(gradient.score), 1.0, atol=4 * 0.007)
