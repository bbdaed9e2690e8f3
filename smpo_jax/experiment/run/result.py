"""What a run leaves to the program that made it, and how that program listens."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from smpo_jax.experiment.run.writers import Row

OnReport = Callable[[Row], bool | None]


@dataclasses.dataclass(frozen=True)
class RunResult(os.PathLike[str]):
    """A run that has ended: its folder, and how far it came.

    It stands for its folder wherever a path is taken: `load_policy(result)`, `open(result /
    "metrics.csv")`.

    Attributes:
        folder: config, metrics and checkpoints.
        metrics: the newest row of `metrics.csv`: iteration, steps, episode/return, ...
        stopped: `on_report` or a signal ended it early; it can be resumed.
        exit_status: what the command exits with: 0, or 130 or 143 after a signal.
    """

    folder: Path
    metrics: Row
    stopped: bool = False
    exit_status: int = 0

    def __fspath__(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        """A file in the folder."""
        return self.folder / name

    __str__ = __fspath__


class Listener(NamedTuple):
    """The program around a run.

    Attributes:
        quiet: it is told nothing on stdout, and signals are its own business.
        on_report: takes the newest row of each report; true ends the run. What it raises goes
            through, once the run is saved.
    """

    quiet: bool = False
    on_report: OnReport | None = None


NOBODY = Listener()
