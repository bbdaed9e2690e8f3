"""Reports on folders that are written by hand, so that every number can be checked."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.grid import expand
from smpo_jax.experiment.suite.report import figures, measures, published
from smpo_jax.experiment.suite.suite_folder import Suite

HEAD = [
    "iteration", "steps", "episode/cost", "episode/count", "episode/length", "episode/over_limit",
    "episode/return",
]  # fmt: skip


def suite(folder, text):
    """A suite's folder, of which no cell has begun; iterations are of 100 steps."""
    plain = {"steps": 1000, "num_envs": 10, "rollout_length": 10, "cost_limit": 5, **text}
    cells = expand(plain, where="test")
    Path(folder).mkdir()
    suite_folder.save(Suite(cells, [(cell.name,) for cell in cells]), Path(folder))
    return {cell.name: cell for cell in cells}


def run(folder, cell, rows, *, done=True, seconds=20.0):
    """The files of a cell; rows are (iteration, cost, count, length, share over, return)."""
    own = Path(folder) / cell.name
    own.mkdir(parents=True)
    config_file.save(cell.config, own)
    with open(own / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerows((i, 100 * i, *rest) for i, *rest in rows)
    (own / "timing.csv").write_text(
        f"iteration,steps,seconds,steps_per_second\n10,1000,{seconds},50.0\n"
    )
    (own / "checkpoints" / ("10" if done else "4")).mkdir(parents=True)
    return own


def ending(return_, cost, over=0.5):
    """Rows of a run in which every iteration has two episodes of 50 steps, all alike."""
    return [(i, cost, 2.0, 50.0, over, return_) for i in range(1, 11)]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_measures_of_a_cell_weigh_episodes_alike(tmp_path):
    (cell,) = suite(tmp_path / "s", {"tasks": ["ProbeFollow"], "variants": ["ppo"]}).values()
    rows = [
        (1, "nan", 0.0, "nan", "nan", "nan"),  # none had ended
        (2, 8.0, 1.0, 50.0, 1.0, -1.0),
        (9, 4.0, 1.0, 100.0, 0.0, 7.0),
        (10, 1.0, 3.0, 100.0, 0.5, 3.0),
    ]
    own = run(tmp_path / "s", cell, rows)
    last = measures.measure(own, 0.1)  # steps 901 to 1000: the last row
    assert (last.return_, last.cost, last.over_limit, last.episodes) == (3.0, 1.0, 0.5, 3.0)
    fifth = measures.measure(own, 0.2)  # the last two: (7 + 3 * 3) / 4, (4 + 3) / 4, 1.5 / 4
    assert (fifth.return_, fifth.cost, fifth.over_limit) == (4.0, 1.75, 0.375)
    # cost 8 + 4 + 3 in 50 + 100 + 300 steps of episodes; the run has 1000
    assert fifth.cost_rate == pytest.approx(15 / 450)
    assert fifth.cost_spent == pytest.approx(1000 * 15 / 450)
    assert (fifth.seconds, fifth.steps_per_second) == (20.0, 50.0)


def test_window_without_an_episode_says_so(tmp_path):
    (cell,) = suite(tmp_path / "s", {"tasks": ["ProbeFollow"], "variants": ["ppo"]}).values()
    own = run(tmp_path / "s", cell, [(5, 1.0, 1.0, 50.0, 0.0, 1.0)])
    with pytest.raises(UserError, match="ended in the last 10% of its steps: choose a larger"):
        measures.measure(own, 0.1)


@pytest.fixture
def mixed():
    """Two variants on two tasks; one cell failed, one unfinished, one never started."""
    cells = suite(
        "d", {"tasks": ["ProbeFollow", "ProbeExits"], "seeds": 2, "variants": ["ppo", "ppo_lag"]}
    )
    run("d", cells["ProbeFollow/ppo/seed0"], ending(1.0, 10.0))
    run("d", cells["ProbeFollow/ppo/seed1"], ending(3.0, 20.0), seconds=60.0)
    run("d", cells["ProbeFollow/ppo_lag/seed0"], ending(2.0, 4.0, 0.25))
    own = run("d", cells["ProbeFollow/ppo_lag/seed1"], ending(9.0, 9.0)[:4], done=False)
    (own / "error.txt").write_text("diverged: iteration 5: policy/kl is nan\n")
    run("d", cells["ProbeExits/ppo/seed0"], ending(5.0, 5.0))
    run("d", cells["ProbeExits/ppo/seed1"], ending(5.0, 6.0)[:4], done=False)
    return cells


def test_report_has_what_is_finished_and_names_what_is_not(command, mixed):
    result = command("report d --out r")
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1] == "r/report.md"
    text = Path("r/report.md").read_text()
    assert "4 of 8 cells are finished" in text
    for line in (
        "- `ProbeFollow/ppo_lag/seed1`: diverged: iteration 5: policy/kl is nan",
        "- `ProbeExits/ppo/seed1`: not finished",
        "- `ProbeExits/ppo_lag/seed0`: not started",
    ):
        assert line in text and line.removeprefix("- ").replace("`", "") in result.out
    # (1 + 3) / 2 and (10 + 20) / 2 of two seeds; a cost of 10 and 20 per 50 steps: 0.3 a step
    assert (
        "| `ppo` | 5 | 2 | 2.00 [1.00, 3.00] | 15.0 [10.0, 20.0] | 0.50 [0.50, 0.50] "
        "| 0.3000 [0.2000, 0.4000] | 300 [200, 400] | 0:40 | 33 |" in text
    )
    assert "| `ppo_lag` | 5 | 1 of 2 | 2.00 | 4.0 | 0.25 | 0.0800 | 80 | 0:20 | 50 |" in text
    assert "| `ppo_lag` | 5 | 0 of 2 | - | - | - | - | - | - | - |" in text
    # over both tasks only ppo: costs 10, 20 | 5 of a limit of 5, whose interquartile mean is
    # (2 + 4 + 1) / 3; one value in a stratum leaves no interval
    assert "| `ppo` | 2.33 | 0.50 |" in text
    for task in ("ProbeFollow", "ProbeExits"):
        for kind in ("scatter", "curves", "intervals"):
            assert f"]({kind}-{task}.png)" in text
            assert Path(f"r/{kind}-{task}.png").read_bytes().startswith(b"\x89PNG")


