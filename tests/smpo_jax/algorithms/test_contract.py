"""What every registered method must do, whatever it is."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_jax as sx
from smpo_jax.algorithms import registry
from smpo_jax.algorithms.improvers import FirstOrder
from smpo_jax.training import loop
from smpo_jax.training.rollout import collect
from smpo_jax.types import Algorithm, Spec, VectorEnv

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Made of parts that others in the list are made of: of them, the two longest checks are slow.
COMPOSED = {
    "focops",
    "ipo",
    "pcpo",
    "pid_lag",
    "ppo_early_terminated",
    "ppo_simmer",
    "rcpo",
    "smpo-paper",
    "trpo",
    "trpo_early_terminated",
    "trpo_lag",
    "trpo_pid",
    "smpo-code",
    "smpo-earlier",
    "smpo-limits",
    "smpo-ppo",
    "trpo_saute",
    "trpo_simmer",
}
every_method = pytest.mark.parametrize("name", sorted(sx.ALGORITHMS))
every_method_by_length = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in COMPOSED else ())
        for name in sorted(sx.ALGORITHMS)
    ],
)


class Built(NamedTuple):
    """A method on a small problem, and its compiled programs, shared by the tests below."""

    algorithm: Algorithm
    env: VectorEnv
    spec: Spec
    chunk: Any  # two iterations, donated
    update: Callable  # (learner, rollout, cost limit, key)


@functools.cache
def built(name):
    env, spec = toy.problem(name)

    def update(learner, rollout, limit, key):
        return toy.small(name, spec._replace(cost_limit=limit)).update(learner, rollout, key)

    algorithm = toy.small(name, spec)
    return Built(algorithm, env, spec, loop.chunk(algorithm, env, spec, 2), jax.jit(update))


def start(name, seed=0):
    return loop.init(built(name).algorithm, built(name).env, jax.random.key(seed))


@functools.cache
def seen(name):
    """A rollout of the untrained policy."""
    algorithm, env, spec, _, _ = built(name)
    state = start(name)
    policy = algorithm.policy(state.learner)
    _, transition = collect(policy, env, state.env_state, jax.random.key(7), spec.rollout_length)
    return annotate(transition, spec)


def annotate(transition, spec):
    _, rollout = sx.track(spec, sx.start_tracking(spec), transition)
    return rollout


def values(tree):
    """Leaves as NumPy arrays, keys as their data."""

    def value(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return [value(x) for x in jax.tree.leaves(tree)]


def assert_equal(a, b):
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y)


@every_method
def test_state_keeps_its_structure_shapes_dtypes_and_weak_types(name):
    algorithm, env, spec, _, _ = built(name)
    before = jax.eval_shape(lambda key: loop.init(algorithm, env, key), jax.random.key(0))
    after, _ = jax.eval_shape(loop.iteration(algorithm, env, spec), before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    new = dict(jax.tree.leaves_with_path(after))
    for path, old in jax.tree.leaves_with_path(before):
        new_type = (new[path].shape, new[path].dtype, new[path].weak_type)
        assert new_type == (old.shape, old.dtype, False), path


@every_method
def test_metrics_are_scalars_in_named_groups(name):
    algorithm, env, spec, _, _ = built(name)
    state = jax.eval_shape(lambda key: loop.init(algorithm, env, key), jax.random.key(0))
    _, metrics = jax.eval_shape(loop.iteration(algorithm, env, spec), state)
    for key, metric in metrics.items():
        group, _, rest = key.partition("/")
        assert group and rest and metric.shape == () and metric.dtype == jnp.float32, key


@every_method
def test_a_chunk_is_traced_once_and_two_go_on_where_one_stopped(name):
    chunk = built(name).chunk
    state, _ = chunk(start(name))
    traces = chunk._cache_size()
    state, metrics = chunk(state)
    assert chunk._cache_size() == traces
    assert state.learner.iteration == 4
    assert all(x.shape == (2,) for x in metrics.values())


@every_method
def test_a_chunk_takes_over_the_buffers_of_its_state(name):
    state = start(name)
    built(name).chunk(state)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.learner.params))


@every_method
def test_a_run_depends_on_its_key_and_on_nothing_hidden(name):
    (a, _), (b, _), (other, _) = (built(name).chunk(start(name, seed)) for seed in (0, 0, 1))
    assert_equal(a, b)
    pairs = zip(values(a.learner.params), values(other.learner.params), strict=True)
    assert any(np.any(x != y) for x, y in pairs)


@every_method_by_length
def test_compiled_equals_eager(name):
    algorithm, _, spec, _, update = built(name)
    rollout, learner = seen(name), start(name).learner
    eager, eager_metrics = algorithm.update(learner, rollout, jax.random.key(1))
    compiled, metrics = update(learner, rollout, spec.cost_limit, jax.random.key(1))
    # The same float32 operations in other groupings; Adam turns a gradient of pure round-off
    # into a step of up to the learning rate (3e-4), of which there are at most 4.
    for x, y in zip(values(eager.params), values(compiled.params), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-4)
    for metric in metrics:
        np.testing.assert_allclose(
            metrics[metric], eager_metrics[metric], rtol=2e-3, atol=1e-4, err_msg=metric
        )


@every_method
@pytest.mark.parametrize(
    "cost, ends, limit",
    [(0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.5, 0.0, 1.0)],
    ids=["no cost", "nothing but cost", "limit 0", "no finished episode"],
)
def test_updates_stay_finite(name, cost, ends, limit):
    _, _, spec, _, update = built(name)
    transition = seen(name).transition
    transition = transition._replace(
        cost=jnp.full_like(transition.cost, cost),
        truncated=transition.truncated * ends,
        terminated=transition.terminated * ends,
    )
    rollout = annotate(transition, spec)
    assert (rollout.episodes.count > 0) == (ends > 0)
    learner = start(name).learner
    for seed in range(3):
        learner, metrics = update(learner, rollout, limit, jax.random.key(seed))
        assert all(np.isfinite(x) for x in metrics.values()), metrics
        assert all(np.all(np.isfinite(x)) for x in values(learner))


@every_method_by_length
def test_a_batch_of_runs_equals_the_runs_one_by_one(name):
    """Over seeds, sizes of the policy's step and cost limits at once."""
    _, env, spec, chunk, _ = built(name)
    settings = registry.hyperparameters(name)
    # A trust-region step has the square root of the divergence for its size.
    is_first_order = isinstance(settings, FirstOrder)
    size, tiny = ("learning_rate", 1e-9) if is_first_order else ("target_kl", 1e-15)
    default = getattr(settings, size)

    def run(key, step_size, limit):
        problem = spec._replace(cost_limit=limit)
        algorithm = toy.small(name, problem, **{size: step_size})
        return loop.train(algorithm, env, problem, key, 2)

    keys = jax.vmap(jax.random.key)(jnp.array([0, 1, 1, 1]))
    sizes = jnp.array([default, default, tiny, default])
    # Environments that show the limit have the same one in all runs of a program.
    shows_limit = bool(registry.augmentation(name, settings, spec.cost_limit).limits)
    last = spec.cost_limit if shows_limit else 99.0
    limits = jnp.array([spec.cost_limit, spec.cost_limit, spec.cost_limit, last])
    batch, metrics = jax.jit(jax.vmap(run))(keys, sizes, limits)

    for i in (0, 1):
        state, alone = chunk(start(name, seed=i))
        # Batched matrix products round differently: see `test_compiled_equals_eager`.
        for x, y in zip(values(batch.learner.params), values(state.learner.params), strict=True):
            np.testing.assert_allclose(x[i], y, atol=5e-4)
        for metric in {"episode/count", "episode/return", "policy/passes"} & set(alone):
            np.testing.assert_allclose(metrics[metric][i], alone[metric], rtol=1e-3)
    log_std = np.abs(batch.learner.params["policy"]["log_std"])
    # Nothing is learnt. Single precision sees no divergence in steps below 1e-4.
    still = 1e-6 if is_first_order else 1e-4
    assert np.all(log_std[1] > 1e-4) and np.all(log_std[2] < still)
    over, is_counted = metrics["episode/over_limit"], metrics["episode/count"][1] > 0
    # Only of those that are told several limits some episodes are of no account.
    assert np.any(is_counted) if shows_limit else np.all(is_counted)
    assert np.all(over[1][is_counted] > 0)
    assert shows_limit or np.all(over[3] == 0)
