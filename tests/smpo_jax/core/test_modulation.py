import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from smpo_jax.core import modulation


def weight(x, threshold, **settings):
    return modulation.cost_aware_weight(jnp.asarray(x), jnp.asarray(threshold), **settings)


def test_weight_matches_hand_worked_numbers():
    # b = 2, d' = 2: f(x) = (1 - 2^x) / (1 - 1/4) at x = -2, -1, 0, 1, 2
    f = weight([-2.0, -1.0, 0.0, 1.0, 2.0], 2.0, base=2.0)
    np.testing.assert_allclose(f.value, [1, 2 / 3, 0, -4 / 3, -4], rtol=1e-6, atol=1e-7)
    # f'(x) = -ln 2 * 2^x / (3/4)
    np.testing.assert_allclose(f.slope, -np.log(2) / 0.75 * 2.0 ** np.arange(-2, 3), rtol=1e-6)


def test_temperature_is_a_change_of_base():
    x = jnp.array([-3.0, 0.5, 2.0])
    a = weight(x, 5.0, base=8.0, temperature=3.0)
    b = weight(x, 5.0, base=2.0)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-5)
    np.testing.assert_allclose(a.slope, b.slope, rtol=1e-5)


def test_slope_is_the_derivative_above_the_floor():
    x = jnp.linspace(-4.0, 1.0, 7)
    derivative = jax.vmap(jax.grad(lambda x: weight(x, 4.0, base=1.7).value))(x)
    np.testing.assert_allclose(weight(x, 4.0, base=1.7).slope, derivative, rtol=1e-5)


def test_beyond_the_floor_the_weight_is_the_floor_and_the_slope_is_kept():
    f = weight([3.0, 50.0, 5000.0], 25.0, base=3.0, floor=-5.0)
    np.testing.assert_allclose(f.value, -5.0, rtol=1e-6)
    # 3^x = 6 there, up to 3^-25, so the slope is -6 ln 3
    np.testing.assert_allclose(f.slope, -6 * np.log(3), rtol=1e-6)


@pytest.mark.parametrize("base", [1.0 + 1e-6, 1.04, 3.0, 1e30])
@pytest.mark.parametrize("threshold", [1e-3, 25.0, 1e4])
def test_weight_is_finite_falling_and_anchored_for_any_base_and_threshold(base, threshold):
    x = jnp.concatenate([jnp.array([-threshold]), jnp.linspace(-threshold, 1e5, 50)])
    f = weight(x, threshold, base=base)
    assert np.all(np.isfinite(f.value)) and np.all(np.isfinite(f.slope))
    assert f.value[0] == 1
    assert np.all(np.diff(f.value) <= 0) and np.all(f.value >= -5.000001)
    assert weight(0.0, threshold, base=base).value == 0


def test_a_base_near_one_is_the_straight_line():
    f = weight([-10.0, -5.0, 0.0, 5.0], 10.0, base=1.0 + 1e-6)
    np.testing.assert_allclose(f.value, [1.0, 0.5, 0.0, -0.5], rtol=1e-4)


def test_a_floor_of_zero_forbids_negative_weights():
    assert weight([0.0, 1.0, 99.0], 5.0, base=3.0, floor=0.0).value.min() == 0


@pytest.mark.parametrize("epoch, expected", [(0, 50.0), (25, 37.5), (50, 25.0), (400, 25.0)])
def test_schedule_falls_from_twice_the_limit_to_the_limit(epoch, expected):
    assert modulation.scheduled_threshold(25.0, epoch, factor=2.0, epochs=50.0) == expected


def test_schedule_of_no_length_is_the_limit_at_once():
    assert modulation.scheduled_threshold(25.0, 0, factor=2.0, epochs=0.0) == 25


@pytest.mark.parametrize("measured, expected", [(20.0, 5.0), (31.0, -6.0), (200.0, -12.5)])
def test_slack_is_what_is_left_of_the_target_within_its_bound(measured, expected):
    assert modulation.slack(25.0, measured, bound=12.5) == expected


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
    kappa = modulation.cost_per_step(discount, trace, regularisation)
    np.testing.assert_allclose(kappa * q, 0.05, rtol=1e-6)


def test_one_step_targets_with_the_papers_penalty_have_a_horizon_of_nine_steps():
    np.testing.assert_allclose(1 / modulation.cost_per_step(0.99, 0.0, 0.1), 9.09, rtol=1e-3)


def test_running_minimum_starts_afresh_with_each_episode():
    x = jnp.array([[3.0], [1.0], [2.0], [5.0], [4.0]])
    end = jnp.array([[0.0], [0.0], [1.0], [0.0], [0.0]])
    np.testing.assert_array_equal(modulation.running_minimum(x, end)[:, 0], [3, 1, 1, 5, 4])


def prices(charge, terminated, truncated, *, trace, elapsed=None, discount=0.9):
    elapsed = jnp.zeros_like(charge) if elapsed is None else elapsed
    flags = (jnp.asarray(terminated), jnp.asarray(truncated))
    return modulation.price(charge, elapsed, *flags, discount=discount, trace=trace)


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
