"""A worker process: steps its share of the environments when told to.

Started by `vector`, which calls `main` in a fresh interpreter. Commands and replies are small
pickled pairs on a socket; observations and the like are in shared memory (`shared`). It ends when
the process that started it does, however that one ends. No jax in here.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from smpo_envs.host import camera, shared
from smpo_envs.host.single import Maker, Sizes

POLL = 1.0  # seconds between two looks at whether the parent is still there


class Share(NamedTuple):
    """What is to be a worker's.

    Attributes:
        maker: how it makes an environment.
        sizes: of one.
        episode_length: steps after which an episode is cut.
        num_envs: environments of all workers.
        memory: descriptor of the memory they share.
        halves: its environments in each half, first and last + 1.
        films: whether pictures will be taken of them.
    """

    maker: Maker
    sizes: Sizes
    episode_length: int
    num_envs: int
    memory: int
    halves: tuple[tuple[int, int], ...]
    films: bool


class Environments:
    """A worker's environments, stepped in turn, half by half."""

    def __init__(self, share: Share) -> None:
        records = shared.attach(share.memory, share.num_envs, share.sizes)
        self._records = [records[start:stop] for start, stop in share.halves]
        self._envs = [[share.maker.make(films=share.films) for _ in own] for own in self._records]
        self._elapsed = [np.zeros(len(own), int) for own in self._records]
        self._episode_length = share.episode_length

    def reset(self, half: int) -> None:
        """First observations of new episodes; each random stream starts at its seed."""
        records = self._records[half]
        self._elapsed[half][:] = records["age"]
        for i, env in enumerate(self._envs[half]):
            records["obs"][i] = env.reset(int(records["seed"][i]))

    def restart(self, half: int) -> None:
        """New episodes where `over`; their streams go on."""
        records = self._records[half]
        for i, env in enumerate(self._envs[half]):
            if records["over"][i]:
                records["obs"][i] = env.reset(None)
                self._elapsed[half][i] = 0

    def step(self, half: int) -> None:
        """One step of each, and a reset where an episode ends."""
        records, elapsed = self._records[half], self._elapsed[half]
        elapsed += 1
        for i, env in enumerate(self._envs[half]):
            obs, reward, cost, terminated, truncated = env.step(records["action"][i])
            truncated = (truncated or elapsed[i] >= self._episode_length) and not terminated
            records["next_obs"][i] = obs
            if terminated or truncated:
                obs = env.reset(None)
                elapsed[i] = 0
            records["obs"][i] = obs
            records["reward"][i] = reward
            records["cost"][i] = cost
            records["terminated"][i] = terminated
            records["truncated"][i] = truncated

    def picture(self, _: None) -> np.ndarray:
        """The first environment as its package shows it, `[H, W, 3]`."""
        return self._envs[0][0].picture()

    def step_seconds(self, _: None) -> float:
        """What a step of the first takes in its world, s."""
        return camera.step_seconds(self._envs[0][0].env)


def main(descriptor: int, parent: int) -> None:
    """Serves commands until the other end of the socket is closed."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group: they are the parent's to handle.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.dup2(2, 1)  # what the packages print goes to the log
    try:
        _serve(Connection(descriptor))
    except (EOFError, ConnectionError):
        return


def _serve(connection: Connection) -> None:
    environments: Environments | None = None

    def take(share: Share) -> None:
        nonlocal environments
        environments = Environments(share)

    def look(maker: Maker) -> Sizes:
        env = maker.make()
        env.reset(0)
        env.step(np.zeros(env.sizes.action))  # which finds a cost that is not there
        return env.sizes

    own: dict[str, Callable[[Any], Any]] = {"take": take, "look": look}
    while True:
        name, argument = connection.recv()
        try:
            result = (own.get(name) or getattr(environments, name))(argument)
            reply = ("ok", result)
        except Exception as error:
            traceback.print_exc()
            # Of our own ValueErrors and ImportErrors the text says it all.
            is_plain = type(error) in (ValueError, ImportError)
            reply = ("error", str(error) if is_plain else f"{type(error).__name__}: {error}")
        connection.send(reply)


def _end_with(parent: int) -> None:
    """Ends the process when the parent has, even in the middle of a step."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)
