import io
import math
import time

import pytest
from rich.console import Console
from rich.text import Text

from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.suite import displays
from smpo_jax.experiment.suite.displays import LiveTable, StatusLines
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.status_table import StatusTable
from smpo_jax.experiment.suite.suite_folder import Status


def row(steps, return_=1.0, cost=2.0):
    return {
        "steps": steps, "episode/count": 3.0, "episode/return": return_, "episode/cost": cost,
    }  # fmt: skip


@pytest.fixture
def seen(monkeypatch):
    """A table of two variants with two seeds each of 1000 steps, one cell of them done."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    cells: dict[str, tuple[Cell, Status]] = {}
    for variant in ("a", "b"):
        for seed in (0, 1):
            config = Config(
                env="ProbeFollow", algo="ppo", seed=seed, steps=1000, num_envs=10,
                rollout_length=10, cost_limit=5.0,
            )  # fmt: skip
            cell = Cell(variant, config)
            cells[cell.name] = (cell, "done" if (variant, seed) == ("a", 0) else "waiting")
    return StatusTable(cells), clock


def test_summary_counts_cells_and_extrapolates_the_speed_so_far(seen):
    found, clock = seen
    assert "1 of 4 cells done, 0 running, 0 failed, 3 waiting" in found.summary()
    assert math.isnan(found.seconds_left()) and "? left" in found.summary()
    found.started("ProbeFollow/a/seed1")
    found.update("ProbeFollow/a/seed1", row(100), 10.0)
    clock[0] += 50.0
    found.update("ProbeFollow/a/seed1", row(600), 20.0)
    # 500 steps in 50 s; 400 + 1000 + 1000 are left
    assert found.seconds_left() == pytest.approx(240.0)
    assert found.summary() == (
        "1 of 4 cells done, 1 running, 0 failed, 2 waiting   20 steps/s   4:00 left"
    )
    found.ended("ProbeFollow/a/seed1", "failed")
    assert "0 running, 1 failed" in found.summary() and found.rate() == 0.0


def test_variants_have_means_over_the_seeds_that_have_numbers(seen):
    found, _ = seen
    found.update("ProbeFollow/b/seed0", row(500, return_=1.0, cost=4.0), 1.0)
    found.update("ProbeFollow/b/seed1", row(250, return_=3.0, cost=8.0), 1.0)
    a, b = found.variants()
    assert (a.name, a.done, a.cells, a.share, a.limit) == ("ProbeFollow  a", 1, 2, 0.5, "5")
    assert math.isnan(a.return_)
    assert (b.done, b.share, b.return_, b.costs) == (0, 0.375, 2.0, (6.0,))


@pytest.mark.parametrize("kind", [StatusLines, LiveTable])
def test_display_tells_of_beginnings_ends_and_failures(seen, kind, monkeypatch):
    monkeypatch.setattr(displays, "EVERY", 0.0)
    found, _ = seen
    stream = io.StringIO()
    display = kind(found, Console(file=stream) if kind is LiveTable else stream)
    display.say("hello [bold]")
    display.started("ProbeFollow/b/seed0")
    display.update("ProbeFollow/b/seed0", row(500), 7.0)
    display.failed("ProbeFollow/b/seed0", "diverged: iteration 3")
    display.finished("ProbeFollow/b/seed1")
    display.close()
    text = stream.getvalue()
    assert "hello [bold]" in text
    assert "ProbeFollow/b/seed0: failed: diverged: iteration 3" in text
    assert "2 of 4 cells done" in text if kind is LiveTable else "7 steps/s" in text


@pytest.mark.parametrize("width", [60, 80])
def test_table_is_whole_in_a_narrow_terminal(width):
    names = ["ppo", "ours,threshold_feedback=0.0500,cost_limit=25.0,weight_temperature=30.0"]
    cells: dict[str, tuple[Cell, Status]] = {}
    for name in names:
        cell = Cell(name, Config(env="ProbeFollow", algo="ppo", steps=10_000_000))
        cells[cell.name] = (cell, "waiting")
    found = StatusTable(cells)
    for name in cells:
        found.update(name, row(5_008_000, return_=-1234.56, cost=1234.5), 123456.0)
    stream = io.StringIO()
    display = LiveTable(found, Console(file=stream, width=width, force_terminal=True))
    display.close()
    lines = Text.from_ansi(stream.getvalue()).plain.splitlines()
    assert max(map(len, lines)) <= width
    for number in ("0/1", "50%", "-1234.56", "1234.50", "25"):
        assert sum(number in line for line in lines) >= 2
    left = next(line.index("cells") for line in lines if "cells" in line)
    assert names[1] in "".join(line[: left - 1].strip() for line in lines)
    assert "246,912 steps/s" in " ".join(" ".join(lines).split())
