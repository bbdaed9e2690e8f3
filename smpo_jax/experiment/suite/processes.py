"""A suite in this process, batch after batch, or over several: then a crash ends only one."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import one_line
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.executor import ProgramCache, SuiteContext, train_batch
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.jobs import Batch, Ending, Job


class _Worker:
    """A process that trains a batch, and the end of the pipe that it reports to."""

    def __init__(self, cells: Batch, folder: Path, free: list[Sequence[int]]) -> None:
        context = multiprocessing.get_context("spawn")  # jax does not survive a fork
        self.cells = cells
        self._free, self._cores = free, free.pop()
        self._reports, theirs = context.Pipe(duplex=False)
        arguments = (cells, folder, self._cores, theirs)
        self._process = context.Process(target=_run_worker, args=arguments)
        self._process.start()
        theirs.close()

    @property
    def name(self) -> str:
        return f"process {self._process.pid}"

    def pass_on(self, display: SuiteDisplay) -> None:
        show: dict[str, Callable[..., None]] = {
            "say": display.say,
            "started": display.started,
            "update": display.update,
            "finished": display.finished,
            "failed": display.failed,
        }
        with contextlib.suppress(EOFError):
            while self._reports.poll():
                event, arguments = self._reports.recv()
                show[event](*arguments)

    def ending(self) -> Ending | None:
        if self._process.is_alive():
            return None
        self._free.append(self._cores)
        code = self._process.exitcode
        if not code:
            return Ending()
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Ending(f"its process ended with {how}")

    def stop(self) -> bool:
        self._process.terminate()
        return True


class Processes:
    """Each batch in a process of its own, with its share of the cores to itself.

    XLA's threads get in each other's way.

    Args:
        number: how many at a time.
    """

    tries = 1  # what crashed here once would do so again
    pause = 0.1
    runs_here = True

    def __init__(self, number: int) -> None:
        self.room = number
        self._free = list(_shares(number))
        self._workers: list[_Worker] = []

    def connect(self) -> None:
        """Nothing to reach."""

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """None: processes end with the one that started them."""
        del batch, folder

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> list[Job]:
        """Starts a process for each."""
        new = [_Worker(batch, context.folder, self._free) for batch in batches]
        self._workers += new
        return [*new]

    def close(self) -> None:
        """Ends those that still run, if the suite ends by an error."""
        for worker in self._workers:
            worker.stop()


class _Trained:
    """A batch of which nothing is left to be told."""

    name = "this process"

    def __init__(self, cells: Batch) -> None:
        self.cells = cells

    def pass_on(self, display: SuiteDisplay) -> None:
        """The display was told while it was trained."""

    def ending(self) -> Ending:
        return Ending()

    def stop(self) -> bool:
        return True


class ThisProcess:
    """One batch after another, with programs kept for the next one that needs the same."""

    room = 1
    tries = 1
    pause = 0.05
    runs_here = True

    def __init__(self) -> None:
        self._programs = ProgramCache()

    def connect(self) -> None:
        """Nothing to reach."""

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """None: it has just begun."""
        del batch, folder

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> list[Job]:
        """Trains each to its end before it returns."""
        for batch in batches:
            train_batch(batch, context, self._programs)
        return [_Trained(batch) for batch in batches]

    def close(self) -> None:
        """Nothing to let go of."""


def _shares(number: int) -> Iterator[Sequence[int]]:
    """The cores this process may use, dealt out; all of them to each if they are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for i in range(number):
        yield cores[i::number] if len(cores) >= number else cores


class _PipeDisplay:
    """A display at the other end of a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def say(self, message: str) -> None:
        self._send("say", one_line(message))

    def started(self, cell: str) -> None:
        self._send("started", cell)

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        self._send("update", cell, row, steps_per_second)

    def finished(self, cell: str) -> None:
        self._send("finished", cell)

    def failed(self, cell: str, error: str) -> None:
        self._send("failed", cell, error)

    def _send(self, event: str, *arguments: Any) -> None:
        with contextlib.suppress(
            BrokenPipeError
        ):  # the parent is gone; `_StopOnTermination` sees that, too
            self._pipe.send((event, arguments))


class _StopOnTermination:
    """Asked for by SIGTERM, or by the end of the parent, which may have been killed."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._is_told = False
        signal.signal(signal.SIGTERM, self._tell)
        # Ctrl-C reaches the whole group; it is for the parent to pass on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @property
    def is_set(self) -> bool:
        return self._is_told or os.getppid() != self._parent

    def _tell(self, *_: object) -> None:
        self._is_told = True


def _run_worker(
    cells: Sequence[Cell], folder: Path, cores: Sequence[int], pipe: Connection
) -> None:
    stop = _StopOnTermination()
    if cores:
        os.sched_setaffinity(0, cores)
    train_batch(cells, SuiteContext(folder, _PipeDisplay(pipe), stop), ProgramCache())
