import csv
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from smpo_jax.core.calibration import Calibration
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import robustness, robustness_figure, tables
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.results.robustness import (
    CalibrationAt,
    LabelledPolicy,
    PerformanceAt,
    ShiftPoint,
)
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.suite import robustness as suite_robustness

OWN = {"hazards": 8, "size": 0.2, "extent": 1.5}
UNUSED: Any = None
MEMBERS = [
    LabelledPolicy(
        "mine", TrainedPolicy(Config(seed=seed, cost_limit=30.0), UNUSED, UNUSED, UNUSED, 1)
    )
    for seed in (0, 1)
]


def points():
    points_of_shift = [
        ShiftPoint("", OWN),
        *(ShiftPoint("size", {**OWN, "size": size}) for size in (0.2, 0.3)),
    ]
    return [
        PerformanceAt(
            labelled, at, np.array([1.0, 3.0]), np.array([20.0, 100 * at.shift["size"] + 5])
        )
        for labelled in MEMBERS
        for at in points_of_shift
    ]


def curves():
    bins = jnp.arange(10.0)
    return [
        CalibrationAt(labelled, at, Calibration(bins, 2 * bins, jnp.full(10, 5.0)))
        for labelled in MEMBERS
        for at in (ShiftPoint("", OWN), ShiftPoint("size", {**OWN, "size": 0.3}))
    ]


def xy(line):
    return np.asarray(line.get_xydata(), float)


def test_places_are_the_task_and_one_change_at_a_time():
    found = robustness.shift_points("PointGoal1", {"hazards": [12.0], "size": [0.1, 0.3]})
    assert [at.axis for at in found] == ["", "hazards", "size", "size"]
    assert found[0].shift == OWN
    assert found[3].shift == {**OWN, "size": 0.3}


def test_figure_has_cost_with_the_limit_and_the_calibration():
    figure = robustness_figure.draw(points(), curves())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mine"]
    return_, cost, calibration = figure.axes
    np.testing.assert_allclose(xy(return_.lines[0]), [[0.2, 2], [0.3, 2]])
    np.testing.assert_allclose(xy(cost.lines[0]), [[0.2, 22.5], [0.3, 27.5]])
    assert xy(cost.lines[1])[0, 1] == 30.0
    own, shifted, diagonal = calibration.lines
    assert own.get_linestyle() == ":" and shifted.get_linestyle() == "-"
    np.testing.assert_allclose(xy(shifted)[:, 1], 2 * np.arange(10))
    np.testing.assert_allclose(xy(diagonal), [[0, 0], [9, 9]])


def bars(axes):
    """The ends of each error bar: [bars, 2 ends, x and y]."""
    return np.concatenate([np.array(each.get_segments()) for each in axes.collections])


def test_figure_has_intervals_over_the_episodes_of_a_single_seed():
    first, _ = MEMBERS
    alone = [each for each in points() if each.labelled is first]
    figure = robustness_figure.draw(alone, [])
    # Of 1 and 3: 2 ± t(1) · √2 / √2 = 12.706.
    np.testing.assert_allclose(bars(figure.axes[0])[0, :, 1], [2 - 12.706, 2 + 12.706], atol=1e-3)
    assert "means of 2 episodes, with 95 % intervals" in figure.get_suptitle()


def test_figure_has_intervals_over_seeds_and_says_so():
    _, second = MEMBERS
    better = [
        each._replace(return_=each.return_ + 4) if each.labelled is second else each
        for each in points()
    ]
    higher = [
        each._replace(calibration=each.calibration._replace(realised=each.calibration.realised + 2))
        if each.labelled is second
        else each
        for each in curves()
    ]
    figure = robustness_figure.draw(better, higher)
    assert "interquartile means of seeds, with 95 % intervals" in figure.get_suptitle()
    return_, _, calibration = figure.axes
    np.testing.assert_allclose(bars(return_)[:, :, 1], [[2, 6], [2, 6]])
    # Of two seeds 2 apart: ± t(1) · √2 / √2 = 12.706, for each of ten bins, as it is and shifted.
    spans = np.diff(bars(calibration)[:, :, 1], axis=1)
    np.testing.assert_allclose(spans, np.full((20, 1), 2 * 12.706), rtol=1e-3)


def test_variants_at_the_same_value_stand_beside_each_other():
    two = [
        each._replace(labelled=each.labelled._replace(variant=name))
        for name in ("a", "b")
        for each in points()
    ]
    figure = robustness_figure.draw(two, [])
    a, b = (xy(line)[:, 0] for line in figure.axes[0].lines[:2])
    assert np.all(a < b) and np.allclose((a + b) / 2, [0.2, 0.3])


def test_tables_have_a_row_for_every_point_and_bin(tmp_path):
    path = tmp_path / "points.csv"
    tables.write(path, map(robustness.performance_row, points()))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 6
    assert rows[2]["size"] == "0.3" and rows[2]["varied"] == "size"
    # costs of 20 and 35 against a limit of 30
    assert float(rows[2]["cost"]) == 27.5 and float(rows[2]["over_limit"]) == 0.5
    assert len(list(robustness.calibration_rows(curves()[0]))) == 10


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("robustness nowhere", "nowhere is not the folder of a run"),
        ("robustness . --episodes 0", "episodes: must be at least 1"),
        ("robustness . --hazard-shift size=0.2@0,0.3@5", "expected a number, got '0.2@0'"),
        ("evaluate . --hazard-shift sizes=0.2", "there is no 'sizes'"),
    ],
)
def test_mistakes_are_one_line(command, words, error):
    result = command(words)
    assert result.status == 2 and error in result.error


def test_suite_without_a_finished_cell_is_refused():
    Path("suite.json").write_text('{"cells": [], "batches": []}')
    with pytest.raises(UserError, match="no cell of"):
        suite_robustness.find(Path("."), None)


@pytest.mark.usefixtures("quick_compilation")
def test_run_with_a_schedule_is_trained_and_played_under_shift(command):
    train = "train --algo ppo_lag --num-envs 4 --rollout-length 20 --steps 160 --hidden 8 --out run"
    assert command(f"{train} --hazard-shift hazards=4@0,8@160 size=0.25").status == 0

    played = command("evaluate run --episodes 2 --json --hazard-shift hazards=4,8")
    assert [each["shift"] for each in json.loads(played.out)] == [{"hazards": 4}, {"hazards": 8}]

    result = command("robustness run --episodes 2 --hazard-shift size=0.2,5 --out shift.png")
    assert result.status == 0, result.err
    own, same, huge = csv.DictReader(Path("shift.csv").read_text().splitlines())
    assert (own["varied"], same["varied"], huge["varied"]) == ("", "size", "size")
    assert own["cost"] == same["cost"] and own["trained_on"] == "hazards=4@0,8@160 size=0.25"
    # Discs of 5 m cover all that the robot can reach: every step costs.
    assert float(huge["cost"]) == 1000.0 and float(huge["over_limit"]) == 1.0
    bins = list(csv.DictReader(Path("shift-calibration.csv").read_text().splitlines()))
    assert len(bins) == 2 * 10
    # A cost of 1 at every step, discounted at 0.99 and cut off where 1 % of it is left at most.
    for each in bins[10:]:
        assert 99.0 < float(each["realised"]) <= 100.0
    assert Path("shift.png").stat().st_size > 0
