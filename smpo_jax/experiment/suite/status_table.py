"""How the cells of a suite fare, summed up for those who watch."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from smpo_jax.experiment.run.progress import LatestEpisodes, clock, limits_told
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.suite_folder import Status


class _CellState:
    """What is known of a cell."""

    def __init__(self, cell: Cell, status: Status) -> None:
        self.cell = cell
        self.status = status
        self.latest = LatestEpisodes()
        self.first: int | None = None  # steps at the first report of this process
        self.steps = cell.config.total_steps if status == "done" else 0
        self.rate = 0.0


class VariantRow(NamedTuple):
    """A variant on a task, in numbers; return and cost are means over the seeds that have some."""

    name: str
    done: int
    cells: int
    share: float  # of all steps
    return_: float
    costs: tuple[float, ...]  # of each constraint; none if no episode has finished
    limit: str


class StatusTable:
    """How all cells fare, kept up to date by a `SuiteDisplay`."""

    def __init__(self, cells: Mapping[str, tuple[Cell, Status]]) -> None:
        self._entries = {name: _CellState(cell, status) for name, (cell, status) in cells.items()}
        self._began = time.monotonic()

    def started(self, cell: str) -> None:
        """Notes it."""
        self._entries[cell].status = "begun"

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """Notes the newest iteration."""
        entry = self._entries[cell]
        if entry.first is None:
            entry.first = entry.steps or row["steps"]
        entry.steps, entry.rate = row["steps"], steps_per_second
        entry.latest.take(row)

    def ended(self, cell: str, status: Status) -> None:
        """Notes that it is done or has failed."""
        entry = self._entries[cell]
        entry.status, entry.rate = status, 0.0

    def count(self, status: Status) -> int:
        """How many cells are in that state."""
        return sum(entry.status == status for entry in self._entries.values())

    def rate(self) -> float:
        """Steps per second of what runs now."""
        return sum(entry.rate for entry in self._entries.values())

    def seconds_left(self) -> float:
        """Until the last cell is done, at the mean speed so far; NaN before there is one."""
        entries = self._entries.values()
        made = sum(each.steps - each.first for each in entries if each.first is not None)
        left = sum(
            max(0, each.cell.config.total_steps - each.steps)
            for each in entries
            if each.status in ("waiting", "begun")
        )
        seconds = time.monotonic() - self._began
        return left * seconds / made if made else math.nan

    def summary(self) -> str:
        """All of it in a line."""
        left = self.seconds_left()
        parts = [f"{self.count('done')} of {len(self._entries)} cells done"]
        parts += [
            f"{self.count(status)} {word}"
            for status, word in (("begun", "running"), ("failed", "failed"), ("waiting", "waiting"))
        ]
        return (
            f"{', '.join(parts)}   {self.rate():,.0f} steps/s   "
            f"{'?' if math.isnan(left) else clock(left)} left"
        )

    def variants(self) -> list[VariantRow]:
        """One row for every task and variant."""
        groups: dict[str, list[_CellState]] = {}
        for entry in self._entries.values():
            name = f"{entry.cell.config.env}  {entry.cell.variant}"
            groups.setdefault(name, []).append(entry)
        return [_variant_row(name, group) for name, group in groups.items()]

    def describe(self, cell: str) -> str:
        """The newest return and cost of a cell."""
        entry = self._entries[cell]
        return entry.latest.describe(entry.cell.config.cost_limit)


def _variant_row(name: str, group: list[_CellState]) -> VariantRow:
    known = [each.latest.costs.values() for each in group if each.latest.costs]
    return VariantRow(
        name,
        sum(each.status == "done" for each in group),
        len(group),
        sum(each.steps for each in group) / sum(each.cell.config.total_steps for each in group),
        _mean(each.latest.return_ for each in group),
        tuple(_mean(own) for own in zip(*known, strict=True)),
        " ".join(sorted({limits_told(each.cell.config.cost_limit) for each in group})),
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
