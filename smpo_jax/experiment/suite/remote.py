"""What an engine runs: one batch, in a process that may be on another machine.

Imports nothing of jax's before the environment is as it was where the suite was started: jax reads
it once.
"""

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any

SHARED = ("JAX_", "XLA_", "PJRT_", "NPROC")  # how the names begin that say how JAX computes


@dataclasses.dataclass(frozen=True)
class RemoteBatch:
    """A batch to train, as it can be pickled.

    Attributes:
        folder: the suite's folder, absolute, on a disk that the machines share.
        cells: their names.
        environment: variables that are set there; None removes one.
        where: the working directory, in which modules of the user's own are found.
        stops_on_signal: whether SIGINT and SIGTERM mean to save and end; else they are left to the
            engine.
    """

    folder: str
    cells: tuple[str, ...]
    environment: Mapping[str, str | None]
    where: str
    stops_on_signal: bool

    def __call__(self) -> None:
        """Trains it, and shows how it fares on stdout.

        Raises:
            OSError: the machine does not have the folders.
        """
        for name, value in self.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        os.chdir(self.where)
        from smpo_jax.experiment.suite.executor import train_named

        train_named(self.folder, self.cells, stops_on_signal=self.stops_on_signal)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again when this is preempted: the same.

        Checkpoints of the cells are on the disk, and runs go on from the newest.
        """
        helpers: Any = importlib.import_module("submitit.helpers")
        return helpers.DelayedSubmission(self)


def run(batch: RemoteBatch) -> None:
    """Trains it: the function that Ray knows by name."""
    batch()


def shared_environment() -> dict[str, str | None]:
    """What here says how JAX computes."""
    return {name: value for name, value in os.environ.items() if name.startswith(SHARED)}
