"""A worker process: how one is started, talked to, and told apart from one that is gone."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe
from types import MappingProxyType
from typing import Any

START_LIMIT = 600.0  # seconds that a worker may take to start and make its environments
NO_EXTRA: Mapping[str, str] = MappingProxyType({})


class WorkerError(RuntimeError):
    """A worker process failed, or died too often."""


class GoneError(Exception):
    """A worker has died or hangs: which, and how."""


class WorkerProcess:
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
        """Of the process."""
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
                raise GoneError(f"{self.name} did not answer for {limit:g} s and was ended")
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

    def _death(self) -> GoneError:
        status = self._await_end()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        self._log.seek(0)
        last_line = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        return GoneError(": ".join([f"{self.name} died ({how})", *last_line]))


class Crew:
    """The workers, and the memory that they share; what has to be given back."""

    def __init__(self) -> None:
        self.workers: list[WorkerProcess] = []
        self.memory = -1

    def close(self) -> None:
        """Ends the workers and frees the memory; may be called again."""
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            worker.close()
        self.workers = []
        if self.memory >= 0:
            os.close(self.memory)
        self.memory = -1
