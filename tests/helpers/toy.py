"""Small problems and small algorithms for tests that compile quickly."""

import dataclasses

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms import registry
from smpo_jax.augmentation import augment

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


def problem(
    algo="ppo",
    *,
    num_envs=4,
    rollout_length=10,
    total_iterations=20,
    cost_limit=1.0,
    stagger=True,
    task="ProbeFollow",
):
    """`follow` with episodes of 10 steps, and what the method adds to it: (env, spec)."""
    single = augment(smpo_envs.make(task), registry.augmentation(algo, cost_limit))
    env = smpo_envs.VectorEnv(single, num_envs, stagger=stagger)
    spec = sx.make_spec(
        env,
        rollout_length=rollout_length,
        total_iterations=total_iterations,
        cost_limit=cost_limit,
    )
    return env, spec


def small(name, spec, **overrides):
    """The method `name` with small networks and few gradient steps."""
    fields = {field.name for field in dataclasses.fields(registry.hyperparameters(name))}
    sizes = {key: value for key, value in SMALL.items() if key in fields}
    return sx.make(name, spec, **{**sizes, **overrides})
