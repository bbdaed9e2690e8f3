"""The counter of configs/suites/scale.py, by hand."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "configs" / "suites"))
    return importlib.import_module("scale")


def test_products_are_counted_as_often_as_loops_go_round(scale):
    def network(w, x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=3)
        return x @ w

    program = jax.make_jaxpr(network)(jnp.ones((4, 4)), jnp.ones((5, 4)))
    # Four products of [5, 4] and [4, 4]: 5 x 4 numbers of 4 products and 4 sums each.
    assert scale.counted(program.jaxpr) == 4 * 5 * 4 * 2 * 4


def test_convolutions_are_refused(scale):
    program = jax.make_jaxpr(jnp.convolve)(jnp.ones(4), jnp.ones(3))
    with pytest.raises(ValueError, match="convolutions are not counted"):
        scale.counted(program.jaxpr)
