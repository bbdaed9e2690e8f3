"""Environments outside JAX in worker processes over shared memory."""

import os
import signal
import subprocess
import sys
import threading
import time

import golden
import jax
import numpy as np
import pytest

from smpo_envs.host import (
    HostTask,
    WorkerEnvs,
    WorkerError,
    gymnasium_task,
    native_name_to_id,
    safety_gymnasium_task,
)
from smpo_envs.host.single import Maker

pytestmark = pytest.mark.xdist_group("real")  # one process pays for the imports

OWN = "episodes.py"  # a task of a user's, beside the test
OWN_TASK = """
import time

import gymnasium
import numpy as np


class Counts(gymnasium.Env):
    \"\"\"Observes the steps of the episode; ends after 5; waits where the action is negative.\"\"\"

    observation_space = gymnasium.spaces.Box(0, np.inf, (1,))
    action_space = gymnasium.spaces.Box(np.array([0.0, -1.0]), np.array([10.0, 3.0]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        self.steps += 1
        if action[1] < -0.99:
            time.sleep(1000)
        info = {"first": action[0], "bad": -action[0]}
        return np.full(1, self.steps), action[1], self.steps == 5, False, info


def squared(obs, action, next_obs, info):
    return float(obs[0] ** 2 + next_obs[0])


gymnasium.register("Counts-v0", Counts, max_episode_steps=8)
gymnasium.register("Endless-v0", Counts)


class Several(Counts):
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])


gymnasium.register("Several-v0", Several, max_episode_steps=8)
"""


def real(name):
    return safety_gymnasium_task(native_name_to_id(name))


@pytest.fixture(scope="module")
def env():
    with WorkerEnvs(real("PointGoal0"), 2, processes=2) as env:
        yield env


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a module of the user's, on the path."""
    folder = tmp_path_factory.mktemp("own")
    (folder / OWN).write_text(OWN_TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "episodes"


def counts(own, cost="info.first", **options):
    return gymnasium_task(f"{own}:Counts-v0", cost, **options)


def pids(env):
    return [worker.pid for worker in env._crew.workers]


@pytest.mark.host
def test_sizes_are_those_of_the_task(env):
    assert (env.num_envs, env.observation_size, env.action_size) == (2, 28, 2)
    assert env.episode_length == 1000


@pytest.mark.host
def test_step_returns_rows_of_every_environment_as_float64(env):
    obs = env.reset(0)
    after, step = env.step(np.zeros((2, 2), np.float32))
    assert obs.shape == after.shape == step.next_obs.shape == (2, 28)
    for flag in (step.reward, step.cost, step.terminated, step.truncated):
        assert (flag.shape, flag.dtype) == ((2,), np.float64)


@pytest.mark.host
def test_reset_seeds_environment_i_with_seed_plus_i(env):
    first = env.reset(5)
    shifted = env.reset(6)
    np.testing.assert_array_equal(first[1:], shifted[:-1])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.host
def test_restart_begins_new_episodes_where_asked_and_leaves_the_others_alone(env):
    def play(over):
        first = env.reset(5)
        moved, _ = env.step(np.ones((2, 2)))
        begun = np.concatenate([env.restart(half, np.array([over[half]])) for half in (0, 1)])
        return first, moved, begun, env.step(np.zeros((2, 2)))[0]

    first, moved, restarted, after = play([True, False])
    assert np.any(restarted[0] != first[0]) and np.any(restarted[0] != moved[0])
    np.testing.assert_array_equal(restarted[1], moved[1])
    _, moved, nothing, alone = play([False, False])
    np.testing.assert_array_equal(nothing, moved)
    np.testing.assert_array_equal(after[1], alone[1])
    assert np.any(after[0] != alone[0])


@pytest.mark.host
def test_result_does_not_depend_on_the_number_of_processes(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2, 2))

    def play(env):
        return jax.tree.leaves([env.reset(3), [env.step(action) for action in actions]])

    with WorkerEnvs(real("PointGoal0"), 2, processes=1) as other:
        for here, there in zip(play(env), play(other), strict=True):
            np.testing.assert_array_equal(here, there)


