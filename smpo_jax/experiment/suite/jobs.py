"""Batches as jobs of an engine: submitted, watched, tried again when they were killed.

An engine has batches trained, here or elsewhere. What they do shows in the suite's folder; locks
there keep two jobs from training one cell. So this process may end at any time, and the next one
finds what is under way.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from smpo_jax.experiment.run import run_folder
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.folder_watch import FolderWatch
from smpo_jax.experiment.suite.grid import Cell

Batch = Sequence[Cell]


class Ending(NamedTuple):
    """How a job ended.

    Attributes:
        reason: what ended it, in a line; empty if it returned.
        again: whether that may not happen to the next one.
    """

    reason: str = ""
    again: bool = False


class Job(Protocol):
    """A batch that is being trained, or waits for its turn."""

    @property
    def cells(self) -> Batch:
        """What it trains."""
        ...

    @property
    def name(self) -> str:
        """What its engine calls it."""
        ...

    def pass_on(self, display: SuiteDisplay) -> None:
        """Tells the display what is new."""
        ...

    def ending(self) -> Ending | None:
        """How it ended; None while it has not."""
        ...

    def stop(self) -> bool:
        """Asks it to save and end; False if it goes on, whatever becomes of this process."""
        ...


class Engine(Protocol):
    """Something that has batches trained.

    Attributes:
        room: most jobs that it takes at a time.
        tries: how often a batch is submitted whose jobs are killed.
        pause: seconds between two looks at its jobs.
        runs_here: whether the jobs share this machine's memory.
    """

    room: int
    tries: int
    pause: float
    runs_here: bool

    def connect(self) -> None:
        """Gets ready; nothing is written to the disk.

        Raises:
            UserError: it cannot be reached, or does not take the resources that were asked for.
        """
        ...

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """The job of this batch that an earlier process submitted and that has not ended."""
        ...

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> Sequence[Job]:
        """A job for each batch of the suite.

        Raises:
            UserError: it refuses them.
        """
        ...

    def close(self) -> None:
        """Lets go of it; jobs that do not stop go on."""
        ...


class _HeldJob:
    """A batch of which a process that is not ours has a cell locked."""

    name = "another process"

    def __init__(self, cells: Batch, folder: Path) -> None:
        self.cells = cells
        self._folder = folder
        self._watch = FolderWatch(cells, folder)

    def pass_on(self, display: SuiteDisplay) -> None:
        self._watch.pass_on(display)

    def ending(self) -> Ending | None:
        return (
            None if is_held(self.cells, self._folder) else Ending("its process ended", again=True)
        )

    def stop(self) -> bool:
        return False


def is_held(batch: Batch, folder: Path) -> bool:
    """Whether a process trains one of these cells."""
    return any(run_folder.is_locked(folder / cell.name) for cell in batch)


def work_off(batches: Sequence[Batch], context: SuiteContext, engine: Engine) -> None:
    """Has every batch trained, until all are done, have failed, or a stop is asked for."""
    work = _Work(batches, context, engine)
    while work.is_left:
        work.submit()
        time.sleep(engine.pause)
        work.look()


class _Work:
    """What waits, what is under way, and how often each batch was tried."""

    def __init__(self, batches: Sequence[Batch], context: SuiteContext, engine: Engine) -> None:
        self._context, self._engine = context, engine
        self._attempts = Counter[tuple[str, ...]]()
        found = [(batch, engine.found(batch, context.folder)) for batch in batches]
        self._jobs: list[Job] = [job for _, job in found if job is not None]
        self._waiting = deque(batch for batch, job in found if job is None)
        self._is_stopping = False

    @property
    def is_left(self) -> bool:
        return bool(self._jobs or (self._waiting and not self._context.stop.is_set))

    def submit(self) -> None:
        """Fills the engine's room, or stops what can be stopped."""
        if self._context.stop.is_set:
            if not self._is_stopping:
                self._stop()
            return
        batches: list[Batch] = []
        while self._waiting and len(self._jobs) + len(batches) < self._engine.room:
            batch = self._waiting.popleft()
            if is_held(batch, self._context.folder):
                self._jobs.append(_HeldJob(batch, self._context.folder))
                continue
            for cell in batch:
                if suite_folder.is_to_run(self._context.folder, cell):
                    suite_folder.clear_error(self._context.folder, cell)
            self._attempts[_names(batch)] += 1
            batches.append(batch)
        if batches:
            self._jobs += self._engine.submit(batches, self._context)

    def look(self) -> None:
        """Shows what is new, and decides about the jobs that have ended."""
        for job in list(self._jobs):
            ending = job.ending()
            job.pass_on(self._context.display)  # the last time after it has ended
            if ending is not None:
                self._jobs.remove(job)
                self._follow(job, ending)

    def _stop(self) -> None:
        self._is_stopping = True
        ending = [job for job in self._jobs if job.stop()]
        outliving = [job.name for job in self._jobs if job not in ending]
        if outliving:
            self._context.display.say(f"going on without this command: {', '.join(outliving)}")
        self._jobs = ending

    def _follow(self, job: Job, ending: Ending) -> None:
        """A batch that is not finished is watched, submitted again, or has failed."""
        folder, display = self._context.folder, self._context.display
        left = [c for c in job.cells if suite_folder.status(folder, c) in ("waiting", "begun")]
        if not left or self._context.stop.is_set:
            return
        reason = ending.reason or "it ended before its cells did"
        attempts = self._attempts[_names(job.cells)]
        if is_held(job.cells, folder):
            self._waiting.append(job.cells)
        elif (ending.again or not ending.reason) and attempts < self._engine.tries:
            display.say(f"{left[0].name}: {reason}; trying again")
            self._waiting.append(job.cells)
        else:
            text = reason if attempts < 2 else f"{reason}; tried {attempts} times"
            for cell in left:
                suite_folder.write_error(folder, cell, f"{text}\n")
                display.failed(cell.name, text)


def _names(batch: Batch) -> tuple[str, ...]:
    return tuple(cell.name for cell in batch)
