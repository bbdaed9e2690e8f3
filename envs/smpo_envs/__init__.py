"""Native JAX versions of the Safety-Gymnasium tasks.

Attributes load on first use, so that importing the package, or its table of tasks alone, costs
milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo_envs.registry import TASKS, make
    from smpo_envs.safe_env import Environment, SafeEnv, State
    from smpo_envs.shift import Shift
    from smpo_envs.step import Step
    from smpo_envs.vector_env import Curriculum, VectorEnv, VectorState

_HOME = {
    "TASKS": "registry",
    "make": "registry",
    "Environment": "safe_env",
    "SafeEnv": "safe_env",
    "State": "safe_env",
    "Step": "step",
    "Shift": "shift",
    "Curriculum": "vector_env",
    "VectorEnv": "vector_env",
    "VectorState": "vector_env",
}

__all__ = [
    "TASKS",
    "Curriculum",
    "Environment",
    "SafeEnv",
    "Shift",
    "State",
    "Step",
    "VectorEnv",
    "VectorState",
    "make",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
