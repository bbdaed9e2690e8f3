"""Our tasks in Gymnasium's table, as `smpo_envs/NAME-v0`: importing this module puts them there.

    import gymnasium
    import smpo_envs.gymnasium

    env = gymnasium.make("smpo_envs/PointGoal1-v0")
    envs = gymnasium.make_vec("smpo_envs/PointGoal1-v0", num_envs=64)

Gymnasium 0.29 makes processes unless told `vectorization_mode="custom"`, and takes options of the
many as `vector_kwargs`; from 1.0 on neither is needed.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import lazy_loader
from gymnasium.envs.registration import register, registry

from smpo_envs.registry import TASKS

if TYPE_CHECKING:
    from smpo_envs.gymnasium.envs import GymnasiumEnv, GymnasiumVectorEnv

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"envs": ["GymnasiumEnv", "GymnasiumVectorEnv"]}
)


def _register() -> None:
    """Adds what is not there yet."""
    for name in TASKS:
        task_id = f"smpo_envs/{name}-v0"
        if task_id in registry:
            continue
        register(
            task_id,
            "smpo_envs.gymnasium.envs:GymnasiumEnv",
            vector_entry_point=_vector_entry_point(name),
            kwargs={"env": name},
            # It would refuse six values, and knows nothing of what `check_env` does not.
            disable_env_checker=True,
        )


def _vector_entry_point(name: str) -> Any:
    if gymnasium.__version__.startswith("0."):
        return partial(_vector_of_029, name)
    return "smpo_envs.gymnasium.envs:GymnasiumVectorEnv"


def _vector_of_029(name: str, num_envs: int, **options: Any) -> "GymnasiumVectorEnv":
    """Gymnasium 0.29 keeps a specification's `kwargs` to itself."""
    from smpo_envs.gymnasium.envs import GymnasiumVectorEnv

    return GymnasiumVectorEnv(name, num_envs, **options)


_register()
