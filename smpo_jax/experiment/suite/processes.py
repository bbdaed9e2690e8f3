"""A suite over several local processes, one for each batch: a crash ends no more than that."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import one_line
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.executor import ProgramCache, SuiteContext, train_batch
from smpo_jax.experiment.suite.grid import Cell

POLL = 0.5  # seconds until a stop that was asked for is passed on


class _Worker:
    """A process that trains a batch, and the end of the pipe that it reports to."""

    def __init__(self, cells: Sequence[Cell], folder: Path, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")  # jax does not survive a fork
        self.cells = cells
        self.cores = cores
        self.reports, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_run_worker, args=(cells, folder, cores, theirs))
        self.process.start()
        theirs.close()


def train_in_processes(
    batches: Sequence[Sequence[Cell]], context: SuiteContext, number: int
) -> None:
    """As `train_batch` for every batch, up to `number` at a time.

    Each process has its share of the cores to itself: XLA's threads get in each other's way.
    """
    waiting, workers = list(batches), list[_Worker]()
    free = list(_shares(number))
    passed_on = False
    try:
        while workers or (waiting and not context.stop.is_set):
            while waiting and free and not context.stop.is_set:
                workers.append(_Worker(waiting.pop(0), context.folder, free.pop()))
            if context.stop.is_set and not passed_on:
                passed_on = True
                for worker in workers:
                    worker.process.terminate()
            wait([worker.reports for worker in workers], POLL)
            for worker in list(workers):
                if not _forward(worker, context):
                    workers.remove(worker)
                    free.append(worker.cores)
                    _report_death(worker, context)
    finally:
        for worker in workers:
            worker.process.terminate()


def _shares(number: int) -> Iterator[Sequence[int]]:
    """The cores this process may use, dealt out; all of them to each if they are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for i in range(number):
        yield cores[i::number] if len(cores) >= number else cores


def _forward(worker: _Worker, context: SuiteContext) -> bool:
    """Passes on what the worker has reported; False once it has nothing more to say."""
    display = context.display
    show: dict[str, Callable[..., None]] = {
        "say": display.say,
        "started": display.started,
        "update": display.update,
        "finished": display.finished,
        "failed": display.failed,
    }
    try:
        while worker.reports.poll():
            event, arguments = worker.reports.recv()
            show[event](*arguments)
    except EOFError:
        return False
    return True


def _report_death(worker: _Worker, context: SuiteContext) -> None:
    """Waits for the end of a worker; of one that crashed, all that it has not finished failed."""
    worker.process.join()
    code = worker.process.exitcode
    if not code or context.stop.is_set:
        return
    ending = signal.Signals(-code).name if code < 0 else f"status {code}"
    for cell in worker.cells:
        if suite_folder.status(context.folder, cell) in ("waiting", "begun"):
            text = f"its process ended with {ending}"
            suite_folder.write_error(context.folder, cell, f"{text}\n")
            context.display.failed(cell.name, text)


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
