"""Runs in environments outside JAX: trained, stopped, killed, resumed, evaluated, and refused."""

import csv
import ctypes.util
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import finish, wait_for_iteration

import smpo_jax as sx
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment.errors import UserError

CODE = '''
import time

import gymnasium
import numpy as np


class Drift(gymnasium.Env):
    """Observes a number that actions move; rewarded for it, and charged where it is above 0."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, pause=0.0, render_mode=None):
        self.pause, self.render_mode = pause, render_mode

    def render(self):
        return np.full((40, 60, 3), (250, 120, 10), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal()
        return np.array([self.x]), {}

    def step(self, action):
        time.sleep(self.pause)
        self.x += 0.1 * action[0]
        costs = {"over": float(self.x > 0), "under": float(self.x <= 0)}
        return np.array([self.x]), self.x, False, False, costs


gymnasium.register("Drift-v0", Drift, max_episode_steps=10)
'''
ENV = "--env gymnasium:own_drift:Drift-v0 --env-option cost=info.over"
SMALL = "--steps 640 --num-envs 8 --rollout-length 20 --hidden 8 --report-every 0"
TINY = f"{SMALL} --algo ppo_lag --minibatches 2 --epochs 1"
RUN = f"train {ENV} {TINY} --out run"
pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.host,
    pytest.mark.xdist_group("host runs"),
]


@pytest.fixture(autouse=True)
def module(toy):
    """`own_drift.py` in the current folder, and the real package's companions."""
    del toy
    pytest.importorskip("gymnasium")
    Path("own_drift.py").write_text(CODE)


