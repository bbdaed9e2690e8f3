"""Double precision for a while."""

import contextlib
import importlib

import jax


def double_precision() -> contextlib.AbstractContextManager:
    """In its body, JAX's default float is float64."""
    # Older versions of JAX keep the switch elsewhere.
    owner = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return owner.enable_x64(True)
