"""A worker process: steps some real environments as told on its standard input.

Started by `vector`, which calls `main` in a fresh interpreter. A command is a pickled pair (name,
argument), a reply a pickled pair (`"ok"`, result) or (`"error"`, text). It ends when its input
does, so it never outlives the process that started it, however that one ends. No jax in here.
"""

import os
import pickle
import signal
import sys
import traceback
from typing import Any, NamedTuple

import numpy as np

from smpo_envs.host.compat import import_safety_gymnasium, leave_out_the_sky
from smpo_envs.step import Step


class Sizes(NamedTuple):
    """What a worker says of its environments when it is ready."""

    observation: int
    action: int
    episode_length: int


class Environments:
    """`k` real environments of one task, stepped in turn.

    Attributes:
        envs: the environments themselves, as the real package makes them.
    """

    def __init__(self, task_id: str, count: int) -> None:
        package = import_safety_gymnasium()
        leave_out_the_sky()
        # The checker judges spaces and dtypes by the rules of 2023's NumPy.
        self.envs = [package.make(task_id, disable_env_checker=True) for _ in range(count)]

    def sizes(self) -> Sizes:
        """Sizes of one environment."""
        env = self.envs[0]
        return Sizes(
            observation=env.observation_space.shape[0],
            action=env.action_space.shape[0],
            episode_length=int(env.unwrapped.task.num_steps),
        )

    def reset(self, seeds: list[int]) -> np.ndarray:
        """First observations `[k, O]`; each random stream starts at its seed."""
        return np.stack(
            [env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]
        )

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Step[np.ndarray]]:
        """One step of each, `action` `[k, A]`, and a reset (its stream goes on) at an end.

        Returns:
            What to act on next, `[k, O]`: the first observation of a new episode where one has
            ended; and the step. All are float64.
        """
        # The package asks for an array without a copy, which NumPy 2 refuses for anything else.
        steps = [
            _step(env, row)
            for env, row in zip(self.envs, np.asarray(action, np.float64), strict=True)
        ]
        obs, *seen = map(np.stack, zip(*steps, strict=True))
        return obs, Step(*seen)

    def restart(self, over: np.ndarray) -> np.ndarray:
        """First observations `[k, O]` of new episodes where `over`; their streams go on."""
        shape = self.envs[0].observation_space.shape
        return np.stack(
            [
                env.reset()[0] if ended else np.zeros(shape)
                for env, ended in zip(self.envs, over, strict=True)
            ]
        )


def _step(env: Any, action: np.ndarray) -> tuple[Any, ...]:
    next_obs, reward, cost, terminated, truncated, _ = env.step(action)
    obs = env.reset()[0] if terminated or truncated else next_obs
    return obs, float(reward), float(cost), float(terminated), float(truncated), next_obs


def main() -> None:
    """Serves commands until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    commands = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the package prints must not get between the replies

    environments: Environments | None = None
    while True:
        try:
            name, argument = pickle.load(commands)
        except EOFError:
            return
        try:
            if name == "make":
                environments = Environments(*argument)
                result: Any = environments.sizes()
            else:
                result = getattr(environments, name)(argument)
            reply = ("ok", result)
        except Exception as error:
            traceback.print_exc()
            reply = ("error", f"{type(error).__name__}: {error}")
        pickle.dump(reply, replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()
