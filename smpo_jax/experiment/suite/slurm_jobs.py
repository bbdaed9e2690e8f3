"""Batches as jobs of a SLURM cluster, through submitit."""

import contextlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.jobs import Batch, Job
from smpo_jax.experiment.suite.submitit_jobs import FOLDER, SubmititEngine, submitit

SUBMITTED_FILE = "submitted.json"  # numbers of SLURM jobs, by the cells they train
MINUTES = 240  # that a SLURM job may take unless said; then it is queued again
MOST_TIMEOUTS = 100  # how often; submitit's own limit of 3 is for what cannot be resumed


class SlurmEngine(SubmititEngine):
    """Jobs of a SLURM cluster.

    Args:
        room: see `Engine`; they wait in SLURM's queue.
        parallel: most that run at a time, of an array.
        resources: what each asks for, in submitit's words, which are those of sbatch.

    Raises:
        UserError: this machine has no sbatch, or a time is not in minutes.
    """

    kind = "slurm"
    pause = 5.0
    runs_here = False

    def __init__(self, room: int, parallel: int, resources: Mapping[str, Any]) -> None:
        minutes = resources.get("time", MINUTES)
        if not isinstance(minutes, int) or minutes < 1:
            raise UserError(f"resources: time is a whole number of minutes, got {minutes!r:.80}")
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UserError(
                "--executor slurm: there is no sbatch and srun here: start it on a machine from "
                "which jobs of a SLURM cluster are submitted"
            )
        own = {"job_name": "smpo-jax", "array_parallelism": parallel, "time": minutes}
        super().__init__(room, {**own, **resources})

    def connect(self) -> None:
        """Looks whether the resources are those of sbatch.

        Raises:
            UserError: one is not.
        """
        try:
            self.make_executor(Path.cwd())
        except ValueError as error:
            raise UserError(f"--executor slurm: resources: {one_line(error)}") from error

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """By the number it had in the queue, unless it has ended."""
        number = _load(folder).get(_key(batch))
        if number is None:
            return None
        job = submitit().SlurmJob(folder.absolute() / FOLDER, number)
        is_over = job.done(force_check=True)
        return None if is_over else self.attached(job, batch, folder)

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> list[Job]:
        """One array of jobs.

        Raises:
            UserError: SLURM refuses it.
        """
        devices = max(cell.config.devices for batch in batches for cell in batch)
        self.parameters.setdefault("cpus_per_task", devices)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
                jobs = super().submit(batches, context)
        except Exception as error:
            if not type(error).__module__.startswith("submitit"):
                raise
            raise UserError(f"SLURM does not take the jobs: {error}") from error
        numbers = [job.name.removeprefix(f"{self.kind} ") for job in jobs]
        new = dict(zip(map(_key, batches), numbers, strict=True))
        _save({**_load(context.folder), **new}, context.folder)
        return jobs

    def make_executor(self, folder: Path) -> Any:
        """One that queues jobs again however often their time is over."""
        executor = submitit().SlurmExecutor(folder / FOLDER, max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(**self.parameters)
        return executor


def _key(batch: Batch) -> str:
    return " ".join(cell.name for cell in batch)


def _load(folder: Path) -> dict[str, str]:
    """Nothing if there is none, or it is damaged: then locks alone say what is under way."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / FOLDER / SUBMITTED_FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(key): str(value) for key, value in found.items()}
    return {}


def _save(submitted: Mapping[str, str], folder: Path) -> None:
    path = folder / FOLDER / SUBMITTED_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(submitted, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
