"""Many environments outside JAX, stepped in worker processes over shared memory."""

import os
import time
import weakref
from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from smpo_envs.host import shared
from smpo_envs.host.processes import (
    NO_EXTRA,
    START_LIMIT,
    Crew,
    GoneError,
    WorkerError,
    WorkerProcess,
)
from smpo_envs.host.single import Sizes
from smpo_envs.host.tasks import HostTask
from smpo_envs.host.worker import Share
from smpo_envs.step import HostStep, by_name

TIME_LIMIT = 120.0  # seconds that a worker may take for a step of its share, resets included
REPLACEMENTS = 3  # workers replaced in an hour, at most
HOUR = 3600.0
# How MuJoCo and pygame draw where there is no screen. Only for films: MuJoCo does not even import
# where there is no EGL to be had.
WITHOUT_A_SCREEN = MappingProxyType({"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy"})


class WorkerEnvs:
    """`num_envs` environments, shared out over worker processes; they reset themselves.

    The workers are fresh interpreters, not forks: the trainer's process is full of threads. They
    start with the first `reset`. What an environment does depends on its seed and actions alone,
    not on how many workers there are.

    Each half of the environments is stepped on its own: while the workers step one, the policy can
    act for the other. `send` and `receive` take turns in each half.

    A worker that dies, or that does not answer in time, is replaced, at most three times an hour.
    The episodes of its environments are lost: the step they were in is reported as cut and `lost`,
    and new ones begin. `notices` tells of it.

    Use it as a context manager, or call `close`; after an error it is closed.

    Attributes:
        num_envs: `N`.
        observation_size: `O`.
        action_size: `A`.
        episode_length: steps after which an episode is cut.
        cost_names: what each cost is called.
        discrete: see `HostTask`, as `first_action`, `observation_names` and `observation_shape`.
        halves: the rows of each; one half where there is only one environment.
        first_ages: steps that each environment's clock has behind it at `reset`.
    """

    def __init__(
        self,
        task: HostTask,
        num_envs: int,
        processes: int | None = None,
        *,
        stagger: bool = False,
        films: bool = False,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        """Starts nothing yet.

        Args:
            task: what they are.
            num_envs: number of environments.
            processes: number of workers; by default one per CPU, but no more than environments.
            stagger: clocks of first episodes start at evenly spread times (see `VectorEnv`).
            films: whether `picture` will be called, for which workers start as it takes.
            time_limit: seconds after which a worker counts as hung.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs} must be at least 1")
        processes = min(num_envs, _cores()) if processes is None else processes
        if not 1 <= processes <= num_envs:
            raise ValueError(f"processes={processes} is not between 1 and num_envs={num_envs}")
        self.task = task
        self.num_envs = num_envs
        self.observation_size = task.observation_size
        self.action_size = task.action_size
        self.episode_length = task.episode_length
        self.cost_names = task.cost_names
        self.discrete = task.discrete
        self.first_action = task.first_action
        self.observation_names = task.observation_names
        self.observation_shape = task.observation_shape
        middle = -(-num_envs // 2)
        self.halves = [slice(0, middle), slice(middle, num_envs)][: min(2, num_envs)]
        spread = np.arange(num_envs) * task.episode_length // num_envs
        self.first_ages: Int[np.ndarray, " N"] = spread if stagger else 0 * spread

        self._sizes = Sizes(
            task.observation_size, task.action_size, task.episode_length, task.cost_names
        )
        self._time_limit = time_limit
        self._shares = _deal(num_envs, processes)
        self._films = films
        self._crew = Crew()
        weakref.finalize(self, self._crew.close)
        self._replaced: list[float] = []  # when
        self._notices: list[str] = []
        self._seed = 0

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes; environment `i` starts its stream at `seed + i`.

        Raises:
            WorkerError: a worker failed, also in all that follows.
        """
        self._seed = seed
        with self._closed_on_error():
            if not self._crew.workers:
                self._start()
            records = self._records
            records["seed"] = [(seed + i) % 2**32 for i in range(self.num_envs)]
            records["age"] = self.first_ages
            for half in range(len(self.halves)):
                self._command("reset", half)
            for half in range(len(self.halves)):
                self._wait(half)
            self._lost[:] = False
            self._obs = records["obs"].copy()
        return self._obs.copy()

    def send(self, half: int, action: Float[np.ndarray, "H A"]) -> None:
        """Begins a step of one half."""
        action = np.asarray(action, np.float64)
        rows = self.halves[half]
        expected = (rows.stop - rows.start, self.action_size)
        if action.shape != expected:
            raise ValueError(f"the action has shape {action.shape}, not {expected}")
        with self._closed_on_error():
            self._require_open()
            self._records["action"][rows] = action
            self._command("step", half)

    def receive(
        self, half: int
    ) -> tuple[Float[np.ndarray, "H O"], HostStep[Float[np.ndarray, "H ..."]]]:
        """Ends a step of one half, and starts a new episode wherever one has ended.

        Returns:
            What to act on next: the first observation of a new episode where one has ended (its
            random stream goes on); and the step.
        """
        rows = self.halves[half]
        with self._closed_on_error():
            self._require_open()
            self._wait(half)
            records, lost = self._records[rows], self._lost[rows].copy()
            self._lost[rows] = False
            obs = records["obs"].copy()
            step = HostStep(
                reward=np.where(lost, 0.0, records["reward"]),
                cost=by_name(np.where(lost, 0.0, records["cost"].T).T, self.cost_names),
                terminated=np.where(lost, 0.0, records["terminated"]),
                truncated=np.where(lost, 1.0, records["truncated"]),
                next_obs=np.where(lost[:, None], self._obs[rows], records["next_obs"]),
                lost=lost.astype(float),
            )
            self._obs[rows] = obs
        return obs, step

    def step(
        self, action: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N O"], HostStep[Float[np.ndarray, "N ..."]]]:
        """`send` and `receive` of both halves at once."""
        action = np.asarray(action)
        expected = (self.num_envs, self.action_size)
        if action.shape != expected:
            raise ValueError(f"the action has shape {action.shape}, not {expected}")
        for half, rows in enumerate(self.halves):
            self.send(half, action[rows])
        obs, steps = zip(*(self.receive(half) for half in range(len(self.halves))), strict=True)
        return np.concatenate(obs), HostStep(*map(_concatenated, zip(*steps, strict=True)))

    def restart(self, half: int, over: Bool[np.ndarray, " H"]) -> Float[np.ndarray, "H O"]:
        """Starts new episodes in a half where `over`; its observations."""
        rows = self.halves[half]
        with self._closed_on_error():
            self._require_open()
            self._records["over"][rows] = over
            self._command("restart", half)
            self._wait(half)
            self._obs[rows] = self._records["obs"][rows]
        return self._obs[rows].copy()

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The first environment as its package shows it.

        Raises:
            WorkerError: there is nothing to draw with; the text says what is missing.
        """
        with self._closed_on_error():
            self._require_open()
            return self._crew.workers[0].ask("picture", None, START_LIMIT)

    def step_seconds(self) -> float:
        """What a step takes in the world of the first environment, s."""
        with self._closed_on_error():
            self._require_open()
            return self._crew.workers[0].ask("step_seconds", None, START_LIMIT)

    def notices(self) -> list[str]:
        """What has happened to workers since the last call, one line each."""
        news, self._notices = self._notices, []
        return news

    def close(self) -> None:
        """Ends the workers; may be called again. A `reset` starts new ones."""
        self._crew.close()

    def __enter__(self) -> "WorkerEnvs":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _closed_on_error(self) -> "_CloseOnError":
        return _CloseOnError(self)

    def _require_open(self) -> None:
        if not self._crew.workers:
            raise WorkerError("the environments are closed")

    def _start(self) -> None:
        descriptor = shared.create(self.num_envs, self._sizes)
        self._crew.memory = descriptor
        self._records = shared.attach(descriptor, self.num_envs, self._sizes)
        self._lost = np.zeros(self.num_envs, bool)
        self._obs = np.zeros((self.num_envs, self.observation_size))
        workers = self._crew.workers
        workers += [self._hire(i) for i in range(len(self._shares))]
        try:
            for i in range(len(workers)):  # they make their environments side by side
                self._set_to_work(i)
            for worker in workers:
                worker.receive(START_LIMIT)
        except GoneError as gone:
            raise WorkerError(str(gone)) from None

    def _hire(self, i: int) -> WorkerProcess:
        own = self._shares[i]
        count = sum(stop - start for start, stop in own)
        name = f"worker {i + 1} of {len(self._shares)} ({count} of {self.task.name})"
        return WorkerProcess(name, self._crew.memory, WITHOUT_A_SCREEN if self._films else NO_EXTRA)

    def _set_to_work(self, i: int) -> None:
        limit, memory = self.task.episode_length, self._crew.memory
        share = Share(
            self.task.maker,
            self._sizes,
            limit,
            self.num_envs,
            memory,
            self._shares[i],
            self._films,
        )
        self._crew.workers[i].send("take", share)

    def _command(self, name: str, half: int) -> None:
        """Tells the workers of a half, but those whose episodes there are lost already."""
        for i, own in enumerate(self._shares):
            start, stop = own[half]
            if start == stop or (name == "step" and self._lost[start]):
                continue
            try:
                self._crew.workers[i].send(name, half, expect=half)
            except GoneError as gone:
                self._replace(i, gone)

    def _wait(self, half: int) -> None:
        """Until all workers have done what they were told in a half."""
        for i in range(len(self._shares)):
            try:
                self._crew.workers[i].finish(half, self._time_limit)
            except GoneError as gone:
                self._replace(i, gone)

    def _replace(self, i: int, gone: GoneError) -> None:
        """Puts a new worker, with new episodes, in the place of one that is gone."""
        now = time.monotonic()
        self._replaced = [when for when in self._replaced if now - when < HOUR]
        if len(self._replaced) >= REPLACEMENTS:
            raise WorkerError(f"{gone}; {REPLACEMENTS} workers were replaced within an hour")
        self._replaced.append(now)
        self._crew.workers[i].close()
        worker = self._crew.workers[i] = self._hire(i)
        count = 0
        try:
            self._set_to_work(i)
            worker.receive(START_LIMIT)
            for half, (start, stop) in enumerate(self._shares[i]):
                if start == stop:
                    continue
                rows, age = slice(start, stop), self._records["age"][start:stop]
                # A stream of its own, or the new episodes would be those of the beginning.
                entropy = (self._seed, len(self._replaced), start, int(now * 1e6))
                fresh = np.random.SeedSequence(entropy).generate_state(stop - start)
                self._records["seed"][rows], age[:] = fresh, 0
                worker.ask("reset", half, START_LIMIT)
                self._lost[rows] = True
                count += stop - start
        except GoneError as again:
            raise WorkerError(f"{gone}, and so did the one in its place: {again}") from None
        self._notices.append(f"{gone}; replaced, {count} episodes dropped")


class _CloseOnError:
    """Closes the environments on any error, Ctrl-C included: replies may be pending then."""

    def __init__(self, envs: WorkerEnvs) -> None:
        self._envs = envs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._envs.close()


def _deal(num_envs: int, processes: int) -> list[tuple[tuple[int, int], ...]]:
    """For each worker the rows that it has of each half, first and last + 1.

    Workers have the same number, but for one, and of each half the same, but for one.
    """
    dealt = [num_envs * i // processes for i in range(processes + 1)]
    first = [-(-count // 2) for count in dealt]
    second = [first[-1] + count // 2 for count in dealt]
    return list(zip(pairwise(first), pairwise(second), strict=True))


def _concatenated(parts: Sequence[Any]) -> Any:
    """Arrays one behind the other; of several costs, each."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
