"""The sparse cond: same results as a plain one, at the price of the hits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from smpo_envs.sparse import GroupSize, apply_where, in_chunks


def double(tree):
    return {"x": 2 * tree["x"], "n": tree["n"] + 1}


def operand(*shape):
    size = int(np.prod(shape))
    x = jnp.arange(3.0 * size).reshape(*shape, 3)
    return {"x": x, "n": jnp.zeros(shape, jnp.int32)}


def expected(predicate, tree):
    return jax.tree.map(
        lambda new, old: np.where(
            predicate.reshape(predicate.shape + (1,) * (old.ndim - predicate.ndim)), new, old
        ),
        double(tree),
        tree,
    )


@pytest.mark.parametrize("shape", [(), (7,), (40,), (5, 16), (2, 3, 9)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_apply_where_is_a_cond_under_any_nesting_of_vmap(shape, share):
    predicate = np.random.default_rng(0).random(shape) < share
    f = lambda p, t: apply_where(double, p, t)  # noqa: E731
    for _ in shape:
        f = jax.vmap(f)
    result = jax.jit(f)(jnp.asarray(predicate), operand(*shape))
    jax.tree.map(assert_array_equal, result, expected(predicate, operand(*shape)))


@pytest.mark.parametrize("batch", [(64,), (4, 64)])
def test_apply_where_does_only_the_work_of_the_hits(batch):
    groups = []

    def f(x):
        # Called once for every member of a group, each time a group is worked on.
        jax.debug.callback(lambda: groups.append(1))
        return x + 1

    g = lambda p, x: apply_where(f, p, x)  # noqa: E731
    for _ in batch:
        g = jax.vmap(g)
    g = jax.jit(g)
    size = GroupSize(1 / 16, lanes=1).on_cpu(int(np.prod(batch)))
    for hits, passes in ((0, 0), (1, 1), (size, 1), (size + 1, 2)):
        predicate = jnp.arange(np.prod(batch)).reshape(batch) % 5 == 0
        predicate &= jnp.cumsum(predicate).reshape(batch) <= hits
        groups.clear()
        out = g(predicate, jnp.zeros(batch))
        jax.effects_barrier()
        assert int(out.sum()) == hits
        assert len(groups) in (passes, passes * size)  # callbacks may be batched


@pytest.mark.parametrize("grouped", [True, False])
def test_apply_where_reads_a_context_without_changing_it(grouped):
    def f(x, scale, keys):
        return x * scale + (0 if keys is None else 1)

    predicate, x = jnp.arange(20) % 3 == 0, jnp.arange(20.0)
    context = (jnp.arange(1.0, 21.0), jax.random.split(jax.random.key(0), 20))

    def one(p, x, *context):
        return apply_where(f, p, x, *context, grouped=grouped)

    result = jax.jit(jax.vmap(one))(predicate, x, *context)
    assert_array_equal(result, jnp.where(predicate, x * context[0] + 1, x))
    # Nested, with a context that does not vary along the outer axis.
    outer = jax.vmap(jax.vmap(one), in_axes=(0, 0, None, None))
    both = outer(jnp.stack([predicate, ~predicate]), jnp.stack([x, x]), *context)
    assert_array_equal(both[0], result)
    assert_array_equal(both[1], jnp.where(predicate, x, x * context[0] + 1))


@pytest.mark.parametrize(
    ("batch", "rate", "size"),
    [(4096, 1e-3, 9), (4096, 1 / 16, 512), (100, 1e-3, 1), (100, 1 / 16, 13), (8, 1.0, 16)],
)
def test_group_size_is_twice_the_hits_to_be_expected(batch, rate, size):
    assert GroupSize(rate, lanes=1).of(batch) == size


@pytest.mark.parametrize(
    ("expected", "size"), [(1, 2), (4, 8), (5, 16), (8, 16), (9, 32), (40, 32)]
)
def test_on_a_cpu_lanes_are_filled_if_more_than_half_are(expected, size):
    assert GroupSize(expected / 1024, lanes=16).on_cpu(1024) == size


def test_apply_where_carries_keys_and_empty_arrays():
    def f(tree):
        key, empty = tree
        return jax.random.split(key)[0], empty

    keys = jax.random.split(jax.random.key(0), 6).reshape(2, 3)
    tree = (keys, jnp.zeros((2, 3, 0, 2)))
    predicate = jnp.array([[True, False, False], [False, False, True]])
    g = jax.vmap(jax.vmap(lambda p, t: apply_where(f, p, t)))
    moved, empty = jax.jit(g)(predicate, tree)
    assert empty.shape == (2, 3, 0, 2)
    before, after = jax.random.key_data(keys), jax.random.key_data(moved)
    assert_array_equal(np.any(before != after, axis=-1), predicate)
    assert_array_equal(after[0, 0], jax.random.key_data(jax.random.split(keys[0, 0])[0]))


def test_apply_where_works_in_a_scan():
    def step(x, i):
        return jax.vmap(lambda p, t: apply_where(lambda y: y * 0, p, t))(x >= 3, x) + 1, x

    _, seen = jax.lax.scan(step, jnp.array([0, 2]), length=6)
    assert_array_equal(seen.T, [[0, 1, 2, 3, 1, 2], [2, 3, 1, 2, 3, 1]])


def halvings(x):
    """How often each number can be halved until it is below 1."""

    def halve(carry):
        x, number = carry
        return x / 2, number + (x >= 1)

    return jax.lax.while_loop(lambda carry: jnp.any(carry[0] >= 1), halve, (x, 0 * x))[1]


@pytest.mark.parametrize("batch", [(), (5,), (8,), (21,), (3, 7)])
def test_in_chunks_is_what_the_whole_batch_gives(batch):
    x = 1.5 ** jnp.arange(np.prod(batch, dtype=int)).reshape(batch)
    f = lambda x: in_chunks(halvings, x, 8)  # noqa: E731
    for _ in batch:
        f = jax.vmap(f)
    assert_array_equal(jax.jit(f)(x), halvings(x.reshape(-1)).reshape(batch))


@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="cannot be asked for")
@pytest.mark.parametrize("batch", [8, 21])
def test_a_chunk_is_one_kernel_on_a_cpu(batch):
    program = jax.jit(jax.vmap(lambda x: in_chunks(halvings, x, 8)))
    compiled = program.lower(jnp.ones(batch)).compile().as_text()
    assert compiled is not None
    kept = [line for line in compiled.splitlines() if 'inlineable="false"' in line]
    assert sum(" call(" in line and 'xla_cpu_small_call="true"' in line for line in kept) == 1
