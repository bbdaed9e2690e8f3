"""How cells fare, from their folders: for those that are trained somewhere else."""

import contextlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from smpo_jax.experiment.run.writers import METRICS_JSONL, TIMING_CSV, Row
from smpo_jax.experiment.settings.config_file import CONFIG_FILE
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.displays import SuiteDisplay
from smpo_jax.experiment.suite.grid import Cell

TAIL = 1 << 16  # bytes in which the last line of a file is looked for


class FolderWatch:
    """Tells a display what is new in the folders of some cells."""

    def __init__(self, cells: Sequence[Cell], folder: Path) -> None:
        self._folder = folder
        under_way = [cell for cell in cells if suite_folder.is_to_run(folder, cell)]
        self._left = [_CellWatch(cell, folder / cell.name) for cell in under_way]

    def pass_on(self, display: SuiteDisplay) -> None:
        """Tells what has changed since the last time."""
        for watch in list(self._left):
            name = watch.cell.name
            status = suite_folder.status(self._folder, watch.cell)
            watch.pass_on(display)
            if status == "done":
                display.finished(name)
                self._left.remove(watch)
            elif status == "failed":
                display.failed(name, suite_folder.error(self._folder, watch.cell))
                self._left.remove(watch)


class _CellWatch:
    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell = cell
        self._folder = folder
        self._seen = self._version()
        self._is_started = False

    def pass_on(self, display: SuiteDisplay) -> None:
        version = self._version()
        if version == self._seen:
            return
        self._seen = version
        if not self._is_started:
            self._is_started = True
            display.started(self.cell.name)
        row = _newest_row(self._folder / METRICS_JSONL)
        if row:
            display.update(self.cell.name, row, _newest_rate(self._folder / TIMING_CSV))

    def _version(self) -> tuple[bool, int, int]:
        """Another one whenever the run has begun or written something."""
        begun = (self._folder / CONFIG_FILE).is_file()
        try:
            found = os.stat(self._folder / METRICS_JSONL)
        except OSError:
            return begun, 0, 0
        return begun, found.st_size, found.st_mtime_ns


def _newest_row(path: Path) -> Row:
    """The last whole line, while the file may grow; nothing if there is none."""
    with contextlib.suppress(ValueError):
        row = json.loads(_last_line(path))
        return {name: math.nan if value is None else value for name, value in row.items()}
    return {}


def _newest_rate(path: Path) -> float:
    """Steps per second of the newest report; 0 if there is none."""
    with contextlib.suppress(ValueError):
        return float(_last_line(path).rpartition(",")[2])
    return 0.0


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            whole = file.read().split(b"\n")[:-1]
    except OSError:
        return ""
    return whole[-1].decode(errors="replace") if whole else ""
