"""Batches as tasks of a Ray cluster, or of Ray on this machine alone."""

import importlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.folder_watch import FolderWatch
from smpo_jax.experiment.suite.jobs import Batch, Ending, Job
from smpo_jax.experiment.suite.remote import RemoteBatch, run, shared_environment


class _RayJob:
    """A task, and the folders of its cells."""

    def __init__(self, ray: Any, task: Any, cells: Batch, folder: Path) -> None:
        self.cells = cells
        self.name = f"ray {task.task_id().hex()}"
        self._ray, self._task = ray, task
        self._watch = FolderWatch(cells, folder)

    def pass_on(self, display: SuiteDisplay) -> None:
        self._watch.pass_on(display)

    def ending(self) -> Ending | None:
        ended, _ = self._ray.wait([self._task], timeout=0)
        if not ended:
            return None
        try:
            self._ray.get(self._task)
        except self._ray.exceptions.RayTaskError as error:  # it raised that itself
            return Ending(f"its task of Ray's: {one_line(str(error).strip().splitlines()[-1])}")
        except self._ray.exceptions.RayError as error:  # its process or machine is gone
            kind = type(error).__name__
            return Ending(f"its task of Ray's was killed ({kind})", again=True)
        return Ending()

    def stop(self) -> bool:
        # In the process that runs it, that is SIGINT; it ends when it has saved.
        self._ray.cancel(self._task, force=False)
        return True


class RayEngine:
    """Tasks of the cluster at RAY_ADDRESS, of one that runs here, or else of Ray on this machine.

    They end with the process that submitted them, as Ray's do.

    Args:
        room: see `Engine`; they wait until Ray has the resources.
        resources: what each asks for, in Ray's words (`num_cpus`, `num_gpus`, `memory`).
    """

    tries = 4
    pause = 0.5
    runs_here = False

    def __init__(self, room: int, resources: Mapping[str, Any]) -> None:
        self.room = room
        self._resources = dict(resources)
        self._ray: Any = importlib.import_module("ray")

    def connect(self) -> None:
        """Starts or reaches Ray.

        Raises:
            UserError: it cannot, or Ray does not know the resources.
        """
        try:
            self._ray.remote(**self._options(cpus=1))(run)
        except (ValueError, TypeError) as error:
            raise UserError(f"--executor ray: resources: {one_line(error)}") from error
        try:
            with warnings.catch_warnings():
                # Ray starts programs by a fork, of which jax warns; they touch nothing of jax's.
                warnings.filterwarnings("ignore", message=r"os\.fork\(\)")
                self._ray.init(
                    include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
                )
        except Exception as error:  # of many kinds
            raise UserError(f"--executor ray: cannot start or reach Ray: {error}") from error

    def found(self, batch: Batch, folder: Path) -> Job | None:
        """None: tasks end with the process that submitted them."""
        del batch, folder

    def submit(self, batches: Sequence[Batch], context: SuiteContext) -> list[Job]:
        """A task for each."""
        return [self._submitted(batch, context.folder.absolute()) for batch in batches]

    def close(self) -> None:
        """Leaves the cluster, or ends Ray."""
        self._ray.shutdown()

    def _submitted(self, batch: Batch, folder: Path) -> Job:
        names = tuple(cell.name for cell in batch)
        remote = RemoteBatch(str(folder), names, shared_environment(), os.getcwd(), True)
        options = self._options(cpus=max(cell.config.devices for cell in batch))
        task = self._ray.remote(**options)(run).options(name=names[0]).remote(remote)
        return _RayJob(self._ray, task, batch, folder)

    def _options(self, cpus: int) -> dict[str, Any]:
        # A process trains one batch, as jax has one life in it; that it is tried again is ours.
        return {"num_cpus": cpus, **self._resources, "max_calls": 1, "max_retries": 0}