@pytest.mark.host
def test_episode_end_keeps_the_final_observation_and_starts_a_new_layout(env):
    first = env.reset(0)
    zero = np.zeros((2, 2))
    for _ in range(999):
        _, step = env.step(zero)
        assert not step.truncated.any()
    begun, last = env.step(zero)
    np.testing.assert_array_equal(last.truncated, 1.0)
    np.testing.assert_array_equal(last.terminated, 0.0)
    # Without a command the Point stands still: its final observation is its first.
    np.testing.assert_allclose(last.next_obs, first, atol=1e-12)
    assert np.abs(begun - first).max(axis=1).min() > 1e-3
    # The next episode begins where it says, with a clock of its own.
    obs, after = env.step(zero)
    np.testing.assert_array_equal(after.truncated, 0.0)
    np.testing.assert_allclose(obs, begun, atol=1e-12)


@pytest.mark.host
def test_recorded_episode_is_reproduced_from_its_seed_on_todays_simulator():
    """The package, patched and on today's MuJoCo, is what was recorded with its pinned one.

    `bang` keeps the turn servo saturated, the only motion that is not chaotic: other actions would
    differ within 50 steps even between two versions of the simulator.
    """
    recorded = golden.recording("PointGoal2_bang_s200")
    with WorkerEnvs(real("PointGoal2"), 1) as env:
        obs = [env.reset(200)[0]]
        steps = [env.step(action[None]) for action in recorded["action"]]
    obs += [after[0] for after, _ in steps]
    reward, cost = zip(*((step.reward[0], step.cost[0]) for _, step in steps), strict=True)
    # Recorded values are rounded to 2⁻⁴⁰; the accelerometer amplifies errors of the yaw rate 3000
    # times.
    np.testing.assert_allclose(obs, recorded["obs"], atol=1e-8)
    np.testing.assert_allclose(reward, recorded["reward"], atol=1e-11)
    np.testing.assert_array_equal(cost, recorded["cost"])


@pytest.mark.host
def test_action_of_wrong_shape_is_refused(env):
    with pytest.raises(ValueError, match=r"the action has shape \(2,\), not \(2, 2\)"):
        env.step(np.zeros(2))


@pytest.mark.host
@pytest.mark.parametrize(
    ("task_id", "problem"),
    [
        ("SafetyPointGoal7-v0", "is not registered; did you mean SafetyPointGoal"),
        ("SafetyCarGoal1Vision-v0", "are pictures: .* SafetyCarGoal1-v0 has the same task"),
        ("SafetyCarGoal1Gymnasium-v0", "hides the cost: take SafetyCarGoal1-v0"),
    ],
)
def test_what_cannot_be_trained_in_of_the_real_package_is_refused(task_id, problem):
    with pytest.raises(ValueError, match=problem):
        safety_gymnasium_task(task_id)


@pytest.mark.host
def test_gymnasium_task_has_its_cost_its_bounds_and_its_true_successor(own):
    with WorkerEnvs(counts(own), 3, processes=2) as env:
        assert (env.observation_size, env.action_size, env.episode_length) == (1, 2, 8)
        np.testing.assert_array_equal(env.reset(0), np.zeros((3, 1)))
        action = np.array([[0.5, 0.0], [-3.0, 3.0], [1.0, 0.5]])
        for k in range(1, 5):
            obs, step = env.step(action)
            np.testing.assert_array_equal(obs, np.full((3, 1), k))
            # -1 to 1 are stretched to 0 to 10 and -1 to 3.
            np.testing.assert_array_equal(step.cost, [7.5, 0.0, 10.0])
            np.testing.assert_array_equal(step.reward, [1.0, 3.0, 2.0])
            assert not np.any([step.terminated, step.truncated, step.lost])
        obs, step = env.step(action)
        np.testing.assert_array_equal(step.next_obs, np.full((3, 1), 5))
        np.testing.assert_array_equal(obs, np.zeros((3, 1)))
        np.testing.assert_array_equal((step.terminated, step.truncated), ([1] * 3, [0] * 3))


@pytest.mark.host
def test_cost_may_be_a_function_of_the_users(own):
    with WorkerEnvs(counts(own, f"{own}:squared"), 1) as env:
        env.reset(0)
        costs = [env.step(np.zeros((1, 2)))[1].cost[0] for _ in range(6)]
    # s² + s' for s = 0, 1, 2, 3, 4, and 0 again
    assert costs == [1, 3, 7, 13, 21, 1]


