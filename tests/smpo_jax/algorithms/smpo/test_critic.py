import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modulated import learning, quadratic

import smpo_jax as sx
from smpo_jax import networks
from smpo_jax.algorithms import recipes
from smpo_jax.algorithms.smpo import SMPOPaper
from smpo_jax.algorithms.smpo import critic as safety_critic
from smpo_jax.core import optimise
from smpo_jax.core.distributions import Categorical, DiagonalGaussian
from smpo_jax.types import Transition


def critic_of(spec, how):
    """A safety critic of one small layer, of a small policy."""
    ac = recipes.actor_critic(
        spec, SMPOPaper(hidden=(8,), minibatches=1, learning_rate_decay=False)
    )
    network = networks.nonnegative_action_value(1, 1, hidden=(8,), activation=jnp.tanh)
    return safety_critic.SafetyCritic(ac, how, network, optimise.adam(10.0))


def test_expectation_is_the_mode_or_a_mean_over_samples():
    dist = DiagonalGaussian(jnp.full((1, 1), 3.0), jnp.log(jnp.full((1, 1), 0.5)))
    obs = jnp.zeros((1, 1))
    key = jax.random.key(0)
    exact = safety_critic.expectation(quadratic, obs, dist, key, samples=0)
    np.testing.assert_allclose(exact, [9.0])
    sampled = safety_critic.expectation(quadratic, obs, dist, key, samples=20_000)
    np.testing.assert_allclose(sampled, [9.25], atol=4 * 3.0 / 20_000**0.5)  # E a² = 9 + 1/4


def test_expectation_over_choices_is_their_weighted_sum_whatever_the_critic():
    """Q(s, a) = s + 1, 4 and 10 for the choices; p = (1/2, 1/4, 1/4): s + 4."""
    obs = jnp.array([[[0.0], [1.0]], [[2.0], [3.0]]])
    dist = Categorical(jnp.broadcast_to(jnp.log(jnp.array([2.0, 1.0, 1.0])), (2, 2, 3)))

    def q(obs, action):
        return obs[..., 0] + (action @ jnp.array([1.0, 2.0, 10.0**0.5])) ** 2

    found = safety_critic.expectation(
        q, obs, dist, jax.random.key(0), samples=0, average=safety_critic.over_choices
    )
    np.testing.assert_allclose(found, obs[..., 0] + 4.0, rtol=1e-6)


@pytest.mark.parametrize("regularisation", [0.0, 0.5])
def test_the_critic_converges_to_the_penalised_fixed_point(regularisation):
    """A cost of 0.5 at every step, γ = 0.8: Q = c / (1 + ρ - γ), 2.5 or 0.71, at any (s, a)."""
    spec = sx.Spec(1, 1, 8, 16, episode_length=16, total_iterations=1)
    critic = critic_of(spec, learning(0.8, 0.0, regularisation, rounds=300))
    obs, action = (jax.random.normal(jax.random.key(i), (16, 8, 1)) for i in (1, 2))
    flat, none = jnp.full((16, 8), 0.5), jnp.zeros((16, 8))
    dist = DiagonalGaussian(0 * action, 0 * action)
    t = Transition(obs, action, none, dist, none, flat, none, none, obs)
    estimates = recipes.Estimates(obs, obs, none, none)

    @jax.jit
    def fit(key):
        init_key, critic_key, fit_key = jax.random.split(key, 3)
        learner = critic.init(critic.ac.init(init_key), critic_key)
        return safety_critic.fit(critic, learner, t, estimates, fit_key)

    learner, metrics = fit(jax.random.key(3))
    expected = 0.5 / (1 + regularisation - 0.8)
    np.testing.assert_allclose(critic.predict(learner)(obs, action), expected, rtol=0.03)
    assert np.isfinite(metrics["cost_value/loss"])


def test_cost_advantages_are_of_measured_costs_with_the_penalty_given_back():
    """One-step TD errors, γ = 0.8, ρ = 0.5: what the critic says is grown 1 + 0.5 / 0.2 times."""
    column = lambda *x: jnp.array(x)[:, None]  # noqa: E731
    none, mean, next_mean = column(0.0, 0.0, 0.0), column(1.0, 0.0, 2.0), column(2.0, 0.0, 1.0)
    dist = DiagonalGaussian(mean[..., None], mean[..., None])
    cost, end = column(1.0, 0.0, 4.0), column(0.0, 0.0, 1.0)
    blank = none[..., None]
    t = Transition(blank, blank, none, dist, none, cost, end, none, blank)
    estimates = recipes.Estimates(blank, blank, none, none)
    how, next_value = learning(0.8, 0.0, 0.5), next_mean**2
    found = safety_critic.advantage(how, quadratic, t, estimates, next_value)
    # c + γ 3.5 Q(next mean) - 3.5 Q(mean), Q = a²; nothing after the end
    expected = [1 + 0.8 * 3.5 * 4 - 3.5, 0.0, 4 - 3.5 * 4]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "discount, trace, regularisation",
    [(0.99, 0.0, 0.0), (0.99, 0.0, 0.1), (0.99, 0.95, 0.1), (0.9, 1.0, 1.0), (1.0, 0.5, 0.1)],
)
def test_cost_per_step_undoes_the_shrinkage_of_the_penalty(discount, trace, regularisation):
    """Iterate Q <- y(Q) / (1 + ρ), the minimiser of (Q - y)² + ρ Q², for a cost of 0.05 a step."""
    q = 0.0
    for _ in range(5000):
        y = (0.05 + discount * (1 - trace) * q) / (1 - discount * trace)  # λ-return, no end
        q = y / (1 + regularisation)
    kappa = safety_critic.cost_per_step(learning(discount, trace, regularisation))
    np.testing.assert_allclose(kappa * q, 0.05, rtol=1e-6)


def test_one_step_targets_with_the_papers_penalty_have_a_horizon_of_nine_steps():
    per_step = safety_critic.cost_per_step(learning(0.99, 0.0, 0.1))
    np.testing.assert_allclose(1 / per_step, 9.09, rtol=1e-3)


def test_shrinkage_undoes_the_penalty_of_a_steady_cost():
    # c = 1, γ = 0.5, λ = 0, ρ = 0.1: (1 + ρ) Q = 1 + γ Q has Q = 1 / 0.6; unpenalised, V = 2
    shrinkage = safety_critic.shrinkage(learning(0.5, 0.0, 0.1))
    np.testing.assert_allclose(shrinkage / 0.6, 2.0, rtol=1e-6)
    assert safety_critic.shrinkage(learning(1.0, 1.0, 0.0)) == 1.0


def test_calibration_compares_with_what_followed():
    cost = jnp.array([[1.0], [0.0], [4.0]])
    none = jnp.zeros((3, 1))
    blank = jnp.zeros((3, 1, 1))
    t = Transition(
        blank, blank, none, DiagonalGaussian(blank, blank), none, cost, none, none, blank
    )
    followed = jnp.array([[2.5], [3.0], [6.0]])  # γ = 1/2, then 4 behind the window's end
    next_value = jnp.full((3, 1), 4.0)
    critic = critic_of(sx.Spec(1, 1, 1, 3, 3, 1), learning(0.5, 0.0, 0.0))
    seen = safety_critic.Seen(0.5 * followed, next_value, none)
    metrics = safety_critic.calibration(critic, seen, t)
    np.testing.assert_allclose(metrics["cost_value/ratio"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["cost_value/correlation"], 1.0, rtol=1e-5)
    free = t._replace(cost=none)
    metrics = safety_critic.calibration(critic, safety_critic.Seen(followed, none, none), free)
    assert metrics["cost_value/ratio"] == 0
