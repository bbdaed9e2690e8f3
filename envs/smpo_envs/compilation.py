"""How programs are compiled that would otherwise take long."""

import functools

import jax

_OLDER_EMITTERS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def options() -> dict[str, str | bool]:
    """What to hand to `jax.jit` or `Lowered.compile` as `compiler_options`.

    With XLA's older code generator for CPUs contact programs compile in three quarters of the time
    and run as fast. Empty on other platforms, and where XLA knows it no more.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options=_OLDER_EMITTERS)
    except jax.errors.JaxRuntimeError:
        return {}
    return _OLDER_EMITTERS
