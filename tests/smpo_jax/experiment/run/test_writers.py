import csv
import json
import math
import sys
import types

import numpy as np
import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run.writers import (
    Files,
    TensorBoard,
    Wandb,
    require_installed,
    seconds_so_far,
)
from smpo_jax.experiment.settings.config import Config

NAMES = ("metrics.csv", "metrics.jsonl", "timing.csv")


def row(iteration, value=0.5):
    return {"iteration": iteration, "steps": 10 * iteration, "policy/loss": value}


def timing(iteration):
    return {
        "iteration": iteration,
        "steps": 10 * iteration,
        "seconds": 2.0 * iteration,
        "steps_per_second": 5.0,
    }


def write(folder, iterations, *, after):
    files = Files(folder, after=after)
    for i in iterations:
        files.write([row(i)], timing(i))
    files.close()


def contents(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_files_hold_a_header_and_one_row_per_iteration(tmp_path):
    files = Files(tmp_path, after=0)
    files.write([row(1), row(2)], timing(2))
    files.close()
    assert (tmp_path / "metrics.csv").read_text() == (
        "iteration,steps,policy/loss\n1,10,0.5\n2,20,0.5\n"
    )
    assert (tmp_path / "timing.csv").read_text() == (
        "iteration,steps,seconds,steps_per_second\n2,20,4.0,5.0\n"
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(1), row(2)]


def test_files_keep_what_is_not_finite_in_csv_and_stay_strict_in_json(tmp_path):
    files = Files(tmp_path, after=0)
    files.write([row(1, math.nan), row(2, math.inf)], timing(2))
    files.close()
    with open(tmp_path / "metrics.csv", newline="") as file:
        values = [float(line["policy/loss"]) for line in csv.DictReader(file)]
    assert math.isnan(values[0]) and values[1] == math.inf
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["policy/loss"] for line in lines] == [None, None]
    assert "NaN" not in "".join(lines)


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_files_continued_after_an_iteration_equal_those_never_interrupted(tmp_path, kept):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write(folder, range(1, 6), after=0)
    write(cut, range(kept + 1, 6), after=kept)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_files_drop_a_last_line_that_was_cut_short(tmp_path, lost):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write(folder, range(1, 4), after=0)
    for name in NAMES:
        data = (cut / name).read_bytes()
        (cut / name).write_bytes(data[:-lost])
    write(cut, [3], after=2)
    assert contents(cut) == contents(whole)


def test_seconds_go_on_from_the_last_report(tmp_path):
    write(tmp_path, [], after=0)
    assert seconds_so_far(tmp_path) == 0.0
    write(tmp_path, [1, 2, 3], after=0)
    assert seconds_so_far(tmp_path) == 6.0


def test_full_disk_is_an_os_error(tmp_path):
    files = Files(tmp_path, after=0)
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    files._csv.close()
    files._csv = full
    with pytest.raises(OSError, match="No space left"):
        files.write([row(1)], timing(1))
    files.close()


def test_tensorboard_gets_every_finite_metric_against_steps(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    seen = []
    board = TensorBoard(tmp_path, after_steps=0)
    monkeypatch.setattr(board._writer, "add_scalar", lambda *values: seen.append(values))
    board.write([row(1, math.nan), row(2)], timing(2))
    board.close()
    assert seen == [("policy/loss", 0.5, 20), ("timing/steps_per_second", 5.0, 20)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    calls = []

    class Run:
        id = "abc"

        def log(self, values, step):
            calls.append((values, step))

        def finish(self):
            calls.append(("finish", None))

    def init(**options):
        calls.append(("init", options["id"]))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        wandb = Wandb(tmp_path, {})
        wandb.write([row(1, math.nan), row(2)], timing(2))
        wandb.close()
    first = {"iteration": 1, "steps": 10}
    assert calls[:4] == [("init", None), (first, 10), (row(2) | timing(2), 20), ("finish", None)]
    assert calls[4] == ("init", "abc")


def test_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_installed(Config(algo="toy"))
    with pytest.raises(UserError, match=r"--wandb needs the package wandb: pip install wandb"):
        require_installed(Config(algo="toy", wandb=True))
    with pytest.raises(UserError, match="pip install tensorboardX"):
        require_installed(Config(algo="toy", tensorboard=True))


def test_float32_values_are_written_as_short_as_they_can_be():
    from smpo_jax.experiment.run.recorder import _plain

    assert _plain(np.float32(0.1)) == 0.1
    assert np.float32(_plain(np.float32(1 / 3))) == np.float32(1 / 3)
    assert type(_plain(np.int32(3))) is int
