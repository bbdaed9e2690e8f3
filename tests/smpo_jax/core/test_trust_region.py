import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from precision import double_precision
from scipy import optimize

from smpo_jax.core import trust_region
from smpo_jax.core.distributions import Categorical
from smpo_jax.core.trust_region import Trial
from smpo_jax.networks import ACTIVATIONS, categorical_policy, gaussian_policy


def positive_definite(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size)


# Conjugate gradients


def test_conjugate_gradients_solve_a_dense_system_in_as_many_steps_as_it_has_rows():
    rng = np.random.default_rng(0)
    matrix, b = positive_definite(rng, 6), rng.normal(size=6)
    with double_precision():
        x = trust_region.conjugate_gradients(
            lambda v: jnp.asarray(matrix) @ v, jnp.asarray(b), iterations=6, tolerance=0.0
        )
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-6)


def test_conjugate_gradients_first_step_is_steepest_descent():
    # F = diag(1, 3), b = (1, 1): along b by bᵀb / bᵀFb = 2 / 4.
    x = trust_region.conjugate_gradients(
        lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), iterations=1
    )
    np.testing.assert_allclose(x, [0.5, 0.5])


def test_conjugate_gradients_stop_at_the_residual_and_stay_finite_after_it():
    """Solved exactly in one step; the fifteen allowed must not divide 0 by 0."""
    solve = jax.jit(lambda b: trust_region.conjugate_gradients(lambda v: 2.0 * v, b, iterations=15))
    np.testing.assert_allclose(solve(jnp.array([2.0, 4.0])), [1.0, 2.0])
    np.testing.assert_array_equal(solve(jnp.zeros(2)), np.zeros(2))
    batch = jax.vmap(solve)(jnp.array([[2.0, 4.0], [0.0, 0.0], [1e-9, 3e-9]]))
    np.testing.assert_allclose(batch, [[1.0, 2.0], [0.0, 0.0], [0.5e-9, 1.5e-9]], rtol=1e-6)


# Fisher-vector products


def test_fisher_product_of_choices_is_diagonal_less_outer_product_of_probabilities():
    """Parameters are the logits of p = (1/2, 1/4, 1/4): F = diag(p) - p pᵀ, in every state."""

    def apply(params):
        return Categorical(jnp.broadcast_to(params, (7, 3)))

    product = trust_region.fisher_product(apply, jnp.log(jnp.array([2.0, 1.0, 1.0])), damping=0.0)
    expected = np.array([[4, -2, -2], [-2, 3, -1], [-2, -1, 3]]) / 16
    np.testing.assert_allclose(jax.vmap(product)(jnp.eye(3)), expected, atol=1e-6)


def drawn(network, key):
    """Parameters of a policy as a vector, and what it does with them in five states."""
    init_key, obs_key = jax.random.split(key)
    params, unravel = ravel_pytree(network.init(init_key))
    obs = jax.random.normal(obs_key, (5, 3))
    params = params + 0.3 * jnp.sin(jnp.arange(params.size))
    return params, lambda flat: network.apply(unravel(flat), obs)


def test_fisher_product_of_a_categorical_network_is_the_hessian_of_its_kl():
    with double_precision():
        network = categorical_policy(3, 4, hidden=(4,), activation=ACTIVATIONS["tanh"])

        @jax.jit
        def matrices(key):
            params, apply = drawn(network, key)
            dist = apply(params)
            product = trust_region.fisher_product(apply, params, damping=0.1)
            hessian = jax.hessian(lambda p: jnp.mean(dist.kl(apply(p))))(params)
            return jax.vmap(product)(jnp.eye(params.size)), hessian

        found, hessian = map(np.asarray, matrices(jax.random.key(0)))
    np.testing.assert_allclose(found, hessian + 0.1 * np.eye(len(found)), atol=1e-10)


