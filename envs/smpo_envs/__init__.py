"""Native JAX versions of the Safety-Gymnasium tasks.

Names are imported on first use, so that importing the package, or its table of tasks alone, costs
milliseconds.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from smpo_envs.adapters import as_safe_env
    from smpo_envs.contract import check_env
    from smpo_envs.from_brax import from_brax, velocity_cost
    from smpo_envs.from_gymnax import from_gymnax
    from smpo_envs.naming import make
    from smpo_envs.registry import TASKS
    from smpo_envs.safe_env import Environment, SafeEnv, State
    from smpo_envs.shift import Shift
    from smpo_envs.step import Step
    from smpo_envs.to_brax import to_brax
    from smpo_envs.to_gymnax import to_gymnax
    from smpo_envs.vector_env import Curriculum, VectorEnv, VectorState

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["as_safe_env"],
        "contract": ["check_env"],
        "from_brax": ["from_brax", "velocity_cost"],
        "from_gymnax": ["from_gymnax"],
        "naming": ["make"],
        "registry": ["TASKS"],
        "safe_env": ["Environment", "SafeEnv", "State"],
        "shift": ["Shift"],
        "step": ["Step"],
        "to_brax": ["to_brax"],
        "to_gymnax": ["to_gymnax"],
        "vector_env": ["Curriculum", "VectorEnv", "VectorState"],
    },
)
