from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from smpo_jax.core import multipliers


def run(dual, costs, limit):
    """The multiplier after each of some measurements, and the last state."""

    def step(state, cost):
        state = dual.update(state, cost, limit)
        return state, state.value

    state, values = jax.lax.scan(step, dual.init(), jnp.asarray(costs, float))
    return np.asarray(values), state


def lagrange(**overrides):
    settings = {"start": 0.001, "learning_rate": 0.035, "maximum": 1e6}
    return multipliers.lagrange(**{**settings, **overrides})


def pid(**overrides):
    settings: dict[str, Any] = {
        "start": 0.0,
        "proportional": 0.1,
        "integral": 0.01,
        "derivative": 0.01,
        "smoothing": (0.95, 0.95),
        "delay": 10,
        "maximum": 100.0,
    }
    return multipliers.pid(**{**settings, **overrides})


def test_ascent_moves_by_the_learning_rate_whatever_the_excess_is():
    """Adam's first steps on a steady gradient are the learning rate: 0.001 + 0.035 k.

    Up to 7e-6 of it: the bias correction divides by 1 - 0.999 in float32.
    """
    for excess in (0.1, 1000.0):
        values, _ = run(lagrange(), [25.0 + excess] * 3, 25.0)
        np.testing.assert_allclose(values, [0.036, 0.071, 0.106], rtol=1e-5)


def test_ascent_stays_between_zero_and_its_bound():
    values, _ = run(lagrange(), [0.0, 0.0], 25.0)
    np.testing.assert_array_equal(values, [0.0, 0.0])  # 0.001 - 0.035 < 0
    values, _ = run(lagrange(maximum=0.05), [50.0] * 3, 25.0)
    np.testing.assert_allclose(values, [0.036, 0.05, 0.05], rtol=1e-5)


@pytest.mark.parametrize("dual", [lagrange(), pid(start=0.001)], ids=["lagrange", "pid"])
def test_an_infinite_limit_is_no_constraint(dual):
    values, state = run(dual, [10.0] * 3, jnp.inf)
    np.testing.assert_array_equal(values, [0.0] * 3)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_pid_by_hand():
    """Costs 35, 45 at limit 25: errors 10, 20."""
    values, state = run(pid(start=0.5), [35.0, 45.0], 25.0)
    # first: P = 0.1 (0.05 10), I = 0.5 + 0.01 10, D = 0.01 (0.05 35)
    first = 0.05 + 0.6 + 0.0175
    # then: P = 0.1 (0.95 0.5 + 0.05 20), I = 0.6 + 0.2, D = 0.01 (0.95 1.75 + 0.05 45), the
    # delayed cost being that before the start, 0
    second = 0.1475 + 0.8 + 0.039125
    np.testing.assert_allclose(values, [first, second], rtol=1e-6)
    np.testing.assert_allclose(state.past[-2:], [1.75, 3.9125], rtol=1e-6)


def test_pid_equals_a_plain_loop():
    costs = 25 + 30 * np.random.default_rng(0).normal(size=60).cumsum() / 5
    gains = {"proportional": 0.3, "integral": 0.02, "derivative": 0.5}
    values, _ = run(pid(start=0.1, delay=3, maximum=4.0, **gains), costs, 25.0)
    expected = oracles.pid(costs, 25.0, 0.3, 0.02, 0.5, 0.95, delay=3, start=0.1, maximum=4.0)
    assert {0.0, 4.0} <= set(np.round(expected, 9))  # it has been at both bounds
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_without_integral_and_derivative_pid_is_proportional_control():
    gains = {"integral": 0.0, "derivative": 0.0, "smoothing": (0.0, 0.0)}
    values, _ = run(pid(**gains), [20.0, 30.0, 45.0], 25.0)
    np.testing.assert_allclose(values, [0.0, 0.5, 2.0], rtol=1e-6)  # 0.1 (J_c - d), from 0


def test_the_integral_does_not_wind_up_at_either_end():
    only_integral = {"proportional": 0.0, "derivative": 0.0, "integral": 0.01}
    # a hundred safe iterations save nothing up: the first excess of 10 counts at once
    values, _ = run(pid(**only_integral), [0.0] * 100 + [35.0], 25.0)
    np.testing.assert_allclose(values[-1], 0.1, rtol=1e-5)
    # a hundred dear ones do not have to be paid back one by one
    values, _ = run(pid(maximum=2.0, **only_integral), [125.0] * 100 + [15.0], 25.0)
    np.testing.assert_allclose(values[-2:], [2.0, 1.9], rtol=1e-5)


def test_derivative_brakes_when_cost_rises_and_never_pushes():
    only = {"proportional": 0.0, "integral": 0.0, "derivative": 1.0}
    values, _ = run(pid(smoothing=(0.0, 0.0), delay=2, **only), [10.0, 10.0, 13.0, 1.0], 25.0)
    # against the cost two updates before: 10 - 0, 10 - 0, 13 - 10, (1 - 10)+
    np.testing.assert_allclose(values, [10.0, 10.0, 3.0, 0.0])


def test_barrier_is_steep_near_the_limit_and_full_beyond():
    values, _ = run(
        multipliers.barrier(coefficient=0.01, maximum=1.0), [15.0, 24.0, 24.999, 25.0, 99.0], 25.0
    )
    np.testing.assert_allclose(values, [0.001, 0.01, 1.0, 1.0, 1.0], rtol=1e-4)
