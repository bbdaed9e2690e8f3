"""Batches as tasks of a Ray cluster, or of Ray on this machine alone."""

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.folder_watch import FolderWatch
from smpo_jax.experiment.suite.jobs import Batch, Ending, Job
from smpo_jax.experiment.suite.remote import RemoteBatch, run, shared_environment

STORE = 100 << 20  # bytes for objects that tasks share: ours share none, and this is the least


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
    """Tasks of the cluster at RAY_ADDRESS, or else of this machine alone.

    They end with the process that submitted them, as Ray's do.

    Args:
        room: see `Engine`; they wait until Ray has the resources.
        resources: what each asks for, in Ray's words (`num_cpus`, `num_gpus`, `memory`).
    """

    tries = 3
    pause = 0.5
    runs_here = False

    def __init__(self, room: int, resources: Mapping[str, Any]) -> None:
        self.room = room
        self._resources = dict(resources)

    def open(self, context: SuiteContext) -> None:
        """Starts or reaches Ray.

        Raises:
            UserError: it cannot, or does not know the resources.
        """
        self._folder = context.folder.absolute()
        self._ray = _started()
        try:
            self._ray.remote(max_calls=1, **self._resources)(run)
        except (ValueError, TypeError) as error:
            self._ray.shutdown()
            raise UserError(f"--executor ray: resources: {one_line(error)}") from error

    def found(self, batch: Batch) -> Job | None:
        """None: tasks end with the process that submitted them."""
        del batch

    def submit(self, batches: Sequence[Batch]) -> list[Job]:
        """A task for each."""
        return [self._submitted(batch) for batch in batches]

    def close(self) -> None:
        """Leaves the cluster, or ends Ray."""
        self._ray.shutdown()

    def _submitted(self, batch: Batch) -> Job:
        remote = RemoteBatch(
            str(self._folder),
            tuple(cell.name for cell in batch),
            shared_environment(),
            os.getcwd(),
            stops_on_signal=True,
        )
        own = {"num_cpus": max(cell.config.devices for cell in batch)}
        # A process trains one batch, as jax has one life in it; that it is tried again is ours.
        options = {**own, **self._resources, "max_calls": 1, "max_retries": 0}
        task = self._ray.remote(**options)(run).options(name=batch[0].name).remote(remote)
        return _RayJob(self._ray, task, batch, self._folder)


def _started() -> Any:
    """The module, connected."""
    ray: Any = importlib.import_module("ray")
    here = {} if os.environ.get("RAY_ADDRESS") else {"object_store_memory": STORE}
    try:
        ray.init(
            include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL, **here
        )
    except Exception as error:  # of many kinds
        raise UserError(f"--executor ray: cannot start or reach Ray: {one_line(error)}") from error
    return ray