@pytest.mark.host
def test_episodes_may_be_cut_earlier(own):
    with WorkerEnvs(counts(own, episode_length=3), 1) as env:
        env.reset(0)
        ends = [env.step(np.zeros((1, 2)))[1] for _ in range(6)]
    assert [end.truncated[0] for end in ends] == [0, 0, 1, 0, 0, 1]


@pytest.mark.host
def test_staggered_clocks_cut_first_episodes_at_evenly_spread_times():
    task = gymnasium_task("Pendulum-v1", "none", episode_length=8)
    with WorkerEnvs(task, 4, processes=1, stagger=True) as env:
        env.reset(0)
        cut = np.array([env.step(np.zeros((4, 1)))[1].truncated for _ in range(16)])
    np.testing.assert_array_equal(env.first_ages, [0, 2, 4, 6])
    assert [list(np.flatnonzero(own) + 1) for own in cut.T] == [[8, 16], [6, 14], [4, 12], [2, 10]]


@pytest.mark.host
@pytest.mark.parametrize(
    ("env_id", "cost", "problem"),
    [
        ("Pendulum-v7", "none", "Environment version `v7`.* doesn't exist"),
        ("Several-v0", "none", "its actions are MultiDiscrete.* choices .Discrete. can be learnt"),
        ("Counts-v0", "info.worst", "info has no 'worst', only bad, first"),
        ("Counts-v0", "info.bad", "a step cost -5.0; costs are finite and not negative"),
        ("Counts-v0", "worst", "it is info.NAME, MODULE:FUNCTION or none"),
        ("Counts-v0", "no_module:f", "No module named 'no_module'"),
        ("Endless-v0", "none", "has no time limit"),
    ],
)
def test_what_cannot_be_trained_in_of_gymnasium_is_refused_in_a_line(own, env_id, cost, problem):
    prefix = "" if env_id[0] in "PC" and env_id != "Counts-v0" else f"{own}:"
    with pytest.raises(ValueError, match=problem) as caught:
        gymnasium_task(f"{prefix}{env_id}", cost)
    assert str(caught.value).count("\n") == 0


@pytest.mark.host
def test_halves_are_stepped_on_their_own():
    with WorkerEnvs(gymnasium_task("Pendulum-v1", "none"), 5, processes=2) as env:
        together, apart = [], []
        env.reset(0)
        for _ in range(3):
            together.append(env.step(np.ones((5, 1)))[0])
        env.reset(0)
        assert [rows.stop - rows.start for rows in env.halves] == [3, 2]
        env.send(0, np.ones((3, 1)))
        for _ in range(3):
            env.send(1, np.ones((2, 1)))
            first, _ = env.receive(0)
            env.send(0, np.ones((3, 1)))
            second, _ = env.receive(1)
            apart.append(np.concatenate([first, second]))
    np.testing.assert_array_equal(together, apart)


@pytest.mark.host
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_dies_or_hangs_is_replaced_and_its_episodes_are_lost(number):
    with WorkerEnvs(gymnasium_task("Pendulum-v1", "none"), 4, 2, time_limit=1.0) as env:
        first = env.reset(0)
        zero = np.zeros((4, 1))
        before, _ = env.step(zero)
        os.kill(pids(env)[0], number)
        time.sleep(0.2)
        obs, step = env.step(zero)
        # The first worker has the first environment of each half.
        np.testing.assert_array_equal(step.lost, [1, 0, 1, 0])
        np.testing.assert_array_equal(step.truncated, step.lost)
        np.testing.assert_array_equal(step.next_obs[[0, 2]], before[[0, 2]])
        assert not np.any(step.reward[[0, 2]]) and np.all(step.reward[[1, 3]])
        assert not np.any(obs == first)  # new episodes, not the old ones again
        (notice,) = env.notices()
        how = "died (killed by signal 9)" if number == signal.SIGKILL else "did not answer for 1 s"
        assert "worker 1 of 2 (2 of gymnasium:Pendulum-v1)" in notice and how in notice
        assert notice.endswith("2 episodes dropped") and not env.notices()
        _, step = env.step(zero)
        assert not step.lost.any() and np.all(step.next_obs != obs)


