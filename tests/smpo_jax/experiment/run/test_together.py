"""Processes that train together, on 127.0.0.1: what they compute, and what becomes of losses."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from processes import finish, wait_for_iteration

from smpo_jax.experiment.run import runtime_log

LINE = (
    "train --env ProbeFollow --algo ppo --num-envs 8 --rollout-length 10 --steps 1600 --hidden 8 "
    "--epochs 1 --minibatches 2 --report-every 0"
)
LOST = "smpo-jax: error: another process of this run is lost, which ends it"
ELSEWHERE = "smpo-jax: error: process 0 has ended the run, and says why\n"

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
def together(process):
    """Starts `smpo-jax ...` in several processes; of the arguments each has those of its own."""

    def start(*each, slurm=False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if slurm:
            return [
                process(*words.split(), "--distributed", env=as_srun(i, len(each), port))
                for i, words in enumerate(each)
            ]
        where = f"--coordinator 127.0.0.1:{port} --num-processes {len(each)} --process-id"
        options = f"--distributed {where}".split()
        return [process(*words.split(), *options, i) for i, words in enumerate(each)]

    return start


def as_srun(process_id, processes, port):
    """What SLURM sets for a task of a step."""
    return {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(processes),
        "SLURM_PROCID": str(process_id),
        "SLURM_LOCALID": str(process_id),
        "JAX_COORDINATOR_PORT": str(port),
    }


def rows(folder):
    return Path(folder, "metrics.csv").read_bytes()


def assert_close(folder, other):
    """But for rounding: the sums of more than two are made in another order."""
    first, second = (
        np.genfromtxt(Path(each, "metrics.csv"), delimiter=",", names=True)
        for each in (folder, other)
    )
    assert first.dtype == second.dtype and first.dtype.names
    for name in first.dtype.names:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_that_lose_each_other_again_and_again_end_with_the_bytes_of_two_devices(
    together, command
):
    assert command(*LINE.split(), "--devices", "2", "--out", "whole").status == 0

    line = f"{LINE} --out run --checkpoint-every 0.2"
    leader, follower = together(line, line)
    wait_for_iteration(leader, "run", 4)
    follower.send_signal(signal.SIGKILL)
    status, _, err = finish(leader)
    assert status == 6 and err.startswith(LOST) and err.count("\n") == 1, err
    assert "smpo-jax train --resume run --distributed" in err
    finish(follower)

    # Only process 0 has to see the folder. SLURM says where it is.
    lines = "train --resume run", "train --resume unseen"
    leader, follower = together(*lines, slurm=True)
    wait_for_iteration(leader, "run", 10)
    leader.send_signal(signal.SIGKILL)
    status, out, err = finish(follower)
    assert status == 6 and err.startswith(LOST) and err.count("\n") == 1 and not out, err
    finish(leader)

    result = command("train --resume run")
    assert result.status == 0, result.err
    assert rows("run") == rows("whole")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ("--seed 1", "process 1: it was started for another run: seed is 1 there and 0 here"),
        pytest.param("", "runs/x is not empty and not the folder of", marks=pytest.mark.slow),
    ],
)
def test_what_keeps_one_from_taking_part_ends_all_of_them(together, others, message):
    if not others:
        Path("runs/x").mkdir(parents=True)
        Path("runs/x/something").touch()
    line = f"{LINE} --out runs/x"
    (status, out, err), follower = map(finish, together(line, f"{line} {others}"))
    assert (status, out, err.count("\n")) == (2, "", 1) and message in err, err
    assert follower == (2, "", ELSEWHERE)
    assert Path("runs").exists() == (not others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--coordinator host:1", "coordinator: has no meaning without --distributed"),
        ("--num-processes 2", "num_processes: has no meaning without --distributed"),
        ("--distributed --coordinator host", "coordinator: expected HOST:PORT, got 'host'"),
        ("--distributed --num-processes 0", "num_processes: must be at least 1, got 0"),
        (
            "--distributed --num-processes 2 --process-id 2",
            "process_id: must be between 0 and 1, got 2",
        ),
        ("--distributed --process-id -1", "process_id: must be between 0 and "),
        ("--distributed --join-timeout 0", "join_timeout: must be at least 1 s, got 0"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(command, options, message):
    for line in (LINE, "train --resume somewhere"):
        result = command(f"{line} {options}")
        assert result.status == 2 and result.error.startswith(message)


def test_a_port_that_is_taken_is_one_line(command):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        where = f"--distributed --coordinator 127.0.0.1:{port} --num-processes 2 --process-id 0"
        result = command(f"{LINE} {where}")
    assert result.status == 2 and f"port {port} cannot be had" in result.error


def test_processes_that_cannot_meet_are_one_line(process):
    children = [
        process(*LINE.split(), *options.split())
        for options in (
            "--distributed",
            "--distributed --coordinator 127.0.0.1:1 --num-processes 2 --process-id 1 "
            "--join-timeout 1",
        )
    ]
    (status, out, err), (late_status, late_out, late_err) = map(finish, children)
    assert (status, out, err.count("\n")) == (2, "", 1) and "--coordinator HOST:PORT" in err
    assert (late_status, late_out, late_err.count("\n")) == (6, "", 1)
    assert "the processes have not met at 127.0.0.1:1 within 1 s" in late_err


def test_of_what_the_runtime_writes_one_line_remains():
    stack = ["F1129 04:10:38.553300   16274 client.h:80] Terminating process\n", "1\n", "@ 0x7f\n"]
    noise = ["E1129 04:10:38.552605   16263 coordination_service.cc:1549] Use\n", "more\n"]
    other = ["W1129 04:10:38.1   1 pjrt.cc:1] memory\n", "of it\n"]
    last = ["\x01lost\n"]
    assert list(runtime_log.told([*last, *noise, *other, *stack])) == [*other, "lost\n"]
    assert list(runtime_log.told([*last, "\x02said\n", *noise, *stack])) == ["said\n"]
    assert list(runtime_log.told([*last, *stack, "\x02said\n"])) == ["lost\n"]
    assert list(runtime_log.told([*last, "[Gloo] Rank 0\n", *noise])) == []


@pytest.mark.slow
def test_a_signal_to_any_of_them_saves_the_run(together):
    line = f"{LINE} --out run --steps 1e6 --checkpoint-every 1000"
    leader, follower = together(line, line)
    wait_for_iteration(leader, "run", 2)
    follower.send_signal(signal.SIGTERM)
    (status, out, _), (follower_status, _, _) = finish(leader), finish(follower)
    assert status == follower_status == 143
    assert "go on with: smpo-jax train --resume run" in out


@pytest.mark.slow
def test_one_that_hangs_ends_the_others(together):
    line = f"{LINE} --out run --steps 1e6"
    leader, follower = together(line, line)
    wait_for_iteration(leader, "run", 2)
    follower.send_signal(signal.SIGSTOP)
    status, _, err = finish(leader)
    assert status == 6 and err.startswith(LOST) and err.count("\n") == 1, err
    follower.send_signal(signal.SIGCONT)
    assert finish(follower)[0] == 6


@pytest.mark.slow
def test_four_do_what_four_devices_do_and_two_go_on(together, process):
    four = process(*LINE.split(), "--devices", "4", "--out", "whole")
    assert finish(four)[0] == 0
    line = f"{LINE} --out run"
    for status, _, err in map(finish, together(line, line, line, line)):
        assert status == 0, err
    assert_close("run", "whole")

    # from iteration 15 of 20, with half as many; and of what another run has learnt
    for folder in Path("run/checkpoints").iterdir():
        if folder.name == "20":
            os.rename(folder, "newest")
    (status, out, err), _ = map(finish, together(*["train --resume run"] * 2))
    assert status == 0 and "began on 4 devices and goes on with 2: its last digits" in out, err
    assert_close("run", "whole")

    line = f"{LINE} --out after --init-from run"
    for status, _, err in map(finish, together(line, line)):
        assert status == 0, err
    alone = process(*LINE.split(), "--devices", "2", "--init-from", "run", "--out", "alone")
    status, _, err = finish(alone)
    assert status == 0, err
    assert rows("after") == rows("alone")
