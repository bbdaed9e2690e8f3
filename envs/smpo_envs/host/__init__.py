"""Environments outside JAX, many of them in worker processes.

The real Safety-Gymnasium needs the extra `safety-gymnasium` and the package itself (see `compat`).
The names below are imported on first use: the workers import this package too, and must not load
jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smpo_envs.host.processes import WorkerError
    from smpo_envs.host.tasks import (
        HostTask,
        gymnasium_task,
        native_name_to_id,
        safety_gymnasium_task,
    )
    from smpo_envs.host.throughput import measure_real, measure_workers
    from smpo_envs.host.vector import WorkerEnvs

_HOME = {
    "HostTask": "tasks",
    "WorkerEnvs": "vector",
    "WorkerError": "processes",
    "gymnasium_task": "tasks",
    "measure_real": "throughput",
    "measure_workers": "throughput",
    "native_name_to_id": "tasks",
    "safety_gymnasium_task": "tasks",
}

__all__ = [
    "HostTask",
    "WorkerEnvs",
    "WorkerError",
    "gymnasium_task",
    "measure_real",
    "measure_workers",
    "native_name_to_id",
    "safety_gymnasium_task",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
