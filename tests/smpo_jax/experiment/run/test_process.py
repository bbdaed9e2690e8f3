"""The real thing in processes of its own: kill -9, Ctrl-C and a reader that goes away."""

import signal
from pathlib import Path

import numpy as np
import pytest
from processes import PATIENCE, finish, wait_for_iteration

from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.settings import config_file

# SMPO on a real task, as small as it gets: 24 iterations of 4 x 40 steps
LINE = (
    "train --env PointGoal0 --algo smpo --num-envs 4 --rollout-length 40 --steps 3840 --hidden 8 "
    "--epochs 1 --report-every 0"
)
RUN = LINE.split()


def newest(folder):
    config = config_file.load(Path(folder))
    with Checkpoints(Path(folder), config, write=False) as checkpoints:
        iteration = checkpoints.iterations()[-1]
        return iteration, checkpoints._read(iteration)[0]


@pytest.mark.xdist_group("processes")
def test_run_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not(process):
    status, _, err = finish(process(*RUN, "--out", "whole"))
    assert status == 0, err

    # killed early, and again a while after it went on
    child = process(*RUN, "--out", "killed", "--checkpoint-every", "0.3")
    for iteration in (5, 14):
        wait_for_iteration(child, "killed", iteration)
        child.send_signal(signal.SIGKILL)
        assert finish(child)[0] == -signal.SIGKILL
        child = process("train", "--resume", "killed")
    status, _, err = finish(child)
    assert status == 0, err

    for name in ("metrics.csv", "metrics.jsonl"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()
    iteration, leaves = newest("killed")
    assert iteration == 24
    for path, leaf in newest("whole")[1].items():
        np.testing.assert_array_equal(leaf, leaves[path], err_msg=path)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_run_on_two_devices_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(process):
    two = [*RUN, "--devices", "2"]
    status, _, err = finish(process(*two, "--out", "whole"))
    assert status == 0, err
    child = process(*two, "--out", "stopped", "--checkpoint-every", "0.3")
    wait_for_iteration(child, "stopped", 5)
    child.send_signal(signal.SIGKILL)
    assert finish(child)[0] == -signal.SIGKILL
    status, _, err = finish(process("train", "--resume", "stopped"))
    assert status == 0, err
    assert Path("stopped/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()


@pytest.mark.xdist_group("processes")
def test_ctrl_c_saves_and_exits_130(process):
    child = process(*RUN, "--out", "stopped", "--checkpoint-every", "1000")
    wait_for_iteration(child, "stopped", 2)
    child.send_signal(signal.SIGINT)
    status, out, err = finish(child)
    assert status == 130, err
    assert "Traceback" not in err
    assert "go on with: smpo-jax train --resume stopped" in out
    iteration, _ = newest("stopped")
    rows = Path("stopped/metrics.jsonl").read_text().splitlines()
    assert len(rows) == iteration >= 2


@pytest.mark.xdist_group("processes")
def test_reader_that_goes_away_is_no_error(process):
    child = process("list")
    child.stdout.close()
    assert child.wait(PATIENCE) == 0
    assert not child.stderr.read()


@pytest.mark.xdist_group("processes")
def test_device_that_is_not_there_is_one_line(process, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    status, out, err = finish(process(*RUN, "--out", "nowhere"))
    assert status == 2 and not out
    assert err.startswith("smpo-jax: error: ") and err.count("\n") == 1 and "nonsense" in err
    assert not Path("nowhere").exists()
