"""The real package as a batch of environments in worker processes."""

import os
import signal
import subprocess
import sys
import time

import golden
import jax
import numpy as np
import pytest

from smpo_envs.host import SafetyGymnasiumVector, WorkerError, native_name_to_id, vector_env
from smpo_envs.host import vector as vector_module

pytestmark = pytest.mark.xdist_group("real")  # one process pays for the imports


@pytest.fixture(scope="module")
def env():
    with vector_env("PointGoal0", 2, processes=2) as env:
        yield env


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
        env.step(np.ones((2, 2)))
        return first, env.restart(np.array(over)), env.step(np.zeros((2, 2)))[0]

    first, restarted, after = play([True, False])
    assert np.any(restarted[0] != first[0]) and np.all(restarted[1] == 0)
    _, nothing, alone = play([False, False])
    assert np.all(nothing == 0)
    np.testing.assert_array_equal(after[1], alone[1])
    assert np.any(after[0] != alone[0])


@pytest.mark.host
def test_result_does_not_depend_on_the_number_of_processes(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2, 2))

    def play(env):
        return jax.tree.leaves([env.reset(3), [env.step(action) for action in actions]])

    with SafetyGymnasiumVector("SafetyPointGoal0-v0", 2, processes=1) as other:
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
    with SafetyGymnasiumVector("SafetyPointGoal2-v0", 1) as env:
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
def test_dead_worker_is_named_and_the_others_end():
    env = vector_env("PointGoal0", 3, processes=2)
    processes = [worker._process for worker in env._workers]
    processes[1].kill()
    with pytest.raises(WorkerError, match=r"worker 2 of 2 \(environments 1 to 2\) died \(killed "):
        env.reset(0)
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(WorkerError, match="closed"):
        env.reset(0)


@pytest.mark.host
def test_unknown_id_is_reported_by_the_worker():
    with pytest.raises(WorkerError, match="SafetyPointGoal7-v0 is not registered"):
        SafetyGymnasiumVector("SafetyPointGoal7-v0", 1)


@pytest.mark.host
def test_close_may_be_called_again_and_leaves_no_process():
    env = vector_env("PointGoal0", 1)
    process = env._workers[0]._process
    env.close()
    env.close()
    assert process.returncode == 0


@pytest.mark.host
def test_workers_end_when_their_parent_is_killed():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "from smpo_envs.host import vector_env\n"
            "env = vector_env('PointGoal0', 1)\n"
            "print(env._workers[0]._process.pid, flush=True)\n"
            "input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, signal.SIGINT)  # as Ctrl-C does to the whole group: the parent's to handle
    time.sleep(0.2)
    os.kill(worker, 0)  # still there
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
    monkeypatch.setattr(vector_module, "check_installed", lambda: None)
    message = r"worker 1 of 1 .* died \(exit status 3\): ImportError: gone$"
    with pytest.raises(WorkerError, match=message):
        SafetyGymnasiumVector("SafetyPointGoal0-v0", 1)


def test_worker_module_loads_no_jax():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import smpo_envs.host.worker; print([m for m in sys.modules if m.startswith('jax')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("processes", [0, 3])
def test_processes_must_be_between_one_and_the_environments(processes):
    with pytest.raises(ValueError, match=f"processes={processes} is not between 1 and num_envs=2"):
        SafetyGymnasiumVector("SafetyPointGoal0-v0", 2, processes)


def test_native_names_translate_to_ids():
    assert native_name_to_id("PointGoal1") == "SafetyPointGoal1-v0"
    with pytest.raises(ValueError, match="did you mean 'PointGoal1'"):
        native_name_to_id("PointGaol1")
    with pytest.raises(ValueError, match="no task 'ProbeExits'; in both are PointGoal0"):
        native_name_to_id("ProbeExits")
