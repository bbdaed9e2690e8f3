"""Runs in this process, with an algorithm and a task that cost nothing."""

import gc
import json
import os
import pickle
import resource
import shutil
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_algorithm

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.run import run_folder
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.run.chunk import make_chunk
from smpo_jax.experiment.run.progress import ProgressLines
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.training import loop

# 12 iterations of 4 x 5 steps
BASE = "train --algo toy --env ProbeFollow --num-envs 4 --rollout-length 5 --steps 240"
EVERY = " --report-every 0 --checkpoint-every 0"
METRICS = ("metrics.csv", "metrics.jsonl")


def metrics(folder):
    return {name: (Path(folder) / name).read_bytes() for name in METRICS}


def checkpoints(folder):
    return sorted(int(path.name) for path in (Path(folder) / "checkpoints").iterdir())


def arrays(folder):
    """The leaves of the newest checkpoint."""
    with Checkpoints(Path(folder), config_file.load(Path(folder)), write=False) as opened:
        return opened._read(max(checkpoints(folder)))[0]


def records(folder):
    """What the checkpoints say of themselves."""
    found = {}
    for iteration in checkpoints(folder):
        path = Path(folder, "checkpoints", str(iteration), "record", "metadata")
        record = json.loads(path.read_text())
        found[iteration] = [record[name] for name in ("interim", "score", "digest")]
    return found


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALGORITHMS, "toy", toy_algorithm.ENTRY)
        assert cli.main([*BASE.split(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def whole(whole_run):
    """A run that nothing interrupted, in the folder `whole`."""
    shutil.copytree(whole_run, "whole")
    return Path("whole")


def interrupt_at(monkeypatch, iteration, action):
    """Calls `action` in the middle of the host loop, once."""
    update = ProgressLines.update

    def patched(self, row, rate):
        update(self, row, rate)
        if row["iteration"] == iteration:
            monkeypatch.setattr(ProgressLines, "update", update)
            action()

    monkeypatch.setattr(ProgressLines, "update", patched)


def assert_same_run(a, b):
    assert metrics(a) == metrics(b)
    left, right = arrays(a), arrays(b)
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path)


def test_run_folder_has_config_metrics_and_checkpoints(whole):
    assert sorted(path.name for path in whole.iterdir() if path.name != ".lock") == [
        "checkpoints", "config.json", "metrics.csv", "metrics.jsonl", "timing.csv",
    ]  # fmt: skip
    lines = (whole / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("iteration,steps,episode/cost,")
    assert len(lines) == 1 + 12 and lines[-1].startswith("12,240,")
    assert {5, 10, 12} <= set(checkpoints(whole)) <= {0, 5, 10, 12}


def test_same_seed_gives_the_same_bytes_and_another_seed_others(command, whole):
    command(f"{BASE} --out again")
    assert_same_run("again", whole)
    command(f"{BASE} --out other --seed 1")
    assert metrics("other") != metrics(whole)


def test_numbers_do_not_depend_on_how_the_run_is_cut_into_chunks(command, whole):
    command(f"{BASE} --out single{EVERY}")
    assert len((Path("single") / "timing.csv").read_text().splitlines()) == 1 + 12
    assert len((whole / "timing.csv").read_text().splitlines()) < 1 + 12
    assert_same_run("single", whole)


def test_keeps_the_last_checkpoints_that_were_asked_for(command):
    command(f"{BASE} --out kept --keep-checkpoints 4 --checkpoint-iterations 1")
    newest = [9, 10, 11, 12]
    assert checkpoints("kept") == sorted({*newest, sx.load_policy("kept", "best").iteration})


def test_checkpoints_do_not_depend_on_the_clock(command, whole):
    command(f"{BASE} --out often{EVERY}")
    assert checkpoints("often") == checkpoints(whole)


@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_saves_and_exits_and_resume_ends_with_the_same_bytes(
    command, whole, monkeypatch, name, status
):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    interrupt_at(monkeypatch, 5, lambda: os.kill(os.getpid(), number))
    result = command(f"{BASE} --out cut{EVERY}")
    assert result.status == status
    assert "stopped at iteration 5 of 12" in result.out
    assert "smpo-jax train --resume cut" in result.out
    assert checkpoints("cut")[-1] == 5
    assert signal.getsignal(number) == before
    assert command("train --resume cut").status == 0
    assert_same_run("cut", whole)


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


@pytest.mark.parametrize(("saved_every", "newest"), [(0, 6), (1000, 5)])
def test_run_that_died_between_checkpoints_resumes_to_the_same_bytes(
    command, whole, monkeypatch, saved_every, newest
):
    def die():
        raise Killed

    interrupt_at(monkeypatch, 7, die)
    with pytest.raises(Killed):
        command(f"{BASE} --out dead --report-every 0 --checkpoint-every {saved_every}")
    with open("dead/metrics.jsonl", "a") as file:
        file.write('{"iteration": 8, "st')  # a line that was being written
    assert len(Path("dead/metrics.csv").read_text().splitlines()) == 1 + 7
    assert checkpoints("dead")[-1] == newest
    assert command("train --resume dead").status == 0
    assert_same_run("dead", whole)
    assert checkpoints("dead") == checkpoints(whole)
    assert records("dead") == records(whole)


def test_run_that_died_before_its_first_checkpoint_is_started_again(command, whole):
    shutil.copytree(whole, "early")
    shutil.rmtree("early/checkpoints")
    for name in (*METRICS, "timing.csv"):
        Path("early", name).unlink()
    result = command("train --resume early")
    assert result.status == 0 and "starting it again" in result.out
    assert_same_run("early", whole)


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(command, whole):
    command(f"{BASE} --out hurt --checkpoint-iterations 1")
    shutil.rmtree("hurt/checkpoints/12/state")
    shutil.rmtree("hurt/checkpoints/11/record")
    result = command("train --resume hurt")
    assert result.status == 0
    assert "checkpoint 12 is damaged" in result.out and "using 10 instead" in result.out
    assert_same_run("hurt", whole)


def test_resume_of_a_complete_run_says_so_and_changes_nothing(command, whole):
    before = metrics(whole)
    result = command("train --resume whole")
    assert result.status == 0 and "complete" in result.out
    assert metrics(whole) == before


def test_resume_without_checkpoints_is_refused_and_loses_nothing(command, whole):
    shutil.rmtree(whole / "checkpoints")
    before = metrics(whole)
    result = command("train --resume whole")
    assert result.status == 2 and "there is no checkpoint in whole/checkpoints" in result.error
    assert metrics(whole) == before


def test_resume_with_the_checkpoints_of_another_run_is_refused(command, whole):
    command(f"{BASE} --out other --seed 1")
    shutil.rmtree(whole / "checkpoints")
    shutil.copytree("other/checkpoints", whole / "checkpoints")
    before = metrics(whole)
    result = command("train --resume whole")
    assert result.status == 2
    assert "belongs to another run: seed is 1 there and 0 here" in result.error
    assert metrics(whole) == before


def test_resume_of_a_folder_that_is_no_run_is_refused(command):
    Path("empty").mkdir()
    for folder in ("empty", "missing"):
        result = command(f"train --resume {folder}")
        assert result.status == 2
        assert result.error == f"{folder} is not the folder of a run: it has no config.json"


def test_resume_with_a_damaged_config_is_refused(command, whole):
    (whole / "config.json").write_text('{"env": ')
    result = command("train --resume whole")
    assert result.status == 2 and "cannot read whole/config.json" in result.error


def test_nan_stops_the_run_and_names_iteration_and_metric(command):
    result = command(f"{BASE} --out nan --diverge-at 8 --checkpoint-every 1000")
    assert result.status == 1
    assert result.error == (
        "iteration 8: toy/loss is nan; stopped. The last good checkpoint is that of "
        "iteration 5 in nan"
    )
    lines = Path("nan/metrics.csv").read_text().splitlines()
    assert lines[-1].startswith("8,160,") and "nan" in lines[-1]
    assert checkpoints("nan") == [0, 5]


def test_nan_keeps_the_last_good_checkpoint(command):
    result = command(f"{BASE} --out nan --diverge-at 8{EVERY}")
    assert result.status == 1 and "that of iteration 7" in result.error
    assert checkpoints("nan")[-1] == 7


def test_parameters_that_overflow_stop_the_run(command):
    result = command(f"{BASE} --out huge --step 1e38")
    assert result.status == 1
    assert "is inf; stopped" in result.error or "is nan; stopped" in result.error


def test_nan_of_a_metric_that_has_no_episode_to_tell_of_does_not_stop_the_run(command):
    # 4 environments, staggered over 10 steps, and rollouts of one step: mostly no episode ends
    result = command(
        "train --algo toy --env ProbeFollow --num-envs 2 --rollout-length 1 --steps 24 --out few"
    )
    assert result.status == 0
    assert "nan" in Path("few/metrics.csv").read_text()


def test_run_is_not_overwritten_unless_asked_to(command, whole):
    before = metrics(whole)
    result = command(f"{BASE} --out whole --seed 1")
    assert result.status == 2
    assert "--resume whole" in result.error and "--overwrite" in result.error
    assert metrics(whole) == before
    assert command(f"{BASE} --out whole --seed 1 --overwrite").status == 0
    assert metrics(whole) != before


def test_folder_with_other_things_in_it_is_never_overwritten(command):
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("years of work")
    for extra in ("", " --overwrite"):
        result = command(f"{BASE} --out home{extra}")
        assert result.status == 2 and "not the folder of a run" in result.error
    assert [path.name for path in Path("home").iterdir()] == ["thesis.tex"]


def test_overwrite_leaves_files_that_no_run_wrote(command, whole):
    (whole / "notes.txt").write_text("mine")
    command(f"{BASE} --out whole --overwrite")
    assert (whole / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    ["--repeats 7", "--num-envs 0", "--env Nowhere", "--wandb", "--step -1"],
)
def test_mistake_leaves_no_folder_behind(command, words, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = command(f"{BASE} --out new {words}")
    assert result.status == 2 and result.error
    assert not Path("new").exists()


def test_folder_that_cannot_be_made_is_one_line(command):
    Path("file").write_text("")
    result = command(f"{BASE} --out file/run")
    assert result.status == 2 and "Not a directory" in result.error
    result = command(f"{BASE} --out file")
    assert result.status == 2 and "file" in result.error


def test_full_disk_is_one_line_and_the_run_can_go_on_later(command, whole, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupt_at(monkeypatch, 4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard)))
    try:
        result = command(f"{BASE} --out full --report-every 0 --checkpoint-every 1")
        result = command("train --resume full") if result.status == 0 else result
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.status == 2 and "File too large" in result.error
    assert command("train --resume full").status == 0
    assert_same_run("full", whole)


FIELDS = {"algo": "toy", "env": "ProbeFollow", "num_envs": 4, "rollout_length": 5, "steps": 2.4e2}


def test_run_from_python_is_the_run_of_the_command_line(whole):
    result = sx.run(**FIELDS, out="mine")
    assert result.folder == Path("mine") and not result.stopped
    assert (result.metrics["iteration"], result.metrics["steps"]) == (12, 240)
    assert_same_run(result, whole)
    policy = sx.load_policy("mine")
    assert policy.iteration == 12
    assert policy.acting(deterministic=True)(jnp.ones((3, 1)), jax.random.key(0)).shape == (3, 1)


def test_run_from_python_refuses_what_the_command_line_refuses(whole):
    with pytest.raises(UserError, match=r"run: .*num_env.*num_envs"):
        sx.run(num_env=3)
    with pytest.raises(UserError, match="holds a run"):
        sx.run(**FIELDS, out="whole")
    assert sx.run(**FIELDS, out="whole", overwrite=True).folder == whole


def test_run_from_python_that_is_stopped_is_saved_and_says_so(whole, monkeypatch):
    interrupt_at(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        sx.run(**FIELDS, out="stopped", report_every=0)
    assert 0 < sx.load_policy("stopped").iteration < 12
    assert sx.resume("stopped").folder == Path("stopped")
    assert_same_run("stopped", whole)


def test_result_of_a_run_stands_for_its_folder(whole):
    result = sx.resume(whole)  # which is complete
    assert str(result) == f"{result}" == os.fspath(result) == "whole"
    assert Path(result) == whole and (result / "metrics.csv").is_file()
    assert sx.load_policy(result).iteration == result.metrics["iteration"] == 12
    assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("every, at", [(0, 5), (0, 12)])
def test_callback_gets_the_newest_row_and_may_stop_the_run(whole, every, at):
    rows = []

    def stop(row):
        rows.append(row)
        return row["iteration"] == at

    result = sx.run(**FIELDS, out="cut", report_every=every, on_report=stop, quiet=True)
    assert [row["iteration"] for row in rows] == list(range(1, at + 1))
    assert rows[-1] == result.metrics and "episode/cost" in result.metrics
    assert result.stopped == (at < 12)
    assert checkpoints("cut")[-1] == at
    assert not sx.resume("cut", quiet=True).stopped
    assert_same_run("cut", whole)


@pytest.mark.parametrize("error", [ValueError("pruned"), KeyboardInterrupt()])
def test_error_of_a_callback_goes_through_and_the_run_is_saved(whole, error):
    def prune(row):
        if row["iteration"] == 5:
            raise error

    with pytest.raises(type(error)) as raised:
        sx.run(**FIELDS, out="pruned", report_every=0, on_report=prune)
    assert raised.value is error
    assert checkpoints("pruned")[-1] == 5
    sx.resume("pruned")
    assert_same_run("pruned", whole)


def test_optuna_prunes_a_run_which_is_saved():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        step = trial.suggest_float("step", 1e-4, 1e-1)

        def report(row):
            trial.report(step, row["iteration"])
            if trial.should_prune():
                raise optuna.TrialPruned

        out, own = f"{trial.number}", {"step": step}
        sx.run(**FIELDS, hyperparameters=own, out=out, report_every=0, quiet=True, on_report=report)
        return step

    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=4)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for step in (1e-2, 1e-3):
        study.enqueue_trial({"step": step})
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert checkpoints("1")[-1] == 4
    assert sx.resume("1", quiet=True).metrics["iteration"] == 12


def test_callback_cannot_change_what_is_written(whole):
    sx.run(**FIELDS, out="mine", on_report=lambda row: row.clear())
    assert_same_run("mine", whole)


def test_quiet_run_says_nothing_and_leaves_signals_alone(whole, capfd):
    handlers = []

    def look(row):
        handlers.append([signal.getsignal(number) for number in StopOnSignal.SIGNALS])

    before = [signal.getsignal(number) for number in StopOnSignal.SIGNALS]
    capfd.readouterr()
    sx.run(**FIELDS, out="quiet", quiet=True, on_report=look)
    sx.resume("quiet", quiet=True)
    assert capfd.readouterr() == ("", "")
    assert handlers[0] == before
    sx.run(**FIELDS, out="loud", on_report=look)
    assert handlers[-1] != before


def test_run_in_a_thread_trains_to_the_end(whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(sx.run(**FIELDS, out="other")))
    thread.start()
    thread.join()
    assert_same_run(results[0], whole)


def test_run_leaves_no_environment_behind_but_the_last():
    def alive():
        gc.collect()
        return sum(isinstance(each, smpo_envs.VectorEnv) for each in gc.get_objects())

    before = alive()
    for i in range(3):
        sx.run(**FIELDS, out=f"{i}", quiet=True)
    assert alive() <= before + 1


def test_two_processes_cannot_train_in_one_folder(command, whole):
    with run_folder.locked(whole):
        result = command(f"{BASE} --out whole --overwrite")
    assert result.status == 2 and "another process is training in whole" in result.error
    assert command(f"{BASE} --out whole --overwrite").status == 0


def test_chunk_equals_iterations_one_by_one():
    config = Config(algo="toy", env="ProbeFollow", num_envs=4, rollout_length=5)
    problem = build(config)
    one = jax.jit(loop.iteration(problem.algorithm, problem.env, problem.spec))
    state = loop.init(problem.algorithm, problem.env, jax.random.key(0))
    _, report = jax.jit(make_chunk(one, 8))(state, jnp.int32(5))
    losses = []
    for _ in range(5):
        state, row = one(state)
        losses.append(float(row["toy/loss"]))
    assert int(report.done) == 5 and bool(report.finite)
    np.testing.assert_allclose(report.metrics["toy/loss"][:5], losses, rtol=1e-6)


def test_chunk_compiles_once_for_all_counts():
    config = Config(algo="toy", env="ProbeFollow", num_envs=4, rollout_length=5)
    problem = build(config)
    traces = []

    def iteration(state):
        traces.append(1)
        return loop.iteration(problem.algorithm, problem.env, problem.spec)(state)

    chunk = jax.jit(make_chunk(iteration, 8))
    state = loop.init(problem.algorithm, problem.env, jax.random.key(0))
    chunk(state, jnp.int32(1))
    once = len(traces)
    for count in (2, 8):
        assert int(chunk(state, jnp.int32(count))[1].done) == count
    assert len(traces) == once
