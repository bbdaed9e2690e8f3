"""Strict modes of JAX for the trainer: no key used twice, no silent broadcasting of ranks."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_jax(request):
    if "experiment" in request.path.parts:  # runs the environments as users do
        yield
        return
    with jax.debug_key_reuse(True), jax.numpy_rank_promotion("raise"):
        yield
