"""Our environments behind brax's interface, for brax's own trainers; brax is imported on use."""

from typing import TYPE_CHECKING

from smpo_envs.contract import check_shapes
from smpo_envs.safe_env import SafeEnv

if TYPE_CHECKING:
    from smpo_envs.brax_env import BraxEnv


def to_brax(env: SafeEnv) -> "BraxEnv":
    """The same environment as a `brax.envs.Env`, with the cost in `info` and in `metrics`.

    brax's trainers know nothing of costs, but sum what is in `metrics` over an episode: they log
    its cost as `eval/episode_cost`, several costs each by its name. Their auto-reset plays the
    first layout of each environment for ever: use `VectorEnv` for fresh ones. The time limit is
    theirs, `episode_length`. They also call `jax.device_put_replicated`, which jax 0.10 has dropped
    and brax 0.14.2, the newest, still needs: where jax has none, it gets one here.

    Raises:
        ImportError: brax is not installed.
        ValueError: the environment breaks the contract (see `contract.check_shapes`).
    """
    names = check_shapes(env)
    try:
        from smpo_envs import brax_env
    except ImportError as error:
        raise ImportError(
            f'to_brax needs the package brax ({error}): pip install "brax>=0.12"'
        ) from error
    brax_env.restore_device_put_replicated()
    return brax_env.BraxEnv(env, names)
