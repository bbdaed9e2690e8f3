"""The loop that watches jobs, with an engine that trains nothing; and what is refused."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from smpo_jax.experiment.run import run_folder
from smpo_jax.experiment.settings.options import SuiteOptions
from smpo_jax.experiment.suite import engines, executor, grid, jobs, suite_folder
from smpo_jax.experiment.suite.executor import SuiteContext
from smpo_jax.experiment.suite.jobs import Ending
from smpo_jax.experiment.suite.suite_folder import Suite

SUITE = """
tasks: [ProbeFollow]
seeds: 2
steps: 160
num_envs: 8
rollout_length: 20
variants: [ppo]
"""
CELLS = ["ProbeFollow/ppo/seed0", "ProbeFollow/ppo/seed1"]
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="needs submitit"
)
KILLED = Ending("it was killed", again=True)


@pytest.fixture
def cells():
    Path("s.yaml").write_text(SUITE)
    Path("s").mkdir()
    return grid.load(Path("s.yaml"))


class Said(list):
    """A display that keeps what it is told."""

    def say(self, message):
        self.append(message)

    def started(self, cell):
        self.append(f"{cell} started")

    def update(self, cell, row, steps_per_second):
        self.append(f"{cell} {row['iteration']} {steps_per_second:.0f}")

    def finished(self, cell):
        self.append(f"{cell} done")

    def failed(self, cell, error):
        self.append(f"{cell} failed: {error}")


class Stop:
    is_set = False


class ScriptedJob(NamedTuple):
    cells: list
    endings: list
    goes_on: bool = False
    name = "scripted 7"

    def pass_on(self, display):
        pass

    def ending(self):
        return self.endings.pop(0)() if self.endings else None

    def stop(self):
        return not self.goes_on


class ScriptedEngine:
    """For every job a list of what its `ending` calls."""

    tries = 3
    pause = 0.0
    runs_here = True

    def __init__(self, scripts, room=1, found=None, goes_on=False):
        self.scripts, self.room, self.goes_on = scripts, room, goes_on
        self.earlier = found or {}
        self.submitted = []

    def connect(self):
        pass

    def close(self):
        pass

    def found(self, batch, folder):
        return self.earlier.get(batch[0].name)

    def submit(self, batches, context):
        self.submitted += [batch[0].name for batch in batches]
        return [ScriptedJob(batch, self.scripts.pop(0), self.goes_on) for batch in batches]


def work_off(batches, engine, stop=None):
    said = Said()
    jobs.work_off(batches, SuiteContext(Path("s"), said, stop or Stop()), engine)
    return said


def finish(cell):
    def end():
        (Path("s") / cell.name / "checkpoints" / "1").mkdir(parents=True)
        return Ending()

    return end


def test_killed_job_is_submitted_again_and_fails_after_three_times(cells):
    first, second = cells
    killed = [lambda: KILLED]
    engine = ScriptedEngine([killed[:], killed[:], [finish(first)], killed[:], killed[:]])
    said = work_off([[first], [second]], engine)
    # The first two jobs were killed, one of each batch, and so on in turn.
    assert len(engine.submitted) == 5 and set(engine.submitted) == set(CELLS)
    states = [suite_folder.status(Path("s"), cell) for cell in cells]
    assert sorted(states) == ["done", "failed"]
    bad = cells[states.index("failed")]
    assert suite_folder.error(Path("s"), bad) == "it was killed; tried 3 times"
    assert f"{bad.name} failed: it was killed; tried 3 times" in said


def test_job_that_raised_or_was_cancelled_is_not_tried_again(cells):
    engine = ScriptedEngine([[lambda: Ending("No such file or directory: '/suites'")]])
    said = work_off([cells], engine)
    assert engine.submitted == [CELLS[0]]
    assert [line for line in said if "failed" in line] == [
        f"{name} failed: No such file or directory: '/suites'" for name in CELLS
    ]


def test_no_more_jobs_than_there_is_room_for(cells):
    under_way = []

    def end(cell):
        def ended():
            assert len(under_way) <= 1
            under_way.remove(cell.name)
            return finish(cell)()

        return ended

    class Engine(ScriptedEngine):
        def submit(self, batches, context):
            under_way.extend(batch[0].name for batch in batches)
            return super().submit(batches, context)

    engine = Engine([[lambda: None, end(cells[0])], [end(cells[1])]])
    work_off([[cell] for cell in cells], engine)
    assert engine.submitted == CELLS


def test_cell_that_another_process_trains_is_watched_and_taken_over_when_that_ends(cells):
    first = cells[0]
    own = Path("s") / first.name
    own.mkdir(parents=True)
    holder = run_folder.locked(own)
    engine = ScriptedEngine([[finish(first)]])
    looks = []

    class Watching(Said):
        def started(self, cell):
            super().started(cell)
            looks.append(list(engine.submitted))
            holder.__exit__(None, None, None)  # its process is gone

    said = Watching()
    with holder:
        (own / "metrics.jsonl").write_text('{"iteration": 1, "x": null}\n{"iteration": 2, "x"')
        jobs_of = jobs._Work([[first]], SuiteContext(Path("s"), said, Stop()), engine)
        jobs_of.submit()
        assert engine.submitted == []
        with open(own / "metrics.jsonl", "a") as file:
            file.write(": 1}\n")
        (own / "timing.csv").write_text(
            "iteration,steps,seconds,steps_per_second\n2,200,1.0,123.4\n"
        )
        while jobs_of.is_left:
            jobs_of.look()
            jobs_of.submit()
        jobs_of.look()
    assert looks == [[]] and engine.submitted == [first.name]
    assert f"{first.name} 2 123" in said


def test_second_job_of_a_cell_ends_at_once_and_changes_nothing(cells, capsys):
    suite_folder.save(Suite(cells, [tuple(CELLS)]), Path("s"))
    own = Path("s") / CELLS[1]
    own.mkdir(parents=True)
    with run_folder.locked(own):
        executor.train_named("s", tuple(CELLS), stops_on_signal=False)
    out = capsys.readouterr().out
    assert out == f"left alone: another process is training in s/{CELLS[1]}\n"
    assert [path.name for path in own.iterdir()] == [".lock"]
    # So is a batch that is no longer one: its job may have waited in a queue for days.
    executor.train_named("s", (CELLS[0],), stops_on_signal=False)
    assert "s no longer has a batch of ProbeFollow/ppo/seed0" in capsys.readouterr().out


def test_jobs_found_in_the_queue_are_not_submitted_again(cells):
    earlier = ScriptedJob([cells[0]], [lambda: None, finish(cells[0])])
    engine = ScriptedEngine([[finish(cells[1])]], room=2, found={CELLS[0]: earlier})
    work_off([[cell] for cell in cells], engine)
    assert engine.submitted == [CELLS[1]]


@pytest.mark.parametrize("goes_on", [True, False])
def test_stop_leaves_the_jobs_that_go_on_and_waits_for_the_others(cells, goes_on):
    stop, ended = Stop(), []

    def end():
        ended.append(True)
        return Ending()

    def ask():
        stop.is_set = True

    engine = ScriptedEngine([[ask, end]], goes_on=goes_on)
    said = work_off([[cell] for cell in cells], engine, stop)
    assert engine.submitted == [CELLS[0]]
    assert said == (["going on without this command: scripted 7"] if goes_on else [])
    assert ended == ([] if goes_on else [True])


@needs_submitit
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--executor local --processes 2", "--processes is an option of --executor processes, not"),
        ("--array 3", "--array is an option of --executor local, slurm and ray, not of processes"),
        (
            "--executor local --resources a=3",
            "--resources is an option of --executor slurm and ray",
        ),
        ("--executor local --array 0", "array: must be at least 1, got 0"),
        ("--executor pbs", "expected one of processes, local, slurm, ray, got 'pbs'"),
        ("--executor slurm --resources time=4:00", "time is a whole number of minutes, got '4:00'"),
        ("--executor slurm --resources mem", "resources: expected NAME=VALUE, got 'mem'"),
        ("--executor slurm", "there is no sbatch and srun here"),
    ],
)
def test_mistake_is_one_line_and_makes_no_folder(command, cells, monkeypatch, arguments, expected):
    monkeypatch.setenv("PATH", str(Path("s").absolute()))  # nothing of SLURM's is in there
    result = command(f"suite s.yaml --out new {arguments}")
    assert result.status == 2 and expected in result.error
    assert not Path("new").exists()


@needs_submitit
def test_what_sbatch_refuses_is_one_line(command, cells, monkeypatch):
    Path("bin").mkdir()
    for name in ("sbatch", "srun"):
        Path("bin", name).write_text(
            "#!/bin/sh\necho sbatch: error: no such partition >&2\nexit 1\n",
        )
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    result = command("suite s.yaml --out new --executor slurm --resources partition=x")
    assert result.status == 2
    assert result.error == "SLURM does not take the jobs: sbatch: error: no such partition"
    result = command("suite s.yaml --out other --executor slurm --resources partitoin=x")
    assert result.status == 2 and "Unavailable parameter(s): ['partitoin']" in result.error
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("local", "submitit", "slurm"), ("slurm", "submitit", "slurm"), ("ray", "ray", "ray")],
)
def test_missing_package_is_one_line_with_the_way_to_get_it(
    command, cells, monkeypatch, name, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    result = command(f"suite s.yaml --out new --executor {name}")
    assert result.status == 2
    assert result.error == (
        f"--executor {name} needs the package {package}: pip install {package}, "
        f'or pip install -e ".[{extra}]" in a clone'
    )
    assert not Path("new").exists()


def test_every_engine_is_one_of_the_options(cells):
    assert set(engines.KINDS) == set(SuiteOptions.__dataclass_fields__["executor"].type.__args__)
    assert engines.parsed(["a=1", "b=0.5", "c=8GB", "d=x=y"]) == {
        "a": 1,
        "b": 0.5,
        "c": "8GB",
        "d": "x=y",
    }
