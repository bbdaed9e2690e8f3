"""Many environments outside JAX, stepped in worker processes over shared memory."""

import functools
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, Pipe
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from smpo_envs.host import shared
from smpo_envs.host.compat import check_installed
from smpo_envs.host.single import Maker, Sizes
from smpo_envs.host.worker import Share
from smpo_envs.registry import TASKS, resolve
from smpo_envs.step import HostStep, by_name

TIME_LIMIT = 120.0  # seconds that a worker may take for a step of its share, resets included
START_LIMIT = 600.0  # seconds that it may take to start and make its environments
REPLACEMENTS = 3  # workers replaced in an hour, at most
HOUR = 3600.0
NO_EXTRA: Mapping[str, str] = MappingProxyType({})
# How MuJoCo and pygame draw where there is no screen. Only for films: MuJoCo does not even import
# where there is no EGL to be had.
WITHOUT_A_SCREEN = MappingProxyType({"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy"})


class WorkerError(RuntimeError):
    """A worker process failed, or died too often."""


@dataclass(frozen=True)
class HostTask:
    """A task outside JAX: how workers make an environment of it, and what it is like.

    Attributes:
        name: for people.
        maker: how to make one environment.
        observation_size: `O`.
        action_size: `A`; actions are of -1 to 1.
        episode_length: steps after which an episode is cut.
        cost_names: what each of its costs is called.
        discrete: actions are one-hot, one of `A` choices.
        first_action: what the environment calls the first choice.
        observation_names: of the parts of an observation, in order; () if it is of one.
        observation_shape: of a picture; () for vectors.
    """

    name: str
    maker: Maker
    observation_size: int
    action_size: int
    episode_length: int
    cost_names: tuple[str, ...] = ("cost",)
    discrete: bool = False
    first_action: int = 0
    observation_names: tuple[str, ...] = ()
    observation_shape: tuple[int, ...] = ()


def safety_gymnasium_task(task_id: str, episode_length: int | None = None) -> HostTask:
    """A task of the real Safety-Gymnasium, e.g. `SafetyDoggoGoal1-v0`.

    Raises:
        ImportError: the real package is not installed; says what to run.
        ValueError: there is no such task, it cannot be trained in, or its episodes are shorter.
    """
    check_installed()
    maker = Maker("safety_gymnasium", {"task_id": task_id})
    return _task(f"safety-gymnasium:{task_id}", maker, episode_length)


def gymnasium_task(
    env_id: str, cost: str, episode_length: int | None = None, **options: Any
) -> HostTask:
    """A task that is registered with Gymnasium, e.g. `Pendulum-v1`.

    Args:
        env_id: what `gymnasium.make` takes.
        cost: `info.NAME`, `module:function` (of observation, action, next observation and info) or
            `none`; several with commas between them.
        episode_length: the time limit in place of its own, in steps.
        options: more for `gymnasium.make`.

    Raises:
        ImportError: gymnasium is not installed.
        ValueError: there is no such task, it cannot be trained in, or it has no time limit.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise ImportError(f"gymnasium:{env_id} needs the package gymnasium: pip install gymnasium")
    limit = {} if episode_length is None else {"max_episode_steps": episode_length}
    arguments = {"env_id": env_id, "cost": cost, "options": {**options, **limit}}
    maker = Maker("gymnasium", arguments)
    return _task(f"gymnasium:{env_id}", maker, episode_length)


def _task(name: str, maker: Maker, episode_length: int | None) -> HostTask:
    try:
        sizes = _sizes(name, pickle.dumps(maker))
    except WorkerError as error:
        raise ValueError(str(error)) from error
    longest = sizes.episode_length
    if episode_length is None and longest is None:
        raise ValueError(f"{name} has no time limit: say after how many steps an episode is cut")
    if episode_length is not None and longest is not None and episode_length > longest:
        raise ValueError(
            f"{name}: episode_length={episode_length}, but its episodes end after {longest} steps"
        )
    return HostTask(
        name,
        maker,
        sizes.observation,
        sizes.action,
        episode_length or longest or 0,
        cost_names=sizes.cost_names,
        discrete=sizes.discrete,
        first_action=sizes.first_action,
        observation_names=sizes.observation_names,
        observation_shape=sizes.observation_shape,
    )


@functools.cache
def _sizes(name: str, pickled: bytes) -> Sizes:
    """Sizes of what a maker makes, in a process of its own: that may take much memory."""
    worker = _Worker(name)
    try:
        return worker.ask("look", pickle.loads(pickled), START_LIMIT)
    except _GoneError as gone:
        raise WorkerError(str(gone)) from None
    finally:
        worker.close()


def native_name_to_id(name: str) -> str:
    """The real package's id of a task: `PointGoal1` is `SafetyPointGoal1-v0`.

    Raises:
        ValueError: there is no such task, or it has no counterpart in the real package.
    """
    task_id = TASKS[resolve(name)].task_id
    if task_id is None:
        both = ", ".join(native for native, entry in TASKS.items() if entry.task_id)
        raise ValueError(f"safety-gymnasium has no task {name!r}; in both are {both}")
    return task_id


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
        self._crew = _Crew()
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
        except _GoneError as gone:
            raise WorkerError(str(gone)) from None

    def _hire(self, i: int) -> "_Worker":
        own = self._shares[i]
        count = sum(stop - start for start, stop in own)
        name = f"worker {i + 1} of {len(self._shares)} ({count} of {self.task.name})"
        return _Worker(name, self._crew.memory, WITHOUT_A_SCREEN if self._films else NO_EXTRA)

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
            except _GoneError as gone:
                self._replace(i, gone)

    def _wait(self, half: int) -> None:
        """Until all workers have done what they were told in a half."""
        for i in range(len(self._shares)):
            try:
                self._crew.workers[i].finish(half, self._time_limit)
            except _GoneError as gone:
                self._replace(i, gone)

    def _replace(self, i: int, gone: "_GoneError") -> None:
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
        except _GoneError as again:
            raise WorkerError(f"{gone}, and so did the one in its place: {again}") from None
        self._notices.append(f"{gone}; replaced, {count} episodes dropped")


class _Crew:
    """The workers, and the memory that they share; what has to be given back."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self.memory = -1

    def close(self) -> None:
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            worker.close()
        self.workers = []
        if self.memory >= 0:
            os.close(self.memory)
        self.memory = -1


