"""What a suite shows while it runs: a live table on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TextIO

from smpo_jax.experiment.run.progress import Latest, clock
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.suite_folder import Status

EVERY = 10.0  # seconds between two plain lines of summary


class Display(Protocol):
    """Something that is told how cells fare."""

    def say(self, message: str) -> None:
        """Shows a message that stays."""
        ...

    def started(self, cell: str) -> None:
        """A cell is being trained from now on."""
        ...

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """The newest iteration of a cell."""
        ...

    def finished(self, cell: str) -> None:
        """A cell is done."""
        ...

    def failed(self, cell: str, error: str) -> None:
        """A cell cannot go on, in this run of the suite at least."""
        ...


class _Entry:
    """What is known of a cell."""

    def __init__(self, cell: Cell, status: Status) -> None:
        self.cell = cell
        self.status = status
        self.latest = Latest()
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
    cost: float
    limit: str


class Board:
    """The state of all cells, told of by a `Display`'s methods."""

    def __init__(self, cells: Mapping[str, tuple[Cell, Status]]) -> None:
        self._entries = {name: _Entry(cell, status) for name, (cell, status) in cells.items()}
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
        groups: dict[str, list[_Entry]] = {}
        for entry in self._entries.values():
            name = f"{entry.cell.config.env}  {entry.cell.variant}"
            groups.setdefault(name, []).append(entry)
        return [_variant_row(name, group) for name, group in groups.items()]

    def describe(self, cell: str) -> str:
        """The newest return and cost of a cell."""
        entry = self._entries[cell]
        return entry.latest.describe(entry.cell.config.cost_limit)


def _variant_row(name: str, group: list[_Entry]) -> VariantRow:
    return VariantRow(
        name,
        sum(each.status == "done" for each in group),
        len(group),
        sum(each.steps for each in group) / sum(each.cell.config.total_steps for each in group),
        _mean(each.latest.return_ for each in group),
        _mean(each.latest.cost for each in group),
        " ".join(sorted({f"{each.cell.config.cost_limit:g}" for each in group})),
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


class Plain:
    """A line when a cell begins or ends, and every now and then a summary."""

    def __init__(self, board: Board, stream: TextIO) -> None:
        self._board = board
        self._stream = stream
        self._summed_up = time.monotonic()

    def say(self, message: str) -> None:
        """Prints the message."""
        print(message, file=self._stream, flush=True)

    def started(self, cell: str) -> None:
        """Prints its name."""
        self._board.started(cell)
        self.say(f"{cell}: training")

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """Prints a summary if it is time for one."""
        self._board.update(cell, row, steps_per_second)
        if time.monotonic() - self._summed_up >= EVERY:
            self._summed_up = time.monotonic()
            self.say(f"{self._board.summary()}   {cell}: {self._board.describe(cell)}")

    def finished(self, cell: str) -> None:
        """Prints where it ended."""
        self._board.ended(cell, "done")
        self.say(f"{cell}: done, {self._board.describe(cell)}")

    def failed(self, cell: str, error: str) -> None:
        """Prints why."""
        self._board.ended(cell, "failed")
        self.say(f"{cell}: failed: {error}")

    def close(self) -> None:
        """Nothing to tidy."""


class Live:
    """A table that redraws itself."""

    def __init__(self, board: Board, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._board = board
        self._live = RichLive(
            console=Console(file=stream), get_renderable=self._table, refresh_per_second=2
        )
        self._live.start()

    def say(self, message: str) -> None:
        """Prints the message above the table."""
        self._live.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def started(self, cell: str) -> None:
        """Redraws."""
        self._board.started(cell)

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """Redraws."""
        self._board.update(cell, row, steps_per_second)

    def finished(self, cell: str) -> None:
        """Redraws."""
        self._board.ended(cell, "done")

    def failed(self, cell: str, error: str) -> None:
        """Prints why, above the table."""
        self._board.ended(cell, "failed")
        self.say(f"{cell}: failed: {error}")

    def close(self) -> None:
        """Leaves the last table on the screen."""
        self._live.stop()

    def _table(self):
        from rich.table import Table

        table = Table(caption=self._board.summary(), caption_justify="left", box=None)
        table.add_column("")
        for name in ("cells", "steps", "return", "cost", "limit"):
            table.add_column(name, justify="right")
        for row in self._board.variants():
            table.add_row(
                row.name,
                f"{row.done}/{row.cells}",
                f"{row.share:.0%}",
                *("-" if math.isnan(x) else f"{x:.2f}" for x in (row.return_, row.cost)),
                row.limit,
            )
        return table


def make_display(board: Board) -> Plain | Live:
    """The display that suits where stdout goes."""
    return Live(board, sys.stdout) if sys.stdout.isatty() else Plain(board, sys.stdout)
