"""Whole suites in this process, with an algorithm and a task that cost nothing."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import toy_algorithm

from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli
from smpo_jax.experiment.run import run_folder
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.suite import displays, executor, processes, suite_folder

# 6 iterations of 4 x 5 steps, four cells in which all is the same but floats and seeds
SUITE = """
tasks: [ProbeFollow]
seeds: 2
steps: 120
num_envs: 4
rollout_length: 5
report_every: 0
checkpoint_every: 1000
variants:
  toy: {grid: {step: [0.1, 0.2]}}
"""
CELLS = [f"ProbeFollow/toy,step={step}/seed{seed}" for step in (0.1, 0.2) for seed in (0, 1)]
METRICS = ("metrics.csv", "metrics.jsonl")


@pytest.fixture(autouse=True)
def suite_file():
    Path("s.yaml").write_text(SUITE)


@pytest.fixture(scope="module")
def whole_suites(tmp_path_factory):
    """Suites that nothing interrupted, by the size of their batches."""
    folder = tmp_path_factory.mktemp("suites")
    (folder / "s.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALGORITHMS, "toy", toy_algorithm.ENTRY)
        for batch in (1, 4):
            words = ["--out", str(folder / str(batch)), "--batch", str(batch)]
            assert cli.main(["suite", str(folder / "s.yaml"), *words]) == 0
    return folder


@pytest.fixture
def whole(whole_suites):
    """A copy of them in the folders `1` and `4`."""
    for batch in ("1", "4"):
        shutil.copytree(whole_suites / batch, batch)


def arrays(folder):
    config = config_file.load(folder)
    with Checkpoints(folder, config, write=False) as opened:
        return opened._read(opened.iterations()[-1])[0]


def assert_same_cell(a, b):
    for name in METRICS:
        assert (Path(a) / name).read_bytes() == (Path(b) / name).read_bytes(), name
    left, right = arrays(Path(a)), arrays(Path(b))
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path)


def interrupt_at(monkeypatch, cell, iteration, action):
    """Calls `action` when a cell has come so far, once."""
    update = displays.StatusLines.update

    def patched(self, name, row, rate):
        update(self, name, row, rate)
        if (name, row["iteration"]) == (cell, iteration):
            monkeypatch.setattr(displays.StatusLines, "update", update)
            action()

    monkeypatch.setattr(displays.StatusLines, "update", patched)


def test_every_cell_is_a_run_like_that_of_train(command, whole):
    configs = [path.parent for path in Path("1").rglob("config.json")]
    assert sorted(p.relative_to("1").as_posix() for p in configs) == CELLS
    alone = command(
        "train --algo toy --step 0.2 --env ProbeFollow --num-envs 4 --rollout-length 5 --steps 120 "
        "--seed 1 --out alone --report-every 0 --checkpoint-every 1000"
    )
    assert alone.status == 0
    assert_same_cell("alone", f"1/{CELLS[3]}")
    assert Path("alone/config.json").read_text() == Path("1", CELLS[3], "config.json").read_text()
    assert command(f"evaluate 4/{CELLS[0]} --episodes 4").status == 0
    assert command("plot", *(f"4/{cell}" for cell in CELLS), "--out", "curves.png").status == 0


def test_member_of_a_batch_is_the_cell_run_alone_but_for_rounding(whole):
    for cell in CELLS:
        alone, member = Path("1", cell), Path("4", cell)
        assert (alone / "config.json").read_text() == (member / "config.json").read_text()
        left, right = arrays(alone), arrays(member)
        for path, leaf in left.items():
            # A batched matrix product adds in another order: float32 round-off of 6 iterations.
            np.testing.assert_allclose(leaf, right[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_what_is_in_the_other_lanes_changes_no_bit(command, whole):
    # The second variant overflows at once, and its lanes hold NaN from then on.
    Path("s.yaml").write_text(SUITE.replace("step: [0.1, 0.2]", "step: [0.1, 1e38]"))
    command("suite s.yaml --out wild --batch 4")
    for cell in CELLS[:2]:
        assert_same_cell(f"wild/{cell}", f"4/{cell}")


def test_member_that_diverges_fails_alone(command):
    Path("s.yaml").write_text(SUITE.replace("step: [0.1, 0.2]", "step: [0.1, 1e38]"))
    result = command("suite s.yaml --out d --batch 4")
    assert result.status == 1 and not result.err
    assert "2 of 4 cells are done, in d" in result.out
    bad = Path("d/ProbeFollow/toy,step=1e38/seed0")
    assert (bad / "error.txt").read_text().startswith("diverged: iteration ")
    assert "ProbeFollow/toy,step=1e38/seed0 failed: diverged: iteration " in result.out
    for cell in CELLS[:2]:
        assert not Path("d", cell, "error.txt").exists()
        assert len(Path("d", cell, "metrics.csv").read_text().splitlines()) == 1 + 6

    # it would end the same way again, so it is not tried again; the status is the same
    before = (bad / "metrics.csv").read_bytes()
    result = command("suite s.yaml --out d --resume")
    assert result.status == 1 and "training" not in result.out
    assert (bad / "metrics.csv").read_bytes() == before


def test_cell_that_fails_for_another_reason_is_tried_again(command, monkeypatch):
    single = executor.ProgramCache.single

    def broken(*_):
        monkeypatch.setattr(executor.ProgramCache, "single", single)
        raise RuntimeError("RESOURCE_EXHAUSTED: no room\nfor this")

    monkeypatch.setattr(executor.ProgramCache, "single", broken)
    result = command("suite s.yaml --out d")
    assert result.status == 1 and "3 of 4 cells are done" in result.out
    error = Path("d", CELLS[0], "error.txt").read_text()
    assert error.startswith("out of memory; try fewer runs at once, with --batch. RuntimeError: ")
    assert "Traceback" in error
    result = command("suite s.yaml --out d --resume")
    assert result.status == 0 and "4 of 4 cells are done" in result.out
    assert not Path("d", CELLS[0], "error.txt").exists()


def test_finished_cells_are_not_run_again(command, whole, monkeypatch):
    monkeypatch.setattr(processes, "train_batch", None)
    result = command("suite s.yaml --out 1 --resume")
    assert result.status == 0 and "4 of 4 cells are done, in 1" in result.out


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


@pytest.mark.parametrize(
    ("batch", "how"), [(1, "SIGTERM"), (4, "SIGINT"), (1, "killed"), (4, "killed")]
)
def test_suite_that_was_ended_goes_on_to_the_same_bytes(command, whole, monkeypatch, batch, how):
    def end():
        if how == "killed":
            raise Killed
        os.kill(os.getpid(), getattr(signal, how))

    # The second cell of its program, or of the suite.
    interrupt_at(monkeypatch, CELLS[1], 3, end)
    Path("s.yaml").write_text(SUITE.replace("1000", "0"))
    if how == "killed":
        with pytest.raises(Killed):
            command(f"suite s.yaml --out cut --batch {batch}")
    else:
        result = command(f"suite s.yaml --out cut --batch {batch}")
        assert result.status == (143 if how == "SIGTERM" else 130)
        assert "go on with: smpo-jax suite s.yaml --out cut --resume" in result.out
    found = suite_folder.load(Path("cut"))
    done = [suite_folder.status(Path("cut"), cell) for cell in found.cells].count("done")
    assert done == (1 if batch == 1 else 0)
    # Without --batch: what has begun together goes on together.
    Path("s.yaml").write_text(SUITE)
    assert command("suite s.yaml --out cut --resume").status == 0
    for cell in CELLS:
        assert_same_cell(f"{batch}/{cell}", f"cut/{cell}")


def test_members_that_were_saved_at_different_iterations_go_on_each_from_its_own(command, whole):
    Path("s.yaml").write_text(SUITE.replace("1000", "0"))
    command("suite s.yaml --out cut --batch 4")
    for cell, kept in zip(CELLS[:2], (4, 5), strict=True):
        for path in Path("cut", cell, "checkpoints").iterdir():
            if path.name.isdigit() and int(path.name) > kept:
                shutil.rmtree(path)
    assert command("suite s.yaml --out cut --resume").status == 0
    for cell in CELLS:
        assert_same_cell(f"4/{cell}", f"cut/{cell}")


def test_resume_adds_new_cells_and_leaves_the_old(command, whole):
    before = Path("1", CELLS[0], "metrics.csv").stat().st_mtime_ns
    Path("s.yaml").write_text(SUITE.replace("seeds: 2", "seeds: 3"))
    result = command("suite s.yaml --out 1 --resume")
    assert result.status == 0 and "6 of 6 cells are done" in result.out
    assert Path("1", CELLS[0], "metrics.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps: 120", "steps: 480", "steps is 120 there and 480 here"),
        ("num_envs: 4", "num_envs: 4\ncost_limit: 3", "cost_limit is 25.0 there and 3.0 here"),
        ("{grid:", "{hyperparameters: {start: 2}, grid:", "start is 0.0 there and 2.0 here"),
    ],
)
def test_resume_with_a_changed_cell_is_refused_and_changes_nothing(
    command, whole, old, new, expected
):
    before = Path("1/suite.json").read_bytes()
    Path("s.yaml").write_text(SUITE.replace(old, new))
    result = command("suite s.yaml --out 1 --resume")
    assert result.status == 2
    assert result.error.startswith(f"1/{CELLS[0]} was begun with another config: {expected}.")
    assert Path("1/suite.json").read_bytes() == before


def test_algorithm_that_needs_its_values_says_so_and_goes_on_in_batches_of_one(
    command, monkeypatch
):
    monkeypatch.setattr(toy_algorithm.Toy, "__post_init__", lambda self: bool(self.step))
    result = command("suite s.yaml --out d --batch 4")
    assert (
        result.status == 1
        and "does not let values vary in one program; try --batch 1" in result.out
    )
    assert command("suite s.yaml --out d --resume --batch 1").status == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("suite s.yaml --out full", "full is not empty and not the folder of a suite"),
        ("suite s.yaml --out full --resume", "full is not empty and not the folder of a suite"),
        ("suite s.yaml --out new --batch 0", "batch: must be at least 1, got 0"),
        ("suite s.yaml --out new --processes 0", "processes: must be at least 1, got 0"),
        ("suite s.yaml --otu new", "unknown option --otu; did you mean --out?"),
        ("suite", "file must be given"),
    ],
)
def test_mistake_is_one_line_and_leaves_everything_as_it_was(command, arguments, expected):
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work")
    result = command(arguments)
    assert result.status == 2 and expected in result.error
    assert sorted(path.name for path in Path().iterdir()) == ["full", "s.yaml"]


def test_sizes_that_do_not_fit_are_found_before_anything_runs(command):
    Path("s.yaml").write_text(SUITE.replace("{step:", "{repeats: [2, 7], step:"))
    result = command("suite s.yaml --out d")
    assert result.status == 2 and "not divisible by 7" in result.error
    assert not Path("d").exists()


def test_folder_that_holds_a_suite_is_not_run_over(command, whole):
    result = command("suite s.yaml --out 1")
    assert result.status == 2 and "1 holds a suite: go on with --resume" in result.error


def test_two_processes_cannot_work_in_one_folder(command, whole):
    with run_folder.locked(Path("1")):
        result = command("suite s.yaml --out 1 --resume")
    assert result.status == 2 and "another process is training in 1" in result.error
