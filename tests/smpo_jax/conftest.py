"""Strict modes of JAX for the trainer: no key used twice, no silent broadcasting of ranks."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests whose time is XLA's and whose outcome its optimisations must not change.

    Drops the programs when the module is done: each holds megabytes, and there are hundreds.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_jax(request):
    if "experiment" in request.path.parts:  # runs the environments as users do
        yield
        return
    with jax.debug_key_reuse(True), jax.numpy_rank_promotion("raise"):
        yield
