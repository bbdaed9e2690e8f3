"""One order of all that devices do together."""

import jax
import jax.numpy as jnp
import messages
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from smpo_jax.training.devices import make_mesh
from smpo_jax.training.meetings import in_order


@jax.jit
def halve(x):
    """A loop within a function, until the mean over all is small; a constant beside it."""
    return jax.lax.while_loop(lambda x: jnp.mean(x) > jnp.arange(3.0)[1], lambda x: 0.5 * x, x)


def steps(x):
    """A loop of sums that depend on each other."""

    def step(total, _):
        total = total + jnp.mean(x * total)
        return total, total

    return jax.lax.scan(step, jnp.ones(()), length=3)


def apart(x, key):
    """Loops and sums of which hardly any needs another."""
    noise_key, key = jax.random.split(key)
    noise = jax.random.normal(noise_key, x.shape)
    return {
        "mean": jnp.mean(x),
        "halved": halve(4.0 * x),
        "steps": steps(x + noise),
        "branch": jax.lax.cond(jnp.max(x) > 0, lambda: jnp.sum(noise), lambda: 1.0),
        "again": steps(2.0 * x),
        "count": x.size,
        "key": key,
    }


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)


@pytest.fixture
def given():
    mesh = make_mesh(2, 4)
    assert mesh
    x = jax.device_put(
        jnp.arange(32.0).reshape(8, 4), NamedSharding(mesh, PartitionSpec(None, "envs"))
    )
    return mesh, x


def test_loops_come_one_after_the_other_and_the_results_are_the_same(given):
    mesh, x = given
    as_it_is, ordered = (
        jax.jit(f).lower(x, jax.random.key(0)).compile() for f in (apart, in_order(apart, mesh))
    )
    assert messages.unordered(as_it_is.as_text()), "nothing to put in order"
    assert messages.unordered(ordered.as_text()) == []
    one, other = (program(x, jax.random.key(0)) for program in (as_it_is, ordered))
    assert (one.pop("key") == other.pop("key")).all()
    same(one, other)


def test_seeds_side_by_side_are_put_in_order_too(given):
    mesh, x = given
    one, other = (
        jax.jit(jax.vmap(f, in_axes=(None, 0)))(x, jax.random.split(jax.random.key(0), 3))
        for f in (apart, in_order(apart, mesh))
    )
    for name in ("halved", "steps", "branch"):
        same(one[name], other[name])


def test_one_device_computes_what_it_computed():
    assert in_order(apart, None) is apart
