"""Strict modes for the trainer: array shapes checked, no key used twice, no rank broadcast away."""

import jax
import pytest
from jaxtyping import install_import_hook

# Not the modules of hyperparameters: they say `float`, for the command line, where a test may try
# several values at once as a traced array.
install_import_hook(
    [
        "smpo_jax.core",
        "smpo_jax.networks",
        "smpo_jax.training.evaluation",
        "smpo_jax.training.loop",
        "smpo_jax.training.rollout",
        "smpo_jax.algorithms.recipes",
        "smpo_jax.algorithms.smpo.critic",
        "smpo_jax.algorithms.smpo.gradient",
        "smpo_jax.algorithms.smpo.threshold",
        "smpo_jax.algorithms.smpo.weight",
    ],
    "beartype.beartype",
)


@pytest.fixture(autouse=True)
def strict_jax(request):
    if "experiment" in request.path.parts:  # runs the environments as users do
        yield
        return
    with jax.debug_key_reuse(True), jax.numpy_rank_promotion("raise"):
        yield
