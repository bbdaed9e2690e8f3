"""What tasks are for accelerators is the same as for CPUs, but for its shape."""

from functools import partial

import accelerator
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from accelerator import shaped_for_an_accelerator
from jax import export
from precision import double_precision

import smpo_envs
from smpo_envs.safety_gym import button, goal, layout, solver
from smpo_envs.safety_gym.arena import AGENT_KEEPOUT
from smpo_envs.sparse import LARGEST_GROUP, GroupSize, apply_where

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
    assert GroupSize(1 / 16, lanes=1).of(BATCH) == 128 > LARGEST_GROUP
    arguments = jnp.zeros(BATCH, bool), jnp.arange(BATCH)
    on_cpu = jax.jit(add_one_where).lower(*arguments).compile().as_text()
    assert on_cpu is not None and "[32]" in on_cpu and "[128]" not in on_cpu
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
    ],
)
def test_a_step_is_the_same_on_an_accelerator_to_rounding(task, num_envs):
    """From each of the states that are passed through here, but for what is drawn anew."""
    env = smpo_envs.VectorEnv(smpo_envs.make(task), num_envs)

    def act(state, key):
        number = state.steps.shape[0]
        action = jax.random.uniform(key, (number, env.action_size), minval=-1.0)
        return env.step(state, action)

    def play(key):
        def go_on(state, key):
            after = act(state, key)
            return after[0], (state, after)

        start, *keys = jax.random.split(key, 21)
        return jax.lax.scan(go_on, env.reset(start), jnp.stack(keys))[1]

    keys = jax.random.split(jax.random.key(0), 21)[1:]
    with double_precision():
        states, here = jax.jit(play)(jax.random.key(0))
        with shaped_for_an_accelerator():
            there = accelerator.jit(lambda *x: jax.lax.map(lambda x: act(*x), x))(states, keys)
    goes_on = ~np.asarray(here[1].truncated, bool)
    for ours, theirs in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        if not jax.dtypes.issubdtype(ours.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(ours[goes_on], theirs[goes_on], rtol=1e-7, atol=1e-7)


FOUR_DISCS = (0.4, 0.4, 0.4, 0.4), 1.0


def keepouts_and_extent(level):
    objects = [kind.keepout for kind, number in level.objects for _ in range(number)]
    return (AGENT_KEEPOUT, *objects), level.extent


@pytest.mark.parametrize(
    ("keepout", "extent"),
    [keepouts_and_extent(goal.LEVELS[1]), keepouts_and_extent(button.LEVELS[1]), FOUR_DISCS],
    ids=["room", "crowded", "four discs"],
)
def test_layouts_in_rounds_have_the_same_distribution(keepout, extent):
    """Those of four discs are far from uniform, since most attempts are dropped."""
    keys = jax.random.split(jax.random.key(0), 1024)

    def sampled():  # few at a time: all go on for as long as the slowest
        one = partial(layout.sample, keepout=keepout, extent=extent)
        return np.asarray(jax.jit(partial(jax.lax.map, one, batch_size=32))(keys), np.float64)

    here = sampled()
    with shaped_for_an_accelerator():
        there = sampled()
    i, j = np.triu_indices(len(keepout), 1)
    reach = np.add(*np.asarray(keepout)[[i, j]])
    assert np.all(np.linalg.norm(there[:, i] - there[:, j], axis=-1) >= reach - 1e-6)
    assert np.all(np.abs(there) <= (extent - np.asarray(keepout))[:, None] + 1e-6)
    for ours, theirs in zip(*map(features, (here, there)), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-4


def features(positions):
    """Of every object the distance from the middle and from the next one; `[2 K, layouts]`."""
    to_next = positions - np.roll(positions, 1, axis=1)
    return np.concatenate([np.linalg.norm(x, axis=-1) for x in (positions, to_next)], axis=1).T


def test_what_is_left_out_takes_no_place_and_no_draws_in_rounds():
    keepout, present = (0.4, 0.3, 0.2, 0.3, 0.4), np.array([True, False, True, False, True])
    key, extent = jax.random.key(3), jnp.full(5, 1.5)
    with shaped_for_an_accelerator():
        some = layout.sample(key, keepout, 1.5, layout.Subset(jnp.asarray(present), extent))
        alone = layout.sample(key, keepout[::2], 1.5)
    np.testing.assert_array_equal(some[~present], layout.ABSENT)
    np.testing.assert_array_equal(some[present], alone)


def test_rounds_end_where_nothing_fits():
    with shaped_for_an_accelerator():
        assert np.all(np.isnan(layout.sample(jax.random.key(0), (0.9, 0.9), 1.0)))
