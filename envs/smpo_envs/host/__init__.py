"""The real Safety-Gymnasium, as a batch of environments in worker processes.

Needs the extra `safety-gymnasium` and the package itself (see `compat`). The names below are
imported on first use: the workers import this package too, and must not load jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smpo_envs.host.throughput import measure_real
    from smpo_envs.host.vector import (
        SafetyGymnasiumVector,
        WorkerError,
        native_name_to_id,
        vector_env,
    )

_HOME = {
    "SafetyGymnasiumVector": "vector",
    "WorkerError": "vector",
    "measure_real": "throughput",
    "native_name_to_id": "vector",
    "vector_env": "vector",
}

__all__ = [
    "SafetyGymnasiumVector",
    "WorkerError",
    "measure_real",
    "native_name_to_id",
    "vector_env",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