class _CloseOnError:
    """Closes the environments on any error, Ctrl-C included: replies may be pending then."""

    def __init__(self, envs: WorkerEnvs) -> None:
        self._envs = envs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._envs.close()


class _GoneError(Exception):
    """A worker has died or hangs: which, and how."""


class _Worker:
    """One worker process and the socket to it; `name` is for people."""

    def __init__(
        self, name: str, memory: int | None = None, extra: Mapping[str, str] = NO_EXTRA
    ) -> None:
        self.name = name
        self._pending: list[int] = []  # halves in the order in which replies will come
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        here, there = Pipe()
        self._connection: Connection = here
        # A plain interpreter rather than `multiprocessing`, which would run the caller's main
        # module again, with all that it imports. One thread each: the matrices are 3 by 3.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"from smpo_envs.host.worker import main; main({there.fileno()}, {os.getpid()})",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[there.fileno(), *([] if memory is None else [memory])],
            env={
                **os.environ,
                # Behind all else comes the folder where the user stands, with a cost of their own.
                "PYTHONPATH": os.pathsep.join([*map(os.path.abspath, sys.path), os.getcwd()]),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                **{key: os.environ.get(key, value) for key, value in extra.items()},
            },
        )
        there.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, name: str, argument: Any, limit: float) -> Any:
        """The answer to a command."""
        self.send(name, argument)
        return self.receive(limit)

    def send(self, name: str, argument: Any, expect: int | None = None) -> None:
        """Sends a command; `expect` is the half of which `finish` will be asked."""
        try:
            self._connection.send((name, argument))
        except OSError:
            raise self._death() from None
        if expect is not None:
            self._pending.append(expect)

    def finish(self, half: int, limit: float) -> None:
        """Waits until nothing of a half is under way."""
        while half in self._pending:
            self.receive(limit)
            self._pending.pop(0)

    def receive(self, limit: float) -> Any:
        """The next reply."""
        try:
            if not self._connection.poll(limit):
                self._process.kill()
                raise _GoneError(f"{self.name} did not answer for {limit:g} s and was ended")
            status, result = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if status == "error":
            raise WorkerError(f"{self.name}: {result}")
        return result

    def hang_up(self) -> None:
        """Closes the socket, which makes the process end."""
        self._connection.close()

    def close(self) -> None:
        """Waits for the end of the process, up to a few seconds, then kills it."""
        self.hang_up()
        self._await_end()
        self._log.close()

    def _await_end(self) -> int:
        try:
            return self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _death(self) -> _GoneError:
        status = self._await_end()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        self._log.seek(0)
        last_line = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        return _GoneError(": ".join([f"{self.name} died ({how})", *last_line]))


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
