"""Native JAX versions of the Safety-Gymnasium tasks.

Names are imported on first use, so that importing the package, or its table of tasks alone, costs
milliseconds.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from smpo_envs.contract import check_env
    from smpo_envs.registry import TASKS, make
    from smpo_envs.safe_env import Environment, SafeEnv, State
    from smpo_envs.shift import Shift
    from smpo_envs.step import Step
    from smpo_envs.vector_env import Curriculum, VectorEnv, VectorState

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contract": ["check_env"],
        "registry": ["TASKS", "make"],
        "safe_env": ["Environment", "SafeEnv", "State"],
        "shift": ["Shift"],
        "step": ["Step"],
        "vector_env": ["Curriculum", "VectorEnv", "VectorState"],
    },
)
