"""All that training compiles lowers for devices that are not there: GPUs of both makers, and TPUs.

A primitive that only CPUs have is an error of the lowering; what only they run fast, a custom call.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

import smpo_envs
import smpo_jax as sx
from smpo_envs.registry import TASKS
from smpo_jax.algorithms.registry import ALGORITHMS

PLATFORMS = ("cuda", "rocm", "tpu")
PAIRS = [("PointGoal1", algo) for algo in ALGORITHMS] + [
    (task, algo) for task in TASKS if task != "PointGoal1" for algo in ("ppo", "smpo")
]
# A method's in one process, where tasks of the same sizes share what is lowered.
LEARNING = [
    pytest.param(task, algo, marks=pytest.mark.xdist_group(f"learning of {algo}"))
    for task, algo in PAIRS
]
KEY = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
T, N = 64, 4


def require_lowers(function, *arguments):
    text = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).mlir_module()
    assert "stablehlo" in text and not re.findall(r"custom_call\s*@(\w+)", text)
    assert not re.search(r"xf64>|<f64>", text)


@pytest.mark.parametrize("task", TASKS)
def test_stepping_lowers_for_gpus_and_tpus(task):
    single: Any = smpo_envs.make(task)
    single = replace(single, reset=jax.jit(single.reset), step=jax.jit(single.step))  # traced once
    env = smpo_envs.VectorEnv(single, N)

    def play(data):
        state = env.reset(jax.random.wrap_key_data(data))
        return env.step(state, jnp.zeros((N, env.action_size)))[1]

    require_lowers(play, KEY)


@pytest.mark.parametrize(("task", "algo"), LEARNING)
def test_acting_and_learning_lower_for_gpus_and_tpus(task, algo):
    env = sx.augment(smpo_envs.make(task), algo)
    spec = sx.Spec(env.observation_size, env.action_size, N, T, env.episode_length, 10)
    require_learning_lowers(algo, spec)


@lru_cache
def require_learning_lowers(algo, spec):
    """All that a method knows of a task is in `spec`."""
    algorithm = sx.make(algo, spec)

    def start(data):
        return algorithm.init(jax.random.wrap_key_data(data))

    def act(learner, obs, data):
        return algorithm.policy(learner)(obs, jax.random.wrap_key_data(data))

    def learn(learner, transition, data):
        _, rollout = sx.track(spec, sx.start_tracking(spec), transition)
        return algorithm.update(learner, rollout, jax.random.wrap_key_data(data))

    def whole(learner, data):
        obs, one = jnp.zeros((T, N, spec.observation_size)), jnp.zeros((T, N))
        return sx.Transition(obs, *act(learner, obs, data), one, one, one, one, obs)

    learner = jax.eval_shape(start, KEY)
    require_lowers(start, KEY)
    require_lowers(act, learner, jnp.zeros((N, spec.observation_size)), KEY)
    require_lowers(learn, learner, jax.eval_shape(whole, learner, KEY), KEY)


def loops(jaxpr):
    """The `while` loops of a program, wherever they stand in it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from loops(inner)


@pytest.mark.parametrize("algo", ["trpo_lag", "cpo", "pcpo"])
def test_natural_steps_multiply_in_full_precision(algo):
    """Or GPUs and TPUs would round the factors of a Fisher product to 10 or 8 bits."""
    spec = sx.Spec(3, 2, N, T, 10, 10)
    algorithm = sx.make(algo, spec)
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(algorithm.init, key)

    def policy_after(learner, transition, key):
        _, rollout = sx.track(spec, sx.start_tracking(spec), transition)
        return algorithm.update(learner, rollout, key)[0].params["policy"]

    def rollout(learner, key):
        obs, one = jnp.zeros((T, N, 3)), jnp.zeros((T, N))
        return sx.Transition(obs, *algorithm.policy(learner)(obs, key), one, one, one, one, obs)

    program = jax.make_jaxpr(policy_after)(learner, jax.eval_shape(rollout, learner, key), key)
    needed, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    found = [str(loop) for loop in loops(needed)]  # conjugate gradients, line search
    products = re.findall(r"dot_general\[(.*?)\]\s", "".join(found), flags=re.DOTALL)
    assert len(found) >= 2 and len(products) >= 10
    assert all("HIGHEST" in product for product in products)
