"""What a run shows while it trains: a live bar on a terminal or in a notebook, lines elsewhere."""

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

from smpo_jax.experiment.run.writers import Row, costs_of
from smpo_jax.experiment.settings.config import Config, CostLimit, in_full

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

TICK = 0.5  # seconds between two pictures of the clock in a notebook


class Progress(Protocol):
    """Something a person watches."""

    def say(self, message: str) -> None:
        """Shows a message that stays."""
        ...

    def compiling(self) -> AbstractContextManager[None]:
        """Shows that the run is being compiled, as long as it is."""
        ...

    def update(self, row: Row, steps_per_second: float) -> None:
        """Shows the newest iteration."""
        ...

    def close(self) -> None:
        """Leaves the screen tidy."""
        ...


def make_progress(config: Config, *, quiet: bool = False) -> Progress:
    """The display that suits where stdout goes."""
    if quiet:
        return Silence()
    from rich.console import Console

    console = Console(file=sys.stdout)
    if console.is_jupyter:
        return NotebookBar(config)
    return TerminalBar(config, console) if is_live(console) else ProgressLines(config, sys.stdout)


def is_live(console: "Console") -> bool:
    """Whether what it shows can be redrawn; a variable may say so of what is no terminal."""
    return console.file.isatty() and console.is_interactive


class LatestEpisodes:
    """The newest return and cost; an iteration in which no episode finished has none."""

    def __init__(self) -> None:
        self.return_ = math.nan
        self.costs: dict[str, float] = {}  # `cost`, or `cost/NAME` of each

    def take(self, row: Row) -> None:
        """Notes those of a row."""
        if row.get("episode/count", 0) > 0:
            self.return_ = row["episode/return"]
            self.costs = costs_of(row)

    def describe(self, limits: CostLimit) -> str:
        """All of them in words."""
        if math.isnan(self.return_):
            return "no episode finished yet"
        words = [f"{name.replace('/', ' ')} {cost:.1f}" for name, cost in self.costs.items()]
        return f"return {self.return_:.2f}   {', '.join(words)} (limit {limits_told(limits)})"


class Silence:
    """Nothing: the program around the run watches, if anybody does."""

    def say(self, message: str) -> None:
        """Is not heard."""

    def compiling(self) -> AbstractContextManager[None]:
        """Is not seen."""
        return contextlib.nullcontext()

    def update(self, row: Row, steps_per_second: float) -> None:
        """Is not seen."""

    def close(self) -> None:
        """Nothing to tidy."""


class ProgressLines:
    """One line for every report."""

    def __init__(self, config: Config, stream: TextIO) -> None:
        self._config = config
        self._stream = stream
        self._latest = LatestEpisodes()

    def say(self, message: str) -> None:
        """Prints the message."""
        print(message, file=self._stream, flush=True)

    def compiling(self) -> AbstractContextManager[None]:
        """Shows nothing."""
        return contextlib.nullcontext()

    def update(self, row: Row, steps_per_second: float) -> None:
        """Prints the line."""
        self._latest.take(row)
        iterations = self._config.total_iterations - row["iteration"]
        left = iterations * self._config.steps_per_iteration / steps_per_second
        self.say(
            f"{row['iteration'] / self._config.total_iterations:4.0%}   steps {row['steps']:,}   "
            f"{self._latest.describe(self._config.cost_limit)}   "
            f"{steps_per_second:,.0f} steps/s   {clock(left)} left"
        )

    def close(self) -> None:
        """Nothing to tidy."""


class TerminalBar:
    """A bar that redraws itself; before it, a spinner and a clock while the run is compiled."""

    def __init__(self, config: Config, console: "Console") -> None:
        self._console = console
        self._bar = Bar(config, console)

    def say(self, message: str) -> None:
        """Prints the message above the bar."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """A spinner and a clock."""
        with _spinner(self._console):
            yield

    def update(self, row: Row, steps_per_second: float) -> None:
        """Redraws the bar."""
        self._bar.take(row, steps_per_second)
        self._bar.picture.start()  # the first time
        self._bar.picture.refresh()

    def close(self) -> None:
        """Stops redrawing."""
        self._bar.picture.stop()


class NotebookBar:
    """The same in a notebook's output, where one picture takes the place of the one before.

    Rich's own way needs ipywidgets, and leaves nothing in a notebook that is saved.
    """

    def __init__(self, config: Config) -> None:
        from IPython.display import DisplayHandle
        from rich.console import Console

        self._console = Console()
        self._bar = Bar(config, self._console)
        self._output = DisplayHandle()
        self._show = self._output.display  # the first time

    def say(self, message: str) -> None:
        """Prints the message."""
        print(message, flush=True)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """A spinner and a clock."""
        spinner = _spinner(self._console)
        self._draw(spinner)
        with _repeatedly(lambda: self._draw(spinner)):
            yield

    def update(self, row: Row, steps_per_second: float) -> None:
        """Redraws the bar."""
        self._bar.take(row, steps_per_second)
        self._draw(self._bar.picture)

    def close(self) -> None:
        """Nothing to tidy."""

    def _draw(self, picture: "RichProgress") -> None:
        self._show(picture)
        self._show = self._output.update


class Bar:
    """Percentage, bar, return, cost, speed and time left: within 80 columns, in this order.

    The bar has what the others leave.

    Attributes:
        picture: what rich draws.
    """

    def __init__(self, config: Config, console: "Console") -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._config = config
        self._latest = LatestEpisodes()
        self.picture = RichProgress(
            TaskProgressColumn(),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            expand=True,
            speed_estimate_period=math.inf,  # reports may be minutes apart
        )
        self._task = self.picture.add_task("", total=config.total_iterations)

    def take(self, row: Row, steps_per_second: float) -> None:
        """Notes the newest iteration."""
        self._latest.take(row)
        return_, costs = self._latest.return_, self._latest.costs.values()
        episodes = (
            "no episode yet"
            if math.isnan(return_)
            else f"return {return_:.2f}  cost {_against(costs, self._config.cost_limit)}"
        )
        self.picture.update(
            self._task,
            completed=row["iteration"],
            description=f"{episodes}  {steps_per_second:,.0f} steps/s",
        )


def _spinner(console: "Console") -> "RichProgress":
    from rich.progress import Progress as RichProgress
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("compiling"), TimeElapsedColumn()
    spinner = RichProgress(*columns, console=console, transient=True)
    spinner.add_task("", total=None)
    return spinner


@contextlib.contextmanager
def _repeatedly(action: Callable[[], None]) -> Iterator[None]:
    """Does it now and then, in a thread of its own."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(TICK):
            action()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def limits_told(limits: CostLimit) -> str:
    """All limits, for people."""
    return ", ".join(f"{limit:g}" for limit in in_full(limits))


def _against(costs: Iterable[float], limits: CostLimit) -> str:
    pairs = zip(costs, in_full(limits), strict=True)
    return " ".join(f"{cost:.1f}/{limit:g}" for cost, limit in pairs)


def clock(seconds: float) -> str:
    """Seconds as people read them: 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