@pytest.mark.host
def test_a_step_that_never_ends_is_found_by_the_time_limit(own):
    with WorkerEnvs(counts(own), 1, time_limit=0.5) as env:
        env.reset(0)
        env.step(np.zeros((1, 2)))
        _, step = env.step(np.array([[0.0, -1.0]]))
        assert step.lost == 1 and "did not answer for 0.5 s" in env.notices()[0]


@pytest.mark.host
def test_a_fourth_death_within_an_hour_ends_all_workers():
    env = WorkerEnvs(gymnasium_task("Pendulum-v1", "none"), 2, 2)
    env.reset(0)
    for _ in range(3):
        os.kill(pids(env)[1], signal.SIGKILL)
        env.step(np.zeros((2, 1)))
    last = pids(env)
    os.kill(last[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"killed by signal 9.*; 3 workers were replaced within"):
        env.step(np.zeros((2, 1)))
    assert not any(map(_is_running, last))
    with pytest.raises(WorkerError, match="closed"):
        env.step(np.zeros((2, 1)))


@pytest.mark.host
def test_interrupt_while_waiting_leaves_no_process(own):
    env = WorkerEnvs(counts(own), 2, 2)
    env.reset(0)
    workers = pids(env)
    env.send(0, np.array([[0.0, -1.0]]))  # waits
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        env.receive(0)
    assert not any(map(_is_running, workers))


@pytest.mark.host
def test_close_may_be_called_again_and_leaves_no_process():
    env = WorkerEnvs(gymnasium_task("Pendulum-v1", "none"), 1)
    env.reset(0)
    (worker,) = pids(env)
    env.close()
    env.close()
    assert not _is_running(worker)


@pytest.mark.host
@pytest.mark.parametrize("waits", [False, True])
def test_workers_end_when_their_parent_is_killed(own, waits):
    speed = -1.0 if waits else 0.0  # in the middle of a step, or between two
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "import numpy as np\n"
            "from smpo_envs.host import WorkerEnvs, gymnasium_task\n"
            f"env = WorkerEnvs(gymnasium_task('{own}:Counts-v0', 'none'), 1)\n"
            "env.reset(0)\n"
            f"env.send(0, np.array([[0.0, {speed}]]))\n"
            "print(env._crew.workers[0].pid, flush=True)\n"
            "input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    for number in (signal.SIGINT, signal.SIGTERM):  # to the whole group: the parent's to handle
        os.kill(worker, number)
    time.sleep(0.2)
    assert _is_running(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while _is_running(worker):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_worker_that_cannot_start_reports_its_last_words(monkeypatch, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho Traceback >&2; echo ImportError: gone >&2; exit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    task = HostTask("own", Maker("gymnasium", {}), 1, 1, 10)
    message = r"worker 1 of 1 \(1 of own\) died \(exit status 3\): ImportError: gone$"
    with pytest.raises(WorkerError, match=message):
        WorkerEnvs(task, 1).reset(0)


def test_worker_module_loads_no_jax():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import smpo_envs.host.worker; print([m for m in sys.modules if m.startswith('jax.')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("processes", [0, 3])
def test_processes_must_be_between_one_and_the_environments(processes):
    task = HostTask("own", Maker("gymnasium", {}), 1, 1, 10)
    with pytest.raises(ValueError, match=f"processes={processes} is not between 1 and num_envs=2"):
        WorkerEnvs(task, 2, processes)


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7])
def test_every_worker_has_work_and_every_environment_a_worker(num_envs):
    for processes in range(1, num_envs + 1):
        env = WorkerEnvs(HostTask("own", Maker("gymnasium", {}), 1, 1, 10), num_envs, processes)
        rows = [[i for own in share for i in range(*own)] for share in env._shares]
        assert all(rows)
        assert sorted(i for own in rows for i in own) == list(range(num_envs))


def test_native_names_translate_to_ids():
    assert native_name_to_id("PointGoal1") == "SafetyPointGoal1-v0"
    with pytest.raises(ValueError, match="did you mean 'PointGoal1'"):
        native_name_to_id("PointGaol1")
    with pytest.raises(ValueError, match="no task 'ProbeExits'; in both are PointGoal0"):
        native_name_to_id("ProbeExits")