def test_tables_have_a_row_for_every_cell_and_every_variant(command, mixed):
    command("report d --out r")
    cells = read("r/cells.csv")
    assert [row["status"] for row in cells] == [
        "done", "done", "done", "failed", "done", "begun", "waiting", "waiting",
    ]  # fmt: skip
    assert (cells[1]["seed"], cells[1]["return"], cells[1]["cost_spent"]) == ("1", "3.0", "400.0")
    assert cells[3]["return"] == "" and "policy/kl is nan" in cells[3]["problem"]
    variants = read("r/variants.csv")
    assert [(row["task"], row["variant"], row["done"]) for row in variants] == [
        ("ProbeFollow", "ppo", "2"), ("ProbeFollow", "ppo_lag", "1"),
        ("ProbeExits", "ppo", "1"), ("ProbeExits", "ppo_lag", "0"),
    ]  # fmt: skip
    assert [float(variants[0][name]) for name in ("cost", "cost_low", "cost_high")] == [15, 10, 20]
    assert float(variants[0]["seconds"]) == 80.0
    assert variants[3]["cost"] == ""


def test_report_without_a_finished_cell_is_one_line_and_writes_nothing(command):
    suite("d", {"tasks": ["ProbeFollow"], "variants": ["ppo"]})
    result = command("report d --out r")
    assert result.status == 2
    assert result.error == "no cell of d has anything to report yet (not started)"
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("report nowhere", "nowhere is not the folder of a suite: it has no suite.json"),
        ("report bad", "cannot read bad/suite.json: "),
        ("report bad --window 0", "window: must be above 0 and at most 1, got 0.0"),
        ("report bad --publised", "unknown option --publised; did you mean --published?"),
    ],
)
def test_mistake_is_one_line(command, arguments, expected):
    Path("bad").mkdir()
    Path("bad/suite.json").write_text('{"cells": ')
    result = command(arguments)
    assert result.status == 2 and result.error.startswith(expected)


def test_published_rows_are_listed_and_drawn_on_request(command):
    (cell,) = suite("d", {"tasks": ["PointGoal1"], "variants": ["ppo"]}).values()
    run("d", cell, ending(20.0, 60.0))
    command("report d --out r")
    assert "ublished" not in Path("r/report.md").read_text()
    assert command("report d --out r --published").status == 0
    text = Path("r/report.md").read_text()
    assert "| ppo | 25.44 ± 5.43 | 55.72 ± 35.55 | 1e7 | OmniSafe on-policy" in text
    assert "| trpo_pid | 19.24 ± 3.94 | 21.38 ± 6.96 | 1e7 |" in text


def test_published_numbers_are_complete_and_of_known_tasks():
    tasks = {"PointGoal1", "PointGoal2", "PointButton1", "PointButton2", "PointPush1",
             "PointPush2", "PointCircle1", "PointCircle2"}  # fmt: skip
    rows = published.rows(tasks)
    assert {row.task for row in rows} == tasks
    keys = [(row.task, row.method, row.source) for row in rows]
    assert len(keys) == len(set(keys))
    assert all(math.isfinite(row.return_) and row.source and row.steps >= 1e6 for row in rows)
    assert not published.rows({"PointRun0"})


def test_scatter_has_a_point_per_seed_the_limit_and_published_ones_in_view(mixed):
    found = measures.outcomes(Path("d"), suite_folder.load(Path("d")), 0.1)
    rows = [row for row in measures.compare(found) if row.task == "ProbeFollow"]
    beside = [
        published.Published("ProbeFollow", "ppo", 8.0, 1.0, 50.0, 1.0, 10, "somewhere"),
        published.Published("ProbeFollow", "sac", 99.0, 1.0, 500.0, 1.0, 10, "somewhere"),
    ]
    axes = figures.scatter(rows, beside, {"ppo": "C0", "ppo_lag": "C1"}).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [list(np.asarray(line.get_xdata())) for line in dots] == [[10.0, 20.0], [4.0]]
    assert [line.get_xdata() for line in axes.lines if line.get_linestyle() == "--"] == [[5.0, 5.0]]
    assert [text.get_text() for text in axes.texts] == ["ppo, published", "limit 5"]
    low, high = axes.get_xlim()
    assert low == 0.0 and 50.0 < high < 500.0  # sac, which the suite has not trained, is out of it
    assert 8.0 < axes.get_ylim()[1] < 99.0
