"""Batches as jobs of submitit's: on a SLURM cluster, or in processes of this machine.

Both go on when the process that submitted them ends. A job that is preempted, or reaches its time
limit, gets SIGUSR2 from submitit, which puts it into the queue again.
"""

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import one_line
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.folder_watch import FolderWatch
from smpo_jax.experiment.suite.jobs import Batch, Ending, Job
from smpo_jax.experiment.suite.remote import RemoteBatch, shared_environment

FOLDER = "jobs"  # of a suite: what submitit keeps there, logs among it
YEAR = 525_600  # minutes
# For the shell that starts a job: it does not hear Ctrl-C, nor that the terminal is closed, and
# keeps open nothing of the command that submitted it, say a pipe.
DETACHED = "trap '' INT HUP && exec < /dev/null > /dev/null 2>&1"
SLOW_DISK = 15.0  # seconds until a file that another machine wrote is seen
REQUEUEING = 900.0  # seconds that SLURM may take to queue a preempted job, and tell so


class SubmititJob:
    """A job of either, and the folders of its cells; see `Job`."""

    def __init__(self, job: Any, cells: Batch, folder: Path, kind: str) -> None:
        self.cells = cells
        self.name = f"{kind} {job.job_id}"
        self._job = job
        self._watch = FolderWatch(cells, folder)
        self._grace = SLOW_DISK if kind == "slurm" else 0.0
        self._over_since: float | None = None

    def pass_on(self, display: SuiteDisplay) -> None:
        """Tells what is new in the folders."""
        self._watch.pass_on(display)

    def ending(self) -> Ending | None:
        """How it ended, as its result and submitit's view of the queue say."""
        is_over = self._job.done()
        if self._job.paths.result_pickle.is_file():
            error = self._job.exception()
            return Ending(f"{self.name}: {_last_of_trace(str(error))}" if error else "")
        state = self._job.state.upper()
        # For submitit that is no end; if SLURM is set up to cancel and not to requeue, it is one.
        is_preempted = state.startswith("PREEMPTED")
        if not is_over and not is_preempted:
            self._over_since = None
            return None
        self._over_since = self._over_since or time.monotonic()
        grace = REQUEUEING if is_preempted else self._grace
        if time.monotonic() - self._over_since < grace:
            return None
        reason = f"{self.name} was killed ({state.lower()}); its log is {self._job.paths.stderr}"
        return Ending(reason, again=not state.startswith("CANCELLED"))

    def stop(self) -> bool:
        """False: it goes on."""
        return False


class SubmititEngine:
    """What both have in common; see `Engine`.

    Args:
        room: see `Engine`.
        parameters: what submitit's executor is told, in its words.
    """

    kind = ""
    tries = 4

    def __init__(self, room: int, parameters: Mapping[str, Any]) -> None:
        self.room = room
        self.parameters = dict(parameters)

    def connect(self) -> None:
        """Nothing to reach."""

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """None: only a lock says that a process of this machine trains it."""
        del batch, folder

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> list[Job]:
        """One array of jobs."""
        folder = context.folder.absolute()
        names = [tuple(cell.name for cell in batch) for batch in batches]
        where, environment = os.getcwd(), self._environment()
        remote = [RemoteBatch(str(folder), each, environment, where, False) for each in names]
        executor = self.make_executor(folder)
        jobs = executor.submit_array(remote)
        return [self.attached(job, batch, folder) for job, batch in zip(jobs, batches, strict=True)]

    def close(self) -> None:
        """Nothing to let go of."""

    def attached(self, job: Any, batch: Batch, folder: Path) -> SubmititJob:
        """The job of a batch."""
        return SubmititJob(job, batch, folder, self.kind)

    def _environment(self) -> dict[str, str | None]:
        return shared_environment()

    def make_executor(self, folder: Path) -> Any:
        """The executor of submitit's for a suite's folder."""
        raise NotImplementedError


class LocalEngine(SubmititEngine):
    """Processes of this machine."""

    kind = "local"
    pause = 0.5
    runs_here = True

    def __init__(self, room: int) -> None:
        # submitit's own limit is 2 minutes.
        super().__init__(room, {"timeout_min": YEAR, "setup": [DETACHED]})

    def make_executor(self, folder: Path) -> Any:
        """One that starts a process for each job, and a second one that watches it."""
        executor = submitit().LocalExecutor(folder / FOLDER)
        executor.update_parameters(**self.parameters)
        return executor

    def _environment(self) -> dict[str, str | None]:
        # submitit hides all GPUs from jobs that have asked for none.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return {**shared_environment(), "CUDA_VISIBLE_DEVICES": visible}


def submitit() -> Any:
    """The package, which not everybody has."""
    level = "SUBMITIT_LOG_LEVEL"
    before = os.environ.get(level)
    # On import it would take over the logging of the whole process; in its jobs it may.
    os.environ[level] = "NOCONFIG"
    try:
        return importlib.import_module("submitit")
    finally:
        os.environ.pop(level)
        if before is not None:
            os.environ[level] = before


def _last_of_trace(text: str) -> str:
    """What was raised, of what submitit tells with the whole traceback and dashes around it."""
    trace = text.split("-" * 22)
    lines = (trace[1] if len(trace) > 2 else text).strip().splitlines()
    return one_line(lines[-1]) if lines else "it failed"