def test_natural_step_on_choices_matches_a_hand_worked_one():
    """Two equally likely choices of advantage 1 and -1, target KL 0.02.

    In x = logit_1 - logit_2 the Fisher information is 1/4 and the gradient of E[ρ A] 1/2, so that
    the natural step is x = 2 along, of length √(2δ / (g F⁻¹ g)) = √(0.04) = 0.2: x = 0.4.
    """
    params = jnp.zeros(1)

    def apply(x):
        return Categorical(jnp.stack([x[0] / 2, -x[0] / 2])[None])

    g = jax.grad(lambda x: jnp.sum(jnp.exp(apply(x).log_probabilities) * jnp.array([[1.0, -1.0]])))
    fisher = trust_region.fisher_product(apply, params, damping=0.0)
    np.testing.assert_allclose(g(params), [0.5], rtol=1e-6)
    np.testing.assert_allclose(fisher(jnp.ones(1)), [0.25], rtol=1e-6)
    along = trust_region.conjugate_gradients(fisher, g(params), iterations=2)
    length = trust_region.natural_length(g(params) @ along, target_kl=0.02)
    np.testing.assert_allclose(length * along, [0.4], rtol=1e-5)
    kl = apply(params).kl(apply(length * along))[0]
    np.testing.assert_allclose(kl, np.log(np.cosh(0.2)), rtol=1e-3)  # near 0.02


def test_fisher_product_equals_the_matrix_of_its_definition_and_the_hessian_of_the_kl():
    """F = E_s Σ_i (∇μ_i ∇μ_iᵀ) / σ_i² + 2 Σ_i ∇log σ_i ∇log σ_iᵀ, built column by column."""
    with double_precision():
        network = gaussian_policy(
            3, 2, hidden=(4,), activation=ACTIVATIONS["tanh"], initial_log_std=-0.3
        )

        @jax.jit
        def matrices(key):
            params, apply = drawn(network, key)
            dist = apply(params)
            product = trust_region.fisher_product(apply, params, damping=0.0)
            damped = trust_region.fisher_product(apply, params, damping=0.1)
            return (
                (dist, jax.jacobian(apply)(params), params),
                jax.vmap(product)(jnp.eye(params.size)),
                jax.hessian(lambda p: jnp.mean(dist.kl(apply(p))))(params),
                damped(params),
            )

        known, columns, hessian, damped = matrices(jax.random.key(0))
        dist, jacobian, params = jax.tree.map(np.asarray, known)
    dense = np.zeros((params.size, params.size))
    for state in range(5):
        for i in range(2):
            mean, log_std = jacobian.mean[state, i], jacobian.log_std[state, i]
            dense += np.outer(mean, mean) / np.exp(2 * dist.log_std[state, i]) / 5
            dense += 2 * np.outer(log_std, log_std) / 5
    np.testing.assert_allclose(columns, dense, atol=1e-12)
    np.testing.assert_allclose(columns, hessian, atol=1e-10)
    np.testing.assert_allclose(damped, dense @ params + 0.1 * params, atol=1e-12)


def test_a_step_of_natural_length_has_the_target_kl_to_second_order():
    # ½ (αF⁻¹g)ᵀF(αF⁻¹g) = ½ α² q = δ: q = 8, δ = 0.01 gives α = 0.05.
    np.testing.assert_allclose(trust_region.natural_length(8.0, target_kl=0.01), 0.05)
    assert np.isfinite(trust_region.natural_length(0.0, target_kl=0.01))


# CPO's step


@jax.jit
def solve(q, r, s, violation, target_kl):
    return trust_region.constrained_step(q, r, s, violation, target_kl=target_kl)


def cpo_step(fisher, g, b, violation, target_kl):
    """(d, the solver's record), from dense matrices."""
    x, p = np.linalg.solve(fisher, g), np.linalg.solve(fisher, b)
    with double_precision():
        found = jax.tree.map(np.asarray, solve(g @ x, g @ p, b @ p, violation, target_kl))
    return found.along_reward * x + found.along_cost * p, found


