"""How fast environments outside JAX step."""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from smpo_envs.host.compat import import_safety_gymnasium


class Halved(Protocol):
    """Environments that are stepped half by half, such as `WorkerEnvs`."""

    num_envs: int
    action_size: int

    @property
    def halves(self) -> Sequence[slice]:
        """The rows of each."""
        ...

    def reset(self, seed: int) -> Any:
        """Begins episodes."""
        ...

    def send(self, half: int, action: np.ndarray) -> None:
        """Begins a step."""
        ...

    def receive(self, half: int) -> Any:
        """Ends a step."""
        ...


class RealThroughput(NamedTuple):
    """Speed of one real environment in one process, random actions.

    Attributes:
        steps_per_second: resets included, one per episode.
        step_seconds: mean time of a step.
        reset_seconds: mean time of a reset, which builds the simulator's model anew.
    """

    steps_per_second: float
    step_seconds: float
    reset_seconds: float


def measure_real(task_id: str, steps: int = 1000) -> RealThroughput:
    """Times `steps` steps of a real environment just as its package makes it, and the resets."""
    env = import_safety_gymnasium().make(task_id, disable_env_checker=True)
    length = int(env.unwrapped.task.num_steps)
    space = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (steps, *space.shape))
    env.reset(seed=0)  # not timed: the first one reads files

    resets, stepping = [], 0.0
    for start in range(0, steps, length):
        began = time.perf_counter()
        env.reset()
        resets.append(time.perf_counter() - began)
        began = time.perf_counter()
        for action in actions[start : start + length]:
            env.step(action)
        stepping += time.perf_counter() - began
    step_seconds, reset_seconds = stepping / steps, float(np.mean(resets))
    return RealThroughput(
        steps_per_second=1 / (step_seconds + reset_seconds / length),
        step_seconds=step_seconds,
        reset_seconds=reset_seconds,
    )


def measure_workers(envs: Halved, steps: int, repeats: int = 3) -> float:
    """Steps/s of environments in workers under random actions, resets included; a median."""
    random = np.random.default_rng(0)
    shapes = [(rows.stop - rows.start, envs.action_size) for rows in envs.halves]
    envs.reset(0)
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        for half, shape in enumerate(shapes):
            envs.send(half, random.uniform(-1, 1, shape))
        for t in range(steps):
            for half, shape in enumerate(shapes):
                envs.receive(half)
                if t + 1 < steps:
                    envs.send(half, random.uniform(-1, 1, shape))
        rates.append(envs.num_envs * steps / (time.perf_counter() - began))
    return statistics.median(rates)
