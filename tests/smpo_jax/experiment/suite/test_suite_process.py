"""Suites in processes of their own, killed for real."""

import signal
from pathlib import Path

import pytest
from processes import finish, wait_for_iteration

SUITE = """
tasks: [ProbeFollow]
seeds: 2
steps: 6400
num_envs: 8
rollout_length: 20
report_every: 0
checkpoint_every: 0.2
variants:
  ppo: {hyperparameters: {hidden: [8], epochs: 1, minibatches: 2}}
"""
CELLS = [f"ProbeFollow/ppo/seed{seed}" for seed in (0, 1)]


def assert_same_metrics(a, b):
    for cell in CELLS:
        for name in ("metrics.csv", "metrics.jsonl"):
            assert Path(a, cell, name).read_bytes() == Path(b, cell, name).read_bytes()


@pytest.mark.xdist_group("suite-processes")
def test_batch_killed_for_good_goes_on_to_the_same_bytes(process, command):
    Path("s.yaml").write_text(SUITE)
    assert command("suite s.yaml --out whole --batch 2").status == 0
    child = process("suite", "s.yaml", "--out", "killed", "--batch", "2")
    wait_for_iteration(child, f"killed/{CELLS[1]}", 15)
    child.send_signal(signal.SIGKILL)
    assert finish(child)[0] == -signal.SIGKILL
    assert len(Path("killed", CELLS[0], "metrics.csv").read_text().splitlines()) < 1 + 40
    result = command("suite s.yaml --out killed --resume")
    assert result.status == 0 and "2 of 2 cells are done" in result.out
    assert_same_metrics("killed", "whole")


@pytest.mark.xdist_group("suite-processes")
def test_processes_stop_on_sigterm_go_on_and_end_with_the_bytes_of_one_process(process, command):
    Path("s.yaml").write_text(SUITE)
    assert command("suite s.yaml --out single").status == 0
    child = process("suite", "s.yaml", "--out", "several", "--processes", "2")
    wait_for_iteration(child, f"several/{CELLS[0]}", 5)
    child.send_signal(signal.SIGTERM)
    status, out, err = finish(child)
    assert status == 143, err
    assert "Traceback" not in err and "--resume" in out
    resume = ("suite", "s.yaml", "--out", "several", "--processes", "2", "--resume")
    status, out, err = finish(process(*resume))
    assert status == 0, err
    assert_same_metrics("several", "single")
