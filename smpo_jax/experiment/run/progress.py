"""What a run shows while it trains: a live bar on a terminal, plain lines elsewhere."""

import math
import sys
from typing import Protocol, TextIO

from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.settings.config import Config


class Progress(Protocol):
    """Something a person watches."""

    def say(self, message: str) -> None:
        """Shows a message that stays."""
        ...

    def update(self, row: Row, steps_per_second: float) -> None:
        """Shows the newest iteration."""
        ...

    def close(self) -> None:
        """Leaves the screen tidy."""
        ...


def make_progress(config: Config) -> Progress:
    """The display that suits where stdout goes."""
    stream = sys.stdout
    return ProgressBar(config, stream) if stream.isatty() else ProgressLines(config, stream)


class LatestEpisodes:
    """The newest return and cost; an iteration in which no episode finished has none."""

    def __init__(self) -> None:
        self.return_ = math.nan
        self.cost = math.nan

    def take(self, row: Row) -> None:
        """Notes those of a row."""
        if row.get("episode/count", 0) > 0:
            self.return_, self.cost = row["episode/return"], row["episode/cost"]

    def describe(self, limit: float) -> str:
        """Both in words."""
        if math.isnan(self.return_):
            return "no episode finished yet"
        return f"return {self.return_:.2f}   cost {self.cost:.1f} (limit {limit:g})"


class ProgressLines:
    """One line for every report."""

    def __init__(self, config: Config, stream: TextIO) -> None:
        self._config = config
        self._stream = stream
        self._latest = LatestEpisodes()

    def say(self, message: str) -> None:
        """Prints the message."""
        print(message, file=self._stream, flush=True)

    def update(self, row: Row, steps_per_second: float) -> None:
        """Prints the line."""
        self._latest.take(row)
        left = _time_left(self._config, row, steps_per_second)
        self.say(
            f"{_share(self._config, row):4.0%}   steps {row['steps']:,}   "
            f"{self._latest.describe(self._config.cost_limit)}   "
            f"{steps_per_second:,.0f} steps/s   {clock(left)} left"
        )

    def close(self) -> None:
        """Nothing to tidy."""


class ProgressBar:
    """A bar that redraws itself."""

    def __init__(self, config: Config, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._config = config
        self._latest = LatestEpisodes()
        self._bar = RichProgress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=Console(file=stream),
        )
        self._task = self._bar.add_task("compiling", total=config.total_iterations)
        self._bar.start()

    def say(self, message: str) -> None:
        """Prints the message above the bar."""
        self._bar.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def update(self, row: Row, steps_per_second: float) -> None:
        """Redraws the bar."""
        self._latest.take(row)
        left = _time_left(self._config, row, steps_per_second)
        self._bar.update(
            self._task,
            completed=row["iteration"],
            description=f"{self._latest.describe(self._config.cost_limit)}   "
            f"{steps_per_second:,.0f} steps/s   {clock(left)} left",
            refresh=True,
        )

    def close(self) -> None:
        """Stops redrawing."""
        self._bar.stop()


def _share(config: Config, row: Row) -> float:
    return row["iteration"] / config.total_iterations


def _time_left(config: Config, row: Row, steps_per_second: float) -> float:
    iterations = config.total_iterations - row["iteration"]
    return iterations * config.steps_per_iteration / steps_per_second


def clock(seconds: float) -> str:
    """Seconds as people read them: 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