def program(fisher, g, b, violation, target_kl):
    """The same quadratic program by sequential least squares, from several starts."""
    radius = {
        "type": "ineq",
        "fun": lambda d: target_kl - d @ fisher @ d / 2,
        "jac": lambda d: -fisher @ d,
    }
    limit = {"type": "ineq", "fun": lambda d: -violation - b @ d, "jac": lambda d: -b}

    def best(objective, constraints):
        starts = np.random.default_rng(0).normal(size=(4, len(g))) * 0.01
        found = [
            optimize.minimize(
                lambda d: -objective @ d,
                start,
                jac=lambda d: -objective,
                constraints=constraints,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            for start in starts
        ]
        return min((f for f in found if f.success), key=lambda f: f.fun).x

    safest = best(-b, [radius])
    if violation + b @ safest > 0:
        return safest, "recovery"
    fastest = best(g, [radius])
    if violation + b @ fastest <= 0:
        return fastest, "slack"
    return best(g, [radius, limit]), "binding"


# Where c lies between the extremes ±√(2δs) of bᵀd within the trust region.
CASES = {
    "all of the trust region is feasible": (-1.5, {"slack"}),
    "feasible, the border cuts the trust region": (-0.5, {"slack", "binding"}),
    "on the border": (0.0, {"slack", "binding"}),
    "infeasible, recoverable in one step": (0.5, {"slack", "binding"}),
    "infeasible": (1.5, {"recovery"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(6))
def test_constrained_step_solves_the_quadratic_program(case, seed):
    share, expected = CASES[case]
    rng = np.random.default_rng(seed)
    fisher, g, b = positive_definite(rng, 4), rng.normal(size=4), rng.normal(size=4)
    target_kl = 0.01
    violation = share * np.sqrt(2 * target_kl * b @ np.linalg.solve(fisher, b))
    d, found = cpo_step(fisher, g, b, violation, target_kl)
    reference, kind = program(fisher, g, b, violation, target_kl)
    assert kind in expected
    assert (bool(found.is_slack), bool(found.is_recovery)) == (kind == "slack", kind == "recovery")
    # SLSQP's own precision: 1e-14 in the objective is 1e-7 in an argument.
    np.testing.assert_allclose(d, reference, atol=1e-5 * np.abs(reference).max())


def test_the_programs_above_include_both_outcomes_of_every_case():
    kinds = set()
    for share, _ in CASES.values():
        for seed in range(6):
            rng = np.random.default_rng(seed)
            fisher, g, b = positive_definite(rng, 4), rng.normal(size=4), rng.normal(size=4)
            violation = share * np.sqrt(0.02 * b @ np.linalg.solve(fisher, b))
            _, found = cpo_step(fisher, g, b, violation, 0.01)
            kinds.add((share, bool(found.is_slack)))
    assert {(-0.5, True), (-0.5, False), (0.5, True), (0.5, False)} <= kinds


def test_constrained_step_by_hand():
    # F = I, g = (1, 0), b = (1, 1), c = 0, 2δ = 1. q = 1, r = 1, s = 2; A = 1/2, B = 1, 1/λ = √2,
    # ν = r/s = 1/2: d = √2 (g − b/2) = (√2/2, −√2/2), a unit step along the border.
    found = trust_region.constrained_step(*map(jnp.asarray, (1.0, 1.0, 2.0, 0.0)), target_kl=0.5)
    np.testing.assert_allclose(found.along_reward, 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(found.along_cost, -(0.5**0.5), rtol=1e-6)


@pytest.mark.parametrize("violation", [-1.0, -1e-9, 0.0])
def test_without_a_cost_gradient_a_feasible_policy_takes_the_natural_step(violation):
    zero = jnp.zeros(())
    found = trust_region.constrained_step(
        jnp.asarray(2.0), zero, zero, jnp.asarray(violation), target_kl=0.01
    )
    assert found.is_slack and found.along_cost == 0
    np.testing.assert_allclose(found.along_reward, 0.1)  # √(0.02 / 2)


def test_without_a_cost_gradient_an_infeasible_policy_stays_where_it_is():
    zero = jnp.zeros(())
    found = trust_region.constrained_step(
        jnp.asarray(2.0), zero, zero, jnp.asarray(1.0), target_kl=0.01
    )
    assert found.is_recovery and found.along_reward == 0
    assert np.isfinite(found.along_cost)  # times F⁻¹b = 0


def test_where_reward_and_cost_are_parallel_the_step_stops_at_the_limit():
    # g = b = (2, 0), F = I: the plane c + 2d = 0 with c = −0.1 is at d = 0.05 < √0.02.
    q = r = s = jnp.asarray(4.0)
    found = trust_region.constrained_step(q, r, s, jnp.asarray(-0.1), target_kl=0.01)
    along = found.along_reward + found.along_cost  # both multiply (2, 0)
    np.testing.assert_allclose(2 * along, 0.05, rtol=1e-3)  # of numbers that nearly cancel


def test_without_a_limit_the_step_is_the_natural_one_exactly():
    q, r, s = map(jnp.asarray, (3.0, 2.0, 5.0))
    found = trust_region.constrained_step(q, r, s, jnp.asarray(-jnp.inf), target_kl=0.01)
    assert found.along_cost == 0 and found.is_slack and not found.is_recovery
    assert found.along_reward == trust_region.natural_length(q, target_kl=0.01)


# PCPO's projection


def test_projection_moves_along_the_shortest_way_of_its_metric_onto_the_limit():
    # d = (2, 0), b = (1, 1), c = 0: excess 2. Euclidean: minus 2/2 (1, 1) = (1, −1).
    d, b = jnp.array([2.0, 0.0]), jnp.ones(2)
    zero = jnp.zeros(())
    np.testing.assert_allclose(trust_region.project(d, b, b, zero), [1.0, -1.0])
    # F = diag(1, 3): F⁻¹b = (1, 1/3), bᵀF⁻¹b = 4/3, minus 2/(4/3) (1, 1/3) = (0.5, −0.5).
    natural = trust_region.project(d, b, jnp.array([1.0, 1 / 3]), zero)
    np.testing.assert_allclose(natural, [0.5, -0.5], rtol=1e-6)


def test_projection_leaves_a_feasible_step_and_one_without_a_cost_gradient_alone():
    d, b = jnp.array([2.0, 0.0]), jnp.ones(2)
    np.testing.assert_array_equal(trust_region.project(d, b, b, jnp.asarray(-2.0)), d)
    np.testing.assert_array_equal(trust_region.project(d, b, b, jnp.asarray(-jnp.inf)), d)
    none = jnp.zeros(2)
    np.testing.assert_array_equal(trust_region.project(d, none, none, jnp.ones(())), d)


# Line search


def quadratic(kl_scale):
    """KL = scale |x|² of a walk from 0, gain = x₀, cost change = x₁."""
    return lambda x: Trial(kl_scale * jnp.sum(x**2), x[0], x[1])


def test_a_step_beyond_the_trust_region_ends_at_its_border_and_others_are_left_alone():
    # F = diag(4, 1), so (3, 8) has ½ dᵀF d = (36 + 64) / 2 = 50; the border of δ = ½ is at a tenth.
    fisher = lambda v: jnp.array([4.0, 1.0]) * v  # noqa: E731
    step = jnp.array([3.0, 8.0])
    found = trust_region.within(step, fisher, target_kl=0.5)
    np.testing.assert_allclose(found, [0.3, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(trust_region.within(step, fisher, target_kl=60.0), step)
    assert np.all(trust_region.within(0.0 * step, fisher, target_kl=0.5) == 0)


def test_line_search_takes_the_longest_step_within_the_bound():
    # KL of the fractions 1, 1/2, 1/4: 4, 1, 1/4.
    found = trust_region.line_search(
        jnp.zeros(2), jnp.array([2.0, 0.0]), quadratic(1.0), target_kl=1.0, decay=0.5
    )
    np.testing.assert_array_equal(found.params, [1.0, 0.0])
    assert (found.fraction, found.trial.kl, found.trial.gain) == (0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    "evaluate, bounds",
    [
        (quadratic(1.0), {"target_kl": 1e-9}),
        (lambda x: Trial(jnp.zeros(()), -jnp.sum(x**2), jnp.zeros(())), {}),
        (lambda x: Trial(jnp.zeros(()), jnp.ones(()), jnp.ones(())), {"most_cost": 0.5}),
        (lambda x: Trial(jnp.asarray(jnp.nan), jnp.ones(()), jnp.zeros(())), {}),
    ],
    ids=["KL", "no gain", "cost", "NaN"],
)
def test_line_search_returns_the_old_parameters_if_nothing_is_acceptable(evaluate, bounds):
    old = jnp.array([0.1, 0.2])
    search = functools.partial(trust_region.line_search, target_kl=1.0)
    found = search(old, jnp.array([3.0, 4.0]), evaluate, **bounds)
    np.testing.assert_array_equal(found.params, old)
    assert found.fraction == 0 and all(x == 0 for x in found.trial)


def test_line_search_never_exceeds_the_bound_whatever_the_curvature():
    """Under `vmap`, over steps a millionth to a million times too long."""

    @jax.jit
    @jax.vmap
    def search(scale):
        return trust_region.line_search(
            jnp.zeros(2), jnp.array([1.0, 0.5]), quadratic(scale), target_kl=0.01
        )

    scales = jnp.logspace(-6, 6, 40)
    found = search(scales)
    kl = scales * jnp.sum(found.params**2, axis=1)
    assert np.all(kl <= 0.01 * (1 + 1e-6))  # computed once more, in another order
    assert np.any(found.fraction == 1) and np.any(found.fraction == 0)
    between = (found.fraction > 0) & (found.fraction < 1)
    assert np.all(kl[between] > 0.01 * 0.8**2 * (1 - 1e-6))  # one try before was too long


# Two constraints


def instance_of_two(seed):
    """F, g, B, c of a random problem; its planes are sometimes out of reach."""
    rng = np.random.default_rng(seed)
    return (
        positive_definite(rng, 4),
        rng.normal(size=4),
        rng.normal(size=(2, 4)),
        0.4 * rng.normal(size=2),
    )


@functools.cache
def step_of_two() -> Callable[..., tuple[trust_region.ConstrainedStep, jax.Array]]:
    def solve(fisher, g, b, c):
        natural, directions = jnp.linalg.solve(fisher, g), jnp.linalg.solve(fisher, b.T).T
        found = trust_region.constrained_step_of_two(
            g @ natural, directions @ g, b @ directions.T, c, target_kl=0.1
        )
        return found, found.along_reward * natural + found.along_cost @ directions

    return jax.jit(solve)


def nearest(fisher, b, c):
    """The least ½ dᵀF d with c + B d <= 0, and its multipliers, by SciPy's own active sets."""
    root = np.linalg.cholesky(b @ np.linalg.solve(fisher, b.T))
    prices, _ = optimize.nnls(root.T, np.linalg.solve(root, c))
    return 0.5 * np.sum((root.T @ prices) ** 2), prices


def test_step_under_two_constraints_is_the_solution_of_the_quadratic_program():
    cases = {"slack": 0, "recovery": 0, "one": 0, "both": 0}
    with double_precision():
        for seed in range(150):
            fisher, g, b, c = instance_of_two(seed)
            found, step = step_of_two()(*map(jnp.asarray, (fisher, g, b, c)))
            step = np.asarray(step)
            assert step @ fisher @ step <= 0.2 + 1e-9  # within the trust region, always
            least, prices = nearest(fisher, b, c)
            assert bool(found.is_recovery) == (least > 0.1)
            if found.is_recovery:
                # As far as the trust region allows towards the nearest step that would do.
                cases["recovery"] += 1
                towards = -np.linalg.solve(fisher, b.T @ prices)
                towards *= np.sqrt(0.2 / (towards @ fisher @ towards))
                np.testing.assert_allclose(step, towards, rtol=1e-6, atol=1e-9)
                continue
            assert np.all(c + b @ step <= 1e-9) and np.all(found.along_cost <= 1e-12)
            best = optimize.minimize(
                lambda d, g=g: -g @ d,
                -np.linalg.solve(fisher, b.T @ prices),
                jac=lambda d, g=g: -g,
                method="SLSQP",
                constraints=[
                    {"type": "ineq", "fun": lambda d, b=b, c=c: -(c + b @ d)},
                    {"type": "ineq", "fun": lambda d, f=fisher: 0.2 - d @ f @ d},
                ],
                options={"maxiter": 500, "ftol": 1e-13},
            )
            assert best.status in (0, 8)  # 8: rounding ends the line search
            np.testing.assert_allclose(g @ step, -best.fun, rtol=1e-5, atol=1e-6)
            active = int(np.sum(np.asarray(found.along_cost) < -1e-9))
            cases[("slack", "one", "both")[active]] += 1
            assert bool(found.is_slack) == (active == 0)
    assert min(cases.values()) >= 10, cases


def test_the_second_of_two_constraints_says_nothing_if_it_is_never_reached():
    """The step is then that under the first alone."""
    fisher, g, b, _ = instance_of_two(3)
    with double_precision():
        natural, first = np.linalg.solve(fisher, g), np.linalg.solve(fisher, b[0])
        alone = trust_region.constrained_step(
            g @ natural, g @ first, b[0] @ first, -0.01, target_kl=0.1
        )
        found, _ = step_of_two()(*map(jnp.asarray, (fisher, g, b, np.array([-0.01, -1e6]))))
    np.testing.assert_allclose(found.along_reward, alone.along_reward, rtol=1e-12)
    np.testing.assert_allclose(found.along_cost, np.array([float(alone.along_cost), 0.0]), 1e-12)


def test_two_constraints_without_a_gradient_or_with_the_same_leave_a_finite_step():
    q, r, s = jnp.asarray(1.0), jnp.zeros(2), jnp.zeros((2, 2))
    blind = trust_region.constrained_step_of_two(q, r, s, jnp.array([1.0, 1.0]), target_kl=0.1)
    np.testing.assert_array_equal(blind.along_reward, 0.0)
    np.testing.assert_array_equal(blind.along_cost, jnp.zeros(2))
    same = trust_region.constrained_step_of_two(
        q, jnp.full(2, 0.5), jnp.ones((2, 2)), jnp.array([0.1, 0.2]), target_kl=0.1
    )
    assert np.all(np.isfinite(same.along_cost)) and np.isfinite(same.along_reward)
    # c + bᵀd = 0 for the tighter of the two: 0.2 + 0.5 x + y <= 0.
    change = 0.5 * same.along_reward + np.sum(same.along_cost)
    assert 0.2 + change <= 1e-6


def test_prices_of_the_nearest_step_are_those_of_nonnegative_least_squares():
    with double_precision():
        for seed in range(50):
            fisher, _, b, c = instance_of_two(seed)
            s = b @ np.linalg.solve(fisher, b.T)
            found = trust_region.nearest_prices(jnp.asarray(s), jnp.asarray(c))
            np.testing.assert_allclose(found, nearest(fisher, b, c)[1], rtol=1e-7, atol=1e-10)