def rows(folder):
    with open(Path(folder) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def children(pid):
    """The worker processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                is_worker = b"smpo_envs.host.worker" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == pid and is_worker:
                found.append(int(entry.name))
    return found


def mistake(result):
    """The line that says what was wrong; the one before it may say whose code a run is of."""
    *before, line = result.err.splitlines()
    assert not [other for other in before if "is code of" not in other], result.err
    return line


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids):
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)


def test_a_run_is_trained_evaluated_and_drawn_and_leaves_no_process(command):
    assert command(RUN).status == 0
    assert not children(os.getpid())
    table = rows("run")
    assert [row["steps"] for row in table] == ["160", "320", "480", "640"]
    # 8 staggered environments, each of which ends an episode every 10 steps. In the first rollout
    # the clock of but one begins at 0; the first ends of the others are those of pieces.
    assert [float(row["episode/count"]) for row in table] == [9.0, 16.0, 16.0, 16.0]
    assert all(float(row["episode/length"]) == 10 for row in table)
    result = command("evaluate run --episodes 12 --json")
    played = json.loads(result.out)
    assert (played["env"], played["on"]) == ("gymnasium:own_drift:Drift-v0", "gymnasium")
    assert 0 <= played["cost"]["value"] <= 10
    assert command("evaluate run --episodes 12 --json").out == result.out
    assert command("plot run --out curves.png").status == 0
    result = command("evaluate run --on safety-gymnasium")
    assert "it has no task 'gymnasium:own_drift:Drift-v0'" in mistake(result)


def test_the_same_run_has_the_same_rows_whatever_the_number_of_workers(command, monkeypatch):
    assert command(RUN).status == 0
    monkeypatch.setattr("smpo_envs.host.vector._cores", lambda: 3)
    assert command(RUN.replace("--out run", "--out other")).status == 0
    assert Path("run/metrics.csv").read_bytes() == Path("other/metrics.csv").read_bytes()


@pytest.mark.parametrize(
    "algo",
    [
        "ppo_saute",
        *(pytest.param(algo, marks=pytest.mark.slow) for algo in ALGORITHMS if algo != "ppo_saute"),
    ],
)
def test_other_methods_train_as_well(command, algo):
    result = command(f"train {ENV} {SMALL} --steps 320 --algo {algo} --out run")
    assert result.status == 0, result.err
    assert len(rows("run")) == 2
    assert command("evaluate run --episodes 4").status == 0


def test_a_run_that_was_stopped_goes_on_from_what_it_has_learnt(process):
    slow = f"{RUN} --env-option pause=0.002"
    child = process(*slow.split())
    wait_for_iteration(child, "run", 2)
    workers = children(child.pid)
    assert workers
    child.send_signal(signal.SIGINT)
    status, out, _ = finish(child)
    assert status == 130 and "saved; go on with" in out
    wait_until_gone(workers)
    before, stopped = rows("run"), sx.load_policy("run")
    assert 2 <= len(before) < 4 and stopped.iteration == len(before)

    status, out, _ = finish(process("train", "--resume", "run"))
    assert status == 0
    assert out.count("worlds outside JAX cannot be saved: its episodes begin anew") == 1
    after = rows("run")
    assert after[: len(before)] == before and len(after) == 4
    # Clocks begin anew as well: no piece of an episode counts, and none counts twice.
    assert float(after[len(before)]["episode/count"]) == 9.0
    assert all(float(row["episode/length"]) == 10 for row in after)


def test_a_finished_run_that_is_made_longer_says_that_its_episodes_begin_anew(command):
    words = "worlds outside JAX cannot be saved: its episodes begin anew"
    assert words not in command(RUN).out
    longer = command("train --resume run --steps 960")
    assert longer.status == 0, longer.err
    assert longer.out.count(words) == 1
    assert words not in command("train --resume run").out  # it is complete
    assert words not in command(f"train {ENV} {TINY} --init-from run --out next").out


def test_a_run_that_was_killed_leaves_no_worker_and_goes_on(process):
    child = process(*f"{RUN} --env-option pause=0.002 --checkpoint-every 0".split())
    wait_for_iteration(child, "run", 2)
    workers = children(child.pid)
    child.kill()
    finish(child)
    assert workers
    wait_until_gone(workers)
    assert finish(process("train", "--resume", "run"))[0] == 0
    assert [row["iteration"] for row in rows("run")] == ["1", "2", "3", "4"]


def test_a_worker_that_is_killed_costs_its_episodes_and_not_the_run(process):
    child = process(*f"{RUN} --env-option pause=0.002".split())
    wait_for_iteration(child, "run", 1)
    first, *_ = children(child.pid)
    os.kill(first, signal.SIGKILL)
    status, out, err = finish(child)
    assert status == 0, err
    (notice,) = (line for line in out.splitlines() if "died (killed by signal 9); replaced" in line)
    assert notice.endswith("episodes dropped")
    table = rows("run")
    assert len(table) == 4
    assert sum(float(row["episode/count"]) for row in table) < 9 + 3 * 16
    assert all(float(row["episode/length"]) == 10 for row in table)
    assert np.isfinite([float(row["learner/norm"]) for row in table]).all()


def test_workers_that_keep_dying_end_the_run_in_one_line(command):
    broken = CODE.replace(
        "time.sleep(self.pause)", "import os; self.pause and os.kill(os.getpid(), 9)"
    )
    Path("own_drift.py").write_text(broken)
    # The first worker that is asked dies, and the run is not begun.
    result = command(f"{RUN} --env-option pause=1")
    assert result.status == 2 and "died (killed by signal 9)" in mistake(result)
    assert not Path("run").exists()


def test_an_error_in_the_users_code_ends_the_run_in_one_line(command):
    negative = CODE.replace("float(self.x > 0)", "1.0 if self.x < 0.5 else -1.0")  # later on
    Path("own_drift.py").write_text(negative)
    result = command(f"{RUN} --steps 6400")
    assert result.status == 2
    assert "costs are finite and not negative" in mistake(result)
    assert not children(os.getpid())
    assert sx.load_policy("run").iteration == 0


def test_two_costs_of_a_step_have_a_limit_each(command):
    words = ENV.replace("info.over", "info.over,info.under")
    result = command(f"train {words} --cost-limit 3 8 {TINY} --out run")
    assert result.status == 0, result.err
    with open("run/metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    # Each of the ten steps of an episode is either above 0 or not.
    assert float(last["episode/cost/over"]) + float(last["episode/cost/under"]) == 10.0
    assert "constraint/over/multiplier" in last
    result = command("evaluate run --episodes 4 --json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found["cost/over"]["value"] + found["cost/under"]["value"] == 10.0
    assert found["cost_limit"] == [3.0, 8.0]
    from_memory = sx.load_policy("run")
    assert pickle.loads(pickle.dumps(from_memory)).spec.cost_limit == {"over": 3.0, "under": 8.0}
    refused = command(f"train {words} --cost-limit 3 {TINY} --out other")
    assert "1 limit given, but the environment has 2 costs (over, under)" in refused.err


def test_a_suite_trains_them_one_by_one(command):
    Path("s.yaml").write_text(
        """
tasks: {"gymnasium:own_drift:Drift-v0": {env_options: {cost: info.over}}}
seeds: 2
steps: 320
num_envs: 4
rollout_length: 20
variants:
  ppo_lag:
    hyperparameters: {minibatches: 2, epochs: 1, hidden: [8]}
    grid: {cost_limit: [25, 1]}
"""
    )
    result = command("suite s.yaml --out s --batch 4")
    assert result.status == 0, result.err
    assert "4 of 4 cells are done" in result.out
    tables = [path.read_text() for path in sorted(Path("s").rglob("metrics.csv"))]
    assert len(set(tables)) == 4
    assert command("report s --out r").status == 0
    assert not children(os.getpid())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--env gymnasium:own_drift:Drift-v0", "needs a cost: --env-option cost=info.NAME"),
        (f"{ENV} --devices 2", "devices: gymnasium:own_drift:Drift-v0 is stepped outside JAX"),
        (f"{ENV} --hazard-shift hazards=4", "has no hazards"),
        (f"{ENV} --env-option speed=2", "unexpected keyword argument 'speed'"),
        (f"{ENV} --episode-length 0", "episode_length: must be at least 1"),
        (
            "--env gymnasium:CartPole-v1 --env-option cost=none --policy squashed",
            "squashed' is for continuous actions",
        ),
        ("--env gymnasium:", "is followed by an id"),
        ("--env safety-gymnasium:SafetyPointGoal1Vision-v0", "are pictures"),
        ("--env SafetyCarGaol1-v0", "did you mean SafetyCarGoal"),
    ],
)
def test_what_cannot_be_trained_in_is_refused_in_one_line(command, words, problem):
    result = command(f"train {words} {TINY} --out run")
    assert result.status == 2 and problem in mistake(result)
    assert not Path("run").exists()


def test_what_draws_itself_is_filmed_and_has_no_paths(command):
    command(RUN)
    sx.render("run", out="film.gif", episodes=2, speed=1.0)
    with Image.open("film.gif") as film:
        # A frame of each of 10 steps and of the end; what is the same is shown for longer.
        assert film.info["duration"] == 50
        first = np.asarray(film.convert("RGB")).astype(int)
    assert np.any(np.all(np.abs(first - [250, 120, 10]) < 25, axis=-1))
    with pytest.raises(UserError, match=r"paths.png: .* outside JAX, of which there are only film"):
        sx.render("run", out="paths.png")
    sys.modules.pop("own_drift", None)


def test_what_does_not_draw_itself_is_told_in_one_line(command):
    Path("own_drift.py").write_text(CODE.replace("return np.full", "np.full"))
    command(RUN)
    with pytest.raises(UserError, match="it cannot be drawn: it has no render_mode rgb_array"):
        sx.render("run", out="film.gif")
    assert not Path("film.gif").exists()
    sys.modules.pop("own_drift", None)


@pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="nothing to draw with")
@pytest.mark.parametrize(
    "task", ["SafetyHalfCheetahVelocity-v1", "safety-gymnasium:SafetyCarGoal1-v0"]
)
def test_a_robot_of_the_real_package_is_filmed_by_its_own_camera(command, task):
    command(f"train --env {task} {TINY} --episode-length 20 --out run")
    sx.render("run", out="film.gif", episodes=1)
    with Image.open("film.gif") as film:
        first = np.asarray(film.convert("RGB"), float)[:, :460]
        film.seek(3)
        later = np.asarray(film.convert("RGB"), float)[:, :460]
    assert first.std() > 20 and np.any(first != later)
