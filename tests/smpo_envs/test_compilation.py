"""Compiler options are those that this version of XLA knows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smpo_envs import compilation


@dataclasses.dataclass(frozen=True)
class Record:
    length: float


@pytest.fixture
def asked_anew():
    compilation.options.cache_clear()
    yield
    compilation.options.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_options_compile_the_same_function():
    x = jnp.linspace(0, 1, 7)
    function = lambda x: jnp.sort(x * x)[::-1]  # noqa: E731
    compiled = jax.jit(function).lower(x).compile(compilation.options())
    assert jnp.allclose(compiled(x), function(x))


@pytest.mark.usefixtures("asked_anew")
def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_OLDER_EMITTERS", {"xla_cpu_no_such_option": False})
    assert compilation.options() == {}


def test_one_kernel_computes_the_same_of_arrays_that_are_empty_constant_or_the_same():
    """XLA ends the process over such operands of a call that is to be one kernel."""

    def f(few, scale, none, x, again):
        turns = jax.lax.fori_loop(0, 5, lambda i, y: jnp.sin(y) * scale + i, x)
        mapped = jax.lax.map(lambda row: row * again.sum() + none.sum(), jnp.stack([x, turns]))
        return mapped, turns + few.length

    few = Record(length=2.0)  # not traced
    args = (few, np.float32(0.5), jnp.zeros((2, 0)))
    x = jnp.linspace(0, 1, 300)
    of_x = lambda run: jax.jit(lambda x: run(*args, x, x)).lower(x).compile()  # noqa: E731
    whole, apart = of_x(partial(compilation.one_kernel, f)), of_x(f)
    assert "xla_cpu_small_call" in str(whole.as_text())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), whole(x), apart(x))


def test_one_kernel_has_its_own_program_for_other_platforms():
    def run(x):
        return compilation.one_kernel(lambda x: x + 1, x, elsewhere=lambda x: x - 1)

    assert run(jnp.ones(3)).tolist() == [2, 2, 2]
    lowered = jax.jit(run).trace(jnp.ones(3)).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.subtract" in lowered
    assert "stablehlo.add" not in lowered
    assert "xla_cpu_small_call" not in lowered


def scaled(x, scale):
    return x.astype("float16") * scale


def test_one_kernel_tells_numbers_of_equal_value_and_another_type_apart():
    x = jnp.ones(3)
    for scale in (1.0, np.float32(1), 1, np.float16(1)):
        assert compilation.one_kernel(scaled, x, scale).dtype == scaled(x, scale).dtype


def test_one_kernel_takes_no_whole_numbers_which_it_would_round():
    with pytest.raises(TypeError, match="one is of int32"):
        compilation.one_kernel(lambda x: x, jnp.arange(3))


def test_where_one_kernel_does_not_pay_a_cpu_computes_as_always():
    def run(x):
        return compilation.one_kernel(lambda x: x + 1, x, elsewhere=lambda x: x - 1, pays=False)

    assert run(jnp.ones(3)).tolist() == [2, 2, 2]
    assert "xla_cpu_small_call" not in jax.jit(run).lower(jnp.ones(3)).as_text()


def test_what_is_stored_is_not_computed_anew_for_each_use():
    """XLA takes `lax.optimization_barrier` away before it fuses: then the table has its sums."""

    def table(keep, x):
        a, b = keep((x * x + x, x + x * 2))
        return a[:, None] * a[None] + b[:, None] * b[None]

    def kernels(keep):
        lowered = jax.jit(partial(table, keep)).lower(jnp.ones(64))
        return str(lowered.compile(compilation.options()).as_text()).count(" fusion(")

    x = jnp.arange(3.0)
    assert jnp.array_equal(jax.jit(partial(table, compilation.stored))(x), table(lambda y: y, x))
    assert kernels(lambda y: y) == 1
    assert kernels(compilation.stored) == 3


def test_nothing_is_stored_as_nothing():
    assert compilation.stored(()) == ()
