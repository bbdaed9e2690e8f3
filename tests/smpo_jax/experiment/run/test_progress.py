"""What a person sees of a run, on a terminal of 80 columns and in a notebook."""

import io
import sys

import pytest
from rich.console import Console
from rich.text import Text

from smpo_jax.experiment.run import progress
from smpo_jax.experiment.run.progress import (
    Bar,
    NotebookBar,
    ProgressLines,
    Silence,
    TerminalBar,
    make_progress,
)
from smpo_jax.experiment.settings.config import Config

CONFIG = Config(env="ProbeFollow", algo="ppo", steps=320_000_000, cost_limit=1000.0)
ROWS = [
    {"iteration": i, "steps": 32_000 * i, "episode/count": 9.0, "episode/return": -12345.678,
     "episode/cost": 12345.6}
    for i in (100, 4321)
]  # fmt: skip


@pytest.fixture
def clock():
    """Seconds that rich's clock shows, for tests to move."""
    return [0.0]


def console(width, clock):
    stream = io.StringIO()
    options = {"force_terminal": True, "get_time": lambda: clock[0], "color_system": None}
    return Console(file=stream, width=width, **options)


def lines(shown):
    """What has been written, without control codes."""
    return Text.from_ansi(shown.file.getvalue()).plain.replace("\r", "\n").splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_bar_fits_and_cuts_nothing_that_matters(width, clock):
    shown = console(width, clock)
    bar = Bar(CONFIG, shown)
    for row in ROWS:
        clock[0] += 1000.0
        bar.take(row, 123_456.0)
    shown.print(bar.picture)
    (line,) = lines(shown)
    assert len(line) <= width
    # 4221 iterations in 1000 s, 5679 are left
    for part in (" 43%", "return -12345.68", "cost 12345.6/1000", "123,456 steps/s", "22:26 left"):
        assert part in line
    assert "\u2501" in line  # the bar


def test_bar_says_that_no_episode_has_ended(clock):
    shown = console(80, clock)
    bar = Bar(CONFIG, shown)
    bar.take({"iteration": 1, "steps": 32_000, "episode/count": 0.0}, 10.0)
    shown.print(bar.picture)
    assert "no episode yet" in lines(shown)[0]


def test_terminal_shows_a_spinner_and_a_clock_while_compiling_then_one_bar(clock):
    shown = console(80, clock)
    bar = TerminalBar(CONFIG, shown)
    with bar.compiling():
        clock[0] = 65.0
    bar.say("compiled [bold]")
    for row in ROWS:
        bar.update(row, 123_456.0)
    bar.close()
    text = lines(shown)
    assert any("compiling 0:01:05" in line for line in text)
    assert "compiled [bold]" in text
    assert "43%" in text[-1] and max(map(len, text)) <= 80


def test_notebook_has_one_output_that_is_redrawn(monkeypatch, capsys):
    published = []

    class Publisher:
        def publish(self, data, metadata=None, *, transient, update=False, **_):
            published.append((update, transient, data))

    from IPython.core import formatters
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        monkeypatch.setattr(shell, "display_pub", Publisher())
        monkeypatch.setattr(progress, "TICK", 0.01)
        assert isinstance(shell.display_formatter, formatters.DisplayFormatter)
        bar = NotebookBar(CONFIG)
        with bar.compiling():
            while len(published) < 3:
                pass
        bar.say("compiled")
        for row in ROWS:
            bar.update(row, 123_456.0)
        bar.close()
    finally:
        InteractiveShell.clear_instance()
    assert [update for update, *_ in published] == [False] + [True] * (len(published) - 1)
    assert len({transient["display_id"] for _, transient, _ in published}) == 1
    assert "compiling" in published[0][2]["text/html"]
    assert "return -12345.68" in published[-1][2]["text/html"]
    assert capsys.readouterr().out == "compiled\n"


def test_display_suits_where_stdout_goes(monkeypatch):
    assert isinstance(make_progress(CONFIG, quiet=True), Silence)
    assert isinstance(make_progress(CONFIG), ProgressLines)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(CONFIG), TerminalBar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(CONFIG), ProgressLines)
