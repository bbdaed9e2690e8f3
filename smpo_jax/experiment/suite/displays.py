"""What a suite shows while it runs: a live table on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from smpo_jax.experiment.run.progress import is_live
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.suite.status_table import StatusTable

if TYPE_CHECKING:
    from rich.console import Console, Group

EVERY = 10.0  # seconds between two plain lines of summary


class SuiteDisplay(Protocol):
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


class StatusLines:
    """A line when a cell begins or ends, and every now and then a summary."""

    def __init__(self, cells: StatusTable, stream: TextIO) -> None:
        self._cells = cells
        self._stream = stream
        self._summed_up = time.monotonic()

    def say(self, message: str) -> None:
        """Prints the message."""
        print(message, file=self._stream, flush=True)

    def started(self, cell: str) -> None:
        """Prints its name."""
        self._cells.started(cell)
        self.say(f"{cell}: training")

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """Prints a summary if it is time for one."""
        self._cells.update(cell, row, steps_per_second)
        if time.monotonic() - self._summed_up >= EVERY:
            self._summed_up = time.monotonic()
            self.say(f"{self._cells.summary()}   {cell}: {self._cells.describe(cell)}")

    def finished(self, cell: str) -> None:
        """Prints where it ended."""
        self._cells.ended(cell, "done")
        self.say(f"{cell}: done, {self._cells.describe(cell)}")

    def failed(self, cell: str, error: str) -> None:
        """Prints why."""
        self._cells.ended(cell, "failed")
        self.say(f"{cell}: failed: {error}")

    def close(self) -> None:
        """Nothing to tidy."""


class LiveTable:
    """A table that redraws itself."""

    def __init__(self, cells: StatusTable, console: "Console") -> None:
        from rich.live import Live as RichLive

        self._cells = cells
        self._live = RichLive(console=console, get_renderable=self._picture, refresh_per_second=2)
        self._live.start()

    def say(self, message: str) -> None:
        """Prints the message above the table."""
        self._live.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def started(self, cell: str) -> None:
        """Redraws."""
        self._cells.started(cell)

    def update(self, cell: str, row: Row, steps_per_second: float) -> None:
        """Redraws."""
        self._cells.update(cell, row, steps_per_second)

    def finished(self, cell: str) -> None:
        """Redraws."""
        self._cells.ended(cell, "done")

    def failed(self, cell: str, error: str) -> None:
        """Prints why, above the table."""
        self._cells.ended(cell, "failed")
        self.say(f"{cell}: failed: {error}")

    def close(self) -> None:
        """Leaves the last table on the screen."""
        self._live.stop()

    def _picture(self) -> "Group":
        """The table and the summary; where it is narrow, names are folded and no number is cut."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None)
        table.add_column("", overflow="fold")
        for name in ("cells", "steps", "return", "cost"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("limit", justify="right", overflow="fold")
        for row in self._cells.variants():
            table.add_row(
                Text(row.name),
                f"{row.done}/{row.cells}",
                f"{row.share:.0%}",
                "-" if math.isnan(row.return_) else f"{row.return_:.2f}",
                ", ".join(f"{cost:.2f}" for cost in row.costs) or "-",
                row.limit,
            )
        return Group(table, Text(self._cells.summary()))


def make_display(cells: StatusTable) -> StatusLines | LiveTable:
    """The display that suits where stdout goes."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    return LiveTable(cells, console) if is_live(console) else StatusLines(cells, sys.stdout)
