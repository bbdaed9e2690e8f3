"""Double precision for a while."""

import contextlib
import importlib

import jax

from smpo_envs import compilation

# Compiler options for a test whose outcome depends on the last bits: XLA emits the code of fusions
# as it does for users, and not as `conftest.py` says, where that makes a difference.
ROUNDED_AS_FOR_USERS = dict.fromkeys(compilation.options(), True)


def double_precision() -> contextlib.AbstractContextManager:
    """In its body, JAX's default float is float64."""
    # Older versions of JAX keep the switch elsewhere.
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return owner.enable_x64(True)
