"""Small problems and small algorithms for tests that compile quickly."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from precision import double_precision

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms import registry
from smpo_jax.augmentation import augment
from smpo_jax.core import constraints
from smpo_jax.training import loop

# Sizes that make any method cheap; those a method doesn't have are left out.
SMALL = {
    "hidden": (8,),
    "epochs": 2,
    "minibatches": 2,
    "cost_hidden": (8,),
    "cost_epochs": 1,
    "cost_rounds": 2,
    "cost_minibatches": 2,
    "solver_iterations": 4,
    "warmup_epochs": 0.0,
}


def with_account(algo, env, cost_limit):
    """The environment with what the method adds to it."""
    settings = registry.hyperparameters(algo)
    return augment(env, registry.augmentation(algo, settings, cost_limit))


def problem(
    algo="ppo",
    *,
    num_envs=4,
    rollout_length=10,
    total_iterations=20,
    cost_limit=1.0,
    stagger=True,
    task="ProbeFollow",
    shards=1,
):
    """`follow` with episodes of 10 steps, and what the method adds to it: (env, spec)."""
    single = with_account(algo, smpo_envs.make(task), cost_limit)
    env = smpo_envs.VectorEnv(single, num_envs, stagger=stagger)
    spec = sx.make_spec(
        env,
        rollout_length=rollout_length,
        total_iterations=total_iterations,
        cost_limit=cost_limit,
        shards=shards,
    )
    return env, spec


def small(name, spec, **overrides):
    """The method `name` with small networks and few gradient steps."""
    fields = {field.name for field in dataclasses.fields(registry.hyperparameters(name))}
    settings: dict[str, Any] = {key: value for key, value in SMALL.items() if key in fields}
    return sx.make(name, spec, **{**settings, **overrides})


@functools.cache
def two_iterations(name, cost_limit=1.0, *, shared=(), **overrides):
    """(parameters, metrics) of a small method on a small problem, in double precision.

    `shared` are its functions, init or update, that get the first half of their key: what a method
    does that has something else to do besides, with the other half.
    """
    with double_precision():
        env, spec = problem(name, num_envs=8, cost_limit=cost_limit)
        algorithm = small(name, spec, **overrides)
        if "init" in shared:
            init = algorithm.init
            algorithm = algorithm._replace(init=lambda key: init(jax.random.split(key)[0]))
        if "update" in shared:
            update = algorithm.update
            algorithm = algorithm._replace(
                update=lambda learner, rollout, key: update(
                    learner, rollout, jax.random.split(key)[0]
                )
            )
        state = loop.init(algorithm, env, jax.random.key(0))
        state, metrics = loop.chunk(algorithm, env, spec, 2)(state)
        return jax.device_get((state.learner.params, metrics))


def assert_same(tree, other):
    """Equal leaves, to the last bit."""
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_learns_the_same(run, reference):
    """Policy, value and all metrics of the reference are those of the run, of `two_iterations`.

    Two programs of the same sums are fused differently, so they round differently, and how depends
    on the processor. In double precision that is 1e-16 of a number and at most 1e-13 after a solve,
    while terms that differ at all do so by far more than 1e-9.
    """
    (params, metrics), (other, other_metrics) = run, reference
    same = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    for network in ("policy", "value"):
        jax.tree.map(same, params[network], other[network])
    for metric, value in other_metrics.items():
        if metric != "learner/norm":  # of all networks
            same(metrics[metric], value, err_msg=metric)


def learnt(name, task, cost_limit, *, iterations=300, **overrides):
    """What a method came to on a probe: episode return and cost, means over the last half of a run,
    and the finished episodes of another 128 environments under the last policy."""
    single = with_account(name, smpo_envs.make(task), cost_limit)
    env = smpo_envs.VectorEnv(single, 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=iterations, cost_limit=cost_limit)
    algorithm = sx.make(name, spec, learning_rate=3e-3, minibatches=4, target_kl=0.02, **overrides)
    state, metrics = jax.jit(lambda key: sx.train(algorithm, env, spec, key, iterations))(
        jax.random.key(0)
    )
    return_, cost = (
        constraints.each(lambda name: np.mean(metrics[name][-iterations // 2 :]), names)
        for names in ("episode/return", constraints.named("episode/cost", spec.cost_limit))
    )
    episodes = sx.make_evaluator(algorithm, env, 128)(state.learner, jax.random.key(1))
    return return_, cost, episodes
