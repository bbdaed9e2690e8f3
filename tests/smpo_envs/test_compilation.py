"""Compiler options are those that this version of XLA knows."""

import jax
import jax.numpy as jnp
import pytest

from smpo_envs import compilation


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
