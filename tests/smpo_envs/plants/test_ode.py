"""The solver, against closed forms and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from precision import double_precision
from scipy.integrate import solve_ivp

from smpo_envs.plants.ode import integrate


def growth(x):
    return jnp.stack([-2.0 * x[0], x[0] - x[1]])


def test_linear_equations_have_their_closed_form():
    with double_precision():
        after = integrate(growth, jnp.array([1.0, 0.0]), 1.5)
        decay = np.exp(-1.5)
        assert_allclose(after, [decay**2, decay - decay**2], rtol=0, atol=1e-11)


def test_a_constant_rate_takes_one_long_step_after_the_first():
    def rates(x):
        return jnp.ones_like(x)

    assert_allclose(integrate(rates, jnp.zeros(3), 7.0), 7.0, rtol=1e-6)


@pytest.mark.parametrize("stiffness", [1.0, 30.0])
def test_van_der_pols_oscillator_is_scipys(stiffness):
    def rates(x):
        return jnp.stack([x[1], stiffness * (1.0 - x[0] ** 2) * x[1] - x[0]])

    with double_precision():
        start = jnp.array([2.0, 0.0])
        after = jax.jit(lambda x: integrate(rates, x, 3.0))(start)
        exact = solve_ivp(
            lambda _, x: np.asarray(rates(x)),
            (0, 3),
            start,
            method="DOP853",
            rtol=1e-13,
            atol=1e-14,
        )
    assert_allclose(after, exact.y[:, -1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 7])
def test_single_precision_is_as_good_as_it_can_be(steps):
    state = jnp.array([1.0, 0.0])
    for _ in range(steps):
        state = integrate(growth, state, 1.5 / steps)
    decay = np.exp(-1.5)
    assert state.dtype == jnp.float32
    assert_allclose(state, [decay**2, decay - decay**2], atol=2e-5)


def test_what_is_not_finite_comes_to_an_end():
    after = jax.jit(lambda x: integrate(lambda y: y**2, x, 2.0))(jnp.ones(1))  # infinite at 1
    assert not np.isfinite(after).all()


def test_many_at_once_are_what_each_is_alone():
    starts = jnp.linspace(0.1, 2.0, 5)[:, None]

    def solve(x):
        return integrate(lambda y: jnp.sin(5.0 * y), x, 2.0)

    together = jax.vmap(solve)(starts)
    assert_allclose(together, jnp.stack([solve(x) for x in starts]), rtol=1e-6)
