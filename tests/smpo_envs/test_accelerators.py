"""What tasks are for accelerators is the same as for CPUs, but for its shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerator import shaped_for_an_accelerator
from jax import export
from precision import double_precision

import smpo_envs
from smpo_envs.safety_gym import solver
from smpo_envs.sparse import LARGEST_GROUP, apply_where, group_size

BATCH = 1024


def add_one_where(predicate, x):
    return jax.vmap(lambda p, x: apply_where(lambda x: x + 1, p, x))(predicate, x)


@pytest.mark.parametrize("hits", [0, 1, 100, BATCH])
def test_large_groups_change_the_same_members(hits):
    predicate = np.random.default_rng(0).permutation(BATCH) < hits
    x = jnp.arange(BATCH)
    with shaped_for_an_accelerator():
        found = jax.jit(add_one_where)(predicate, x)
    np.testing.assert_array_equal(found, x + predicate)


def test_groups_are_small_on_a_cpu_and_one_for_all_that_is_expected_elsewhere():
    assert group_size(BATCH, 1 / 16) == 128 > LARGEST_GROUP
    arguments = jnp.zeros(BATCH, bool), jnp.arange(BATCH)
    on_cpu = jax.jit(add_one_where).lower(*arguments).compile().as_text()
    assert "[32]" in on_cpu and "[128]" not in on_cpu
    assert (
        "128xi32"
        in export.export(jax.jit(add_one_where), platforms=["cuda"])(*arguments).mlir_module()
    )


@pytest.mark.parametrize("size", [2, 21])
def test_both_eliminations_solve(size):
    factor = np.random.default_rng(size).normal(size=(5, size, size))
    matrix = factor @ np.swapaxes(factor, 1, 2) + np.eye(size)
    right = np.random.default_rng(0).normal(size=(5, size))
    expected = np.linalg.solve(matrix, right[..., None])[..., 0].T
    with double_precision():
        table = jnp.moveaxis(jnp.asarray(np.concatenate([matrix, right[..., None]], 2)), 0, 2)
        np.testing.assert_allclose(solver.solve_positive(table), expected, rtol=1e-9)
        with shaped_for_an_accelerator():
            np.testing.assert_allclose(solver.solve_positive(table), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("task", "num_envs"),
    [
        ("PointGoal0", 8),
        pytest.param("PointGoal1", 32, marks=pytest.mark.slow),
        pytest.param("PointGoal2", 32, marks=pytest.mark.slow),
        pytest.param("PointButton1", 32, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_the_same_on_an_accelerator_to_rounding(task, num_envs):
    """From each of the states that are passed through here."""
    env = smpo_envs.VectorEnv(smpo_envs.make(task), num_envs)

    def act(state, key):
        number = state.steps.shape[0]
        action = jax.random.uniform(key, (number, env.action_size), minval=-1.0)
        return env.step(state, action)

    def play(key):
        start, *keys = jax.random.split(key, 21)
        return jax.lax.scan(
            lambda state, key: (act(state, key)[0], state), env.reset(start), jnp.stack(keys)
        )[1]

    with double_precision():
        states = jax.jit(play)(jax.random.key(0))
        states = jax.tree.map(lambda x: x.reshape(20 * num_envs, *x.shape[2:]), states)
        _, here = jax.jit(act)(states, jax.random.key(1))
        with shaped_for_an_accelerator():
            _, there = jax.jit(act)(states, jax.random.key(1))
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)
