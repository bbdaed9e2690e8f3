"""Every method with discrete actions, and the known optimum of a problem that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_jax as sx
from smpo_envs import probes
from smpo_jax.core.distributions import Categorical
from smpo_jax.training import loop
from smpo_jax.training.rollout import collect

LIMIT = 4.0
UNLIMITED = float("inf")
QUICK = {"ppo", "cpo", "smpo"}  # the others are made of the same parts
every_method = pytest.mark.parametrize("name", sorted(sx.ALGORITHMS))
every_method_by_kind = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(sx.ALGORITHMS)
    ],
)


@every_method
def test_state_keeps_its_structure_shapes_dtypes_and_weak_types(name):
    env, spec = toy.problem(name, task="ProbeChoice")
    assert spec.discrete and spec.action_size == 3
    algorithm = toy.small(name, spec)
    before = jax.eval_shape(lambda key: loop.init(algorithm, env, key), jax.random.key(0))
    after, metrics = jax.eval_shape(loop.iteration(algorithm, env, spec), before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    new = dict(jax.tree.leaves_with_path(after))
    for path, old in jax.tree.leaves_with_path(before):
        assert (new[path].shape, new[path].dtype) == (old.shape, old.dtype), path
        assert not new[path].weak_type, path
    assert all(metric.shape == () for metric in metrics.values())


@every_method_by_kind
@pytest.mark.usefixtures("quick_compilation")
def test_a_method_learns_from_choices_and_stays_finite(name):
    env, spec = toy.problem(name, task="ProbeChoice", cost_limit=2.0)
    algorithm = toy.small(name, spec)
    before = loop.init(algorithm, env, jax.random.key(0))
    params = jax.device_get(before.learner.params)
    state, metrics = loop.chunk(algorithm, env, spec, 3)(before)
    for metric, values in metrics.items():
        assert np.all(np.isfinite(values)) or metric.startswith("episode/"), metric
    changed = jax.tree.map(lambda x, y: np.any(x != y), params, state.learner.params)
    assert any(jax.tree.leaves(changed["policy"]))


def test_a_rollout_has_the_types_of_any_other():
    env, spec = toy.problem(task="ProbeChoice")
    algorithm = toy.small("ppo", spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    _, seen = collect(algorithm.policy(state.learner), env, state.env_state, jax.random.key(1), 5)
    assert isinstance(seen.dist, Categorical)
    assert seen.action.shape == (5, 4, 3) and seen.action.dtype == jnp.float32
    np.testing.assert_array_equal(seen.action.sum(axis=-1), 1.0)
    # An untrained policy finds all of three choices about equally likely.
    np.testing.assert_allclose(seen.log_prob, -np.log(3.0), atol=0.05)


def test_a_spec_of_the_other_kind_is_refused():
    env, spec = toy.problem(task="ProbeChoice")
    other = spec._replace(discrete=False)
    with pytest.raises(ValueError, match="the spec is of continuous actions, the environments"):
        loop.iteration(toy.small("ppo", other), env, other)
    with pytest.raises(ValueError, match="policy='squashed' is for continuous actions"):
        toy.small("ppo", spec, policy="squashed")


def test_ppo_runs_where_nothing_forbids_it():
    return_, cost, episodes = toy.learnt("ppo", "ProbeChoice", UNLIMITED, iterations=60)
    assert return_ > 9.5 and cost > 9.0  # of 10, in the second half of the run
    np.testing.assert_allclose(episodes.return_, probes.choice_optimum(UNLIMITED), rtol=1e-5)


# The optimum is a mixture, and one price makes all mixtures of two choices equally good: a
# multiplier swings about it. Return is linear in cost there, so that means over time are on it.
CONSTRAINED = {
    "cpo": {},
    "pid_lag": {"epochs": 10},
    "smpo": {
        "epoch_steps": 1280.0,  # an iteration
        "weight_temperature": 16.0,
        "shift_amount": 0.5,
        "critic_gradient_coefficient": 4.0,
        "threshold_minimum": 4.0,
        # From the start: where nothing costs yet, a policy of choices becomes deterministic, and
        # one that never does anything else has nothing to learn from.
        "warmup_epochs": 0.0,
        "threshold_factor": 2.0,
        "target_epochs": 0.0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_constrained_method_ends_at_the_best_mixture(name):
    return_, cost, _ = toy.learnt(name, "ProbeChoice", LIMIT, **CONSTRAINED[name])
    np.testing.assert_allclose(cost, LIMIT, atol=0.4)
    np.testing.assert_allclose(return_, probes.choice_optimum(float(cost)), atol=0.3)


@pytest.mark.parametrize("name", [pytest.param("ppo", marks=pytest.mark.slow), "smpo"])
@pytest.mark.usefixtures("quick_compilation")
def test_squashed_actions_are_a_setting_and_stay_within_bounds(name):
    env, spec = toy.problem(name)
    algorithm = toy.small(name, spec, policy="squashed", initial_log_std=1.0)
    state, metrics = loop.chunk(algorithm, env, spec, 2)(
        loop.init(algorithm, env, jax.random.key(0))
    )
    finite = {name: x for name, x in metrics.items() if not name.startswith("episode/")}
    assert all(np.all(np.isfinite(x)) for x in finite.values())
    obs = jnp.zeros((200, 1))
    action, log_prob, dist = algorithm.policy(state.learner)(obs, jax.random.key(1))
    assert isinstance(dist, sx.SquashedGaussian)
    assert np.abs(action).max() <= 1 and np.abs(action).max() > 0.9
    assert np.all(np.isfinite(log_prob))
