"""Evaluations that go in pieces: whether their results fit, and how far they are."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator

from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import PROGRAM
from smpo_jax.experiment.run.progress import clock, is_live
from smpo_jax.experiment.settings.config import Config

PAUSE = 30.0  # seconds between two lines where none can be rewritten

Show = Callable[[int], None]


def require_fit(config: Config, episodes: int) -> None:
    """Raises a `UserError` with the largest number that fits if what is kept of these cannot."""
    each = sizes.FLOAT * (2 + len(config.limits))  # return, length and costs
    sizes.require_fits("episodes", episodes, each, of_host=True)


@contextlib.contextmanager
def shown(episodes: int) -> Iterator[Show]:
    """Takes how many episodes have been played, and shows it on stderr with the time left.

    On a terminal that is one line, which is rewritten and goes in the end; elsewhere one now and
    then. Nothing is shown of what is over at once.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not is_live(console):
        yield _lines(episodes)
        return
    picture = Progress(
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} episodes"),
        BarColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
        speed_estimate_period=math.inf,
    )
    task = picture.add_task("", total=episodes)

    def show(played: int) -> None:
        picture.update(task, completed=played)
        picture.start()  # the first time

    try:
        yield show
    finally:
        picture.stop()


def _lines(episodes: int) -> Show:
    began = told = time.monotonic()

    def show(played: int) -> None:
        nonlocal told
        now = time.monotonic()
        if played and now - told >= PAUSE:
            told, left = now, (now - began) * (episodes / played - 1)
            print(
                f"{PROGRAM}: {played:,} of {episodes:,} episodes, {clock(left)} left",
                file=sys.stderr,
            )

    return show
