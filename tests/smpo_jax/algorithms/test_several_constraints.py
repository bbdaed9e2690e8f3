"""Methods under two limits: who keeps them, who refuses, and where three of them end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_envs
import smpo_jax as sx
from smpo_envs import probes
from smpo_jax.algorithms import crpo
from smpo_jax.algorithms.registry import ALGORITHMS

LIMITS = (3.0, 6.0)
ONE_ONLY = [name for name, entry in ALGORITHMS.items() if entry.most_constraints == 1]
ABLE = [name for name in ALGORITHMS if name not in ONE_ONLY]
# As in `test_smpo`, where one limit is kept.
SMPO = {
    "epoch_steps": 1280.0,
    "weight_temperature": 16.0,
    "shift_amount": 0.5,
    "critic_gradient_coefficient": 4.0,
    "threshold_minimum": 3.0,
    "threshold_feedback": 0.5,
    "target_epochs": 50.0,
}
QUICK = {"hidden": (8,), "epochs": 1, "minibatches": 2}


def problem(cost_limit=LIMITS):
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeSpending"), 8)
    return env, sx.make_spec(env, rollout_length=20, total_iterations=4, cost_limit=cost_limit)


def test_spec_names_the_limits():
    assert problem()[1].cost_limit == {"first": 3.0, "second": 6.0}
    assert problem({"second": 6.0, "first": 3.0})[1].cost_limit == {"first": 3.0, "second": 6.0}
    with pytest.raises(ValueError, match="1 limit given, but the environment has 2 costs"):
        problem(25.0)


@pytest.mark.parametrize("name", ONE_ONLY)
def test_methods_of_one_constraint_refuse_two_in_one_line(name):
    _, spec = problem()
    with pytest.raises(ValueError, match=f"{name} keeps 1 cost limit at most, and 2 are given"):
        sx.make(name, spec)


@pytest.mark.parametrize("name", ["cpo", "pcpo"])
def test_projections_refuse_three(name):
    _, spec = problem()
    with pytest.raises(ValueError, match=r"keeps 2 cost limits at most, and 3 are given.*ppo_lag"):
        sx.make(name, spec._replace(cost_limit={"a": 1.0, "b": 2.0, "c": 3.0}))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("ppo_lag", "cpo", "smpo") else pytest.mark.slow)
        for name in ABLE
    ],
)
def test_metrics_of_both_constraints_are_named_and_finite(name):
    env, spec = problem()
    algorithm = sx.make(name, spec, **QUICK)
    _, metrics = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 2))(jax.random.key(0))
    assert {"episode/cost/first", "episode/cost/second", "rollout/cost/first"} <= set(metrics)
    assert all(np.all(np.isfinite(values)) for values in metrics.values())
    assert not any("multiplier" in each and each.count("/") != 2 for each in metrics)


def test_crpo_turns_against_the_constraint_that_is_exceeded_most():
    a = (jnp.asarray(1.0), jnp.array([1.0, 2.0]))
    b = (jnp.asarray(3.0), jnp.array([5.0, 6.0]))
    for pair in ((a, b), (b, a)):
        np.testing.assert_array_equal(crpo._worse(*pair)[1], [5.0, 6.0])
    np.testing.assert_array_equal(
        crpo._worse(a, (a[0], b[1]))[1], [1.0, 2.0]
    )  # of equals the first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pid_lag", {"epochs": 10}),
        ("trpo_pid", {}),
        ("cpo", {}),
        ("pcpo", {}),
        ("crpo", {"tolerance": 0.0}),
        ("smpo", SMPO),
    ],
)
def test_two_limits_are_kept_and_used_at_the_known_optimum(name, settings):
    return_, cost, _ = toy.learnt(name, "ProbeSpending", LIMITS, **settings)
    np.testing.assert_allclose([cost["first"], cost["second"]], LIMITS, atol=0.5)
    spent = (float(cost["first"]), float(cost["second"]))
    # What the costs that it did spend can buy, but for the noise of the actions.
    np.testing.assert_allclose(return_, probes.spending_optimum(spent), atol=0.4)
