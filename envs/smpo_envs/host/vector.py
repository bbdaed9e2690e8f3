"""The real Safety-Gymnasium as a batch of environments, stepped in worker processes."""

import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
from jaxtyping import Bool, Float

from smpo_envs.host.compat import check_installed
from smpo_envs.host.worker import Sizes
from smpo_envs.registry import TASKS, resolve
from smpo_envs.step import Step


class WorkerError(RuntimeError):
    """A worker process failed or died."""


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


def vector_env(name: str, num_envs: int, processes: int | None = None) -> "SafetyGymnasiumVector":
    """`num_envs` real environments of the task called `name` here, e.g. `PointGoal1`."""
    return SafetyGymnasiumVector(native_name_to_id(name), num_envs, processes)


class SafetyGymnasiumVector:
    """`num_envs` real environments, shared out over worker processes; they reset themselves.

    The workers are fresh interpreters, not forks: the trainer's process is full of threads. What
    an environment does depends on its seed and actions alone, not on how many processes there are.
    Use it as a context manager, or call `close`. After any error it is closed.

    Attributes:
        num_envs: `N`.
        observation_size: `O`.
        action_size: `A`.
        episode_length: steps after which an episode is cut.
    """

    def __init__(self, task_id: str, num_envs: int, processes: int | None = None) -> None:
        """Starts the workers and waits until all are ready (a second or two).

        Args:
            task_id: the real package's id, e.g. `SafetyPointGoal1-v0`.
            num_envs: number of environments.
            processes: number of workers; by default one per CPU, but no more than environments.

        Raises:
            ImportError: the real package is not installed; says what to run.
            WorkerError: a worker failed, for example because the id is unknown.
        """
        processes = min(num_envs, os.cpu_count() or 1) if processes is None else processes
        if not 1 <= processes <= num_envs:
            raise ValueError(f"processes={processes} is not between 1 and num_envs={num_envs}")
        check_installed()
        bounds = [num_envs * i // processes for i in range(processes + 1)]
        self._parts = [slice(start, stop) for start, stop in pairwise(bounds)]
        self._workers = [
            _Worker(
                f"safety-gymnasium worker {i + 1} of {processes} "
                f"(environments {part.start} to {part.stop - 1})"
            )
            for i, part in enumerate(self._parts)
        ]
        sizes: Sizes = self._ask("make", [(task_id, p.stop - p.start) for p in self._parts])[0]
        self.num_envs = num_envs
        self.observation_size = sizes.observation
        self.action_size = sizes.action
        self.episode_length = sizes.episode_length

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes; environment `i` starts its stream at `seed + i`."""
        seeds = [(seed + i) % 2**32 for i in range(self.num_envs)]
        return np.concatenate(self._ask("reset", [seeds[part] for part in self._parts]))

    def step(
        self, action: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N O"], Step[np.ndarray]]:
        """Acts, and starts a new episode wherever one has ended (its random stream goes on).

        Returns:
            What to act on next: the first observation of a new episode where one has ended; and
            the step.
        """
        action = np.asarray(action, np.float64)
        if action.shape != (self.num_envs, self.action_size):
            raise ValueError(
                f"the action has shape {action.shape}, not {(self.num_envs, self.action_size)}"
            )
        parts = self._ask("step", [action[part] for part in self._parts])
        obs, steps = zip(*parts, strict=True)
        return np.concatenate(obs), Step(*map(np.concatenate, zip(*steps, strict=True)))

    def restart(self, over: Bool[np.ndarray, " N"]) -> Float[np.ndarray, "N O"]:
        """Starts new episodes where `over`; their first observations (other rows: zeros)."""
        return np.concatenate(self._ask("restart", [over[part] for part in self._parts]))

    def close(self) -> None:
        """Ends the workers; may be called again."""
        for worker in self._workers:
            worker.close_pipes()
        for worker in self._workers:
            worker.wait()
        self._workers = []

    def __enter__(self) -> "SafetyGymnasiumVector":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, command: str, arguments: list[Any]) -> list[Any]:
        """Sends a command to every worker, then collects the results: they work side by side."""
        if not self._workers:
            raise WorkerError("the environments are closed")
        try:
            for worker, argument in zip(self._workers, arguments, strict=True):
                worker.send(command, argument)
            return [worker.receive() for worker in self._workers]
        except BaseException:
            # Even after Ctrl-C: with replies pending, questions and answers no longer match.
            self.close()
            raise


class _Worker:
    """One worker process and the pipes to it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A plain interpreter rather than `multiprocessing`, which would run the caller's main
        # module again, with all that it imports. One thread each: the matrices are 3 by 3.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from smpo_envs.host.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        self._to = cast(IO[bytes], self._process.stdin)
        self._from = cast(IO[bytes], self._process.stdout)

    def send(self, command: str, argument: Any) -> None:
        try:
            pickle.dump((command, argument), self._to, protocol=pickle.HIGHEST_PROTOCOL)
            self._to.flush()
        except BrokenPipeError:
            raise self._dead() from None

    def receive(self) -> Any:
        try:
            status, result = pickle.load(self._from)
        except (EOFError, pickle.UnpicklingError):
            raise self._dead() from None
        if status == "error":
            raise WorkerError(f"{self._name} failed: {result}")
        return result

    def close_pipes(self) -> None:
        """Closes the pipes, which makes the process end."""
        for pipe in (self._to, self._from):
            with suppress(BrokenPipeError):
                pipe.close()

    def wait(self) -> None:
        """Waits for the end of the process, up to a few seconds, then kills it."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _dead(self) -> WorkerError:
        status = self._process.wait()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        self._log.seek(0)
        last_line = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        return WorkerError(": ".join([f"{self._name} died ({how})", *last_line]))
