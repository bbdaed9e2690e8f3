"""Double precision for a while."""

import contextlib

import jax


def double_precision() -> contextlib.AbstractContextManager:
    """In its body, JAX's default float is float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before it moved

    return enable_x64()
