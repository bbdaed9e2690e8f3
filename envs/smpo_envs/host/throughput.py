"""How fast the real package steps, for comparison."""

import time
from typing import NamedTuple

import numpy as np

from smpo_envs.host.compat import import_safety_gymnasium


class RealThroughput(NamedTuple):
    """Speed of one real environment in one process, random actions.

    Attributes:
        steps_per_second: resets included, one per episode.
        step_seconds: mean time of a step.
        reset_seconds: mean time of a reset, which compiles the MuJoCo model anew.
    """

    steps_per_second: float
    step_seconds: float
    reset_seconds: float


def measure_real(task_id: str, steps: int = 1000) -> RealThroughput:
    """Times `steps` steps (within an episode) and two resets of a real environment."""
    env = import_safety_gymnasium().make(task_id, disable_env_checker=True)
    episode_length = int(env.unwrapped.task.num_steps)
    space = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (steps, *space.shape))
    env.reset(seed=0)  # the first one also reads files

    resets, stepping = 0.0, 0.0
    for _ in range(2):
        start = time.perf_counter()
        env.reset()
        resets += time.perf_counter() - start
    start = time.perf_counter()
    for i, action in enumerate(actions):
        if i and i % episode_length == 0:
            pause = time.perf_counter()
            env.reset()
            start += time.perf_counter() - pause
        _, _, _, terminated, _, _ = env.step(action)
        if terminated:
            raise RuntimeError(f"an episode of {task_id} terminated while it was measured")
    stepping = time.perf_counter() - start
    step_seconds, reset_seconds = stepping / steps, resets / 2
    return RealThroughput(
        steps_per_second=1 / (step_seconds + reset_seconds / episode_length),
        step_seconds=step_seconds,
        reset_seconds=reset_seconds,
    )
