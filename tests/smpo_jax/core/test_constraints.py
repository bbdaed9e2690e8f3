"""Several constraints by hand: forms, limits, the Lagrangian's advantage and its multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.core import constraints, episodes, multipliers, surrogate
from smpo_jax.types import EpisodeStats

TWO = {"b": 2.0, "a": 5.0}


def test_one_is_a_plain_value_and_several_are_a_dictionary():
    assert constraints.each(lambda x, y: x + y, 1, 2) == 3
    assert constraints.each(lambda x, y: x + y, TWO, {"a": 1.0, "b": 2.0}) == {"b": 4.0, "a": 6.0}
    assert constraints.labelled("cost", 3.0) == {"cost": 3.0}
    assert constraints.labelled("cost", TWO) == {"cost/b": 2.0, "cost/a": 5.0}
    assert constraints.total(TWO) == 7.0 and constraints.total(2.0) == 2.0
    assert constraints.in_order(TWO, ("a", "b")) == [5.0, 2.0]
    assert constraints.names(TWO) == ("b", "a") and constraints.names(1.0) == ("cost",)


def test_what_surrounds_one_constraint_is_nothing():
    """The program for one constraint is the one that was written for it."""

    def written(a, c, price):
        return (a - price * c) / (1.0 + price)

    given = (jnp.ones(3), jnp.ones(3), jnp.ones(()))
    assert str(jax.make_jaxpr(surrogate.penalised)(*given)) == str(jax.make_jaxpr(written)(*given))


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        (25.0, ("cost",), 25.0),
        ((25.0,), ("cost",), 25.0),
        ((25.0, 10.0), ("b", "a"), {"b": 25.0, "a": 10.0}),
        (np.array([25.0, 10.0]), ("b", "a"), {"b": 25.0, "a": 10.0}),
        ({"a": 10.0, "b": 25.0}, ("b", "a"), {"b": 25.0, "a": 10.0}),
    ],
)
def test_limits_are_given_in_the_order_of_the_costs_or_by_name(given, names, expected):
    assert constraints.limits(given, names) == expected


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        (25.0, ("a", "b"), r"1 limit given, but the environment has 2 costs \(a, b\)"),
        ((1.0, 2.0), ("cost",), r"2 limits given, but the environment has 1 cost \(cost\)"),
        ((1.0, 2.0, 3.0), ("a", "b"), "3 limits given"),
        ({"a": 1.0, "c": 2.0}, ("a", "b"), "is of a, c, but the costs are a, b"),
    ],
)
def test_other_numbers_of_limits_are_refused(given, names, words):
    with pytest.raises(ValueError, match=words):
        constraints.limits(given, names)


def test_lagrangian_advantage_of_two_constraints_by_hand():
    # A = 4, -2; A_a = 1, 3; A_b = 2, 0; λ = 0.5, 1.5: (4 - 0.5 - 3) / 3 and (-2 - 1.5 - 0) / 3.
    advantage = surrogate.penalised(
        jnp.array([4.0, -2.0]),
        {"a": jnp.array([1.0, 3.0]), "b": jnp.array([2.0, 0.0])},
        {"a": jnp.asarray(0.5), "b": jnp.asarray(1.5)},
    )
    np.testing.assert_allclose(advantage, [0.5 / 3, -3.5 / 3], rtol=1e-6)


def test_each_multiplier_follows_its_own_cost():
    # Adam's first step has the size of the learning rate: up where a costs 30 of 25, down where b
    # costs 4 of 10.
    dual = multipliers.lagrange(start=0.5, learning_rate=0.1, maximum=10.0)
    limit = {"a": 25.0, "b": 10.0}
    state = constraints.each(lambda _: dual.init(), limit)
    one = jnp.ones(())
    measured = {"a": 30.0 * one, "b": 4.0 * one}
    finished = EpisodeStats(return_=one, cost=measured, length=one, over_limit=one, count=2.0 * one)
    window = episodes.remember(episodes.empty_window(limit), finished, size=100.0)
    moved = constraints.each(dual.update, state, window.cost, limit)
    np.testing.assert_allclose([moved["a"].value, moved["b"].value], [0.6, 0.4], rtol=1e-5)


def test_a_loop_of_ones_own_gives_costs_by_name():
    spec = sx.Spec(1, 1, 2, 3, 10, 1, cost_limit={"a": 1.0, "b": 2.0})
    flat, blank = jnp.zeros((3, 2)), jnp.zeros((3, 2, 1))
    steps = sx.Transition(
        blank, blank, flat, sx.DiagonalGaussian(blank, blank), flat, jnp.zeros((3, 2, 2)), flat,
        flat, blank,
    )  # fmt: skip
    with pytest.raises(ValueError, match="the costs of the steps are cost, the limits are of a, b"):
        sx.track(spec, sx.start_tracking(spec), steps)
    named = steps._replace(cost={"a": flat + 1.0, "b": flat})
    _, rollout = sx.track(spec, sx.start_tracking(spec), named)
    np.testing.assert_array_equal(rollout.cost_so_far["a"][:, 0], [0.0, 1.0, 2.0])


def test_an_episode_over_any_limit_is_over_the_limit_and_each_cost_is_summed():
    tracker = episodes.start(2, cost_names=("a", "b"))
    flags = jnp.array([1.0, 1.0])
    cost = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([0.0, 1.0])}
    _, total, finished = episodes.advance(tracker, jnp.zeros(2), cost, flags, jnp.zeros(2))
    np.testing.assert_array_equal(total.cost["a"], [3.0, 1.0])
    np.testing.assert_array_equal(total.cost["b"], [0.0, 1.0])
    np.testing.assert_array_equal(finished, [1.0, 1.0])
    over = constraints.any_of(constraints.each(lambda c, d: c > d, total.cost, {"a": 2.0, "b": 2}))
    np.testing.assert_array_equal(over, [True, False])
