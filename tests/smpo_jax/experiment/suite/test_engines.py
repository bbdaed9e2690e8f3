"""Suites trained by submitit and by Ray, whose jobs are killed for real."""

import importlib.util
import os
import signal
from pathlib import Path

import job_processes
import pytest
import slurm_stand_in
from processes import finish, wait_for_iteration

SUITE = """
tasks: [ProbeFollow, ProbeTradeoff]
seeds: 2
steps: 16000
num_envs: 8
rollout_length: 20
report_every: 0
checkpoint_every: 0.2
variants:
  ppo: {hyperparameters: {hidden: [8], epochs: 1, minibatches: 2}}
"""
SMALL = SUITE.replace(", ProbeTradeoff", "")
CELLS = [f"{task}/ppo/seed{seed}" for task in ("ProbeFollow", "ProbeTradeoff") for seed in (0, 1)]

pytestmark = pytest.mark.xdist_group("suite-engines")
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="needs submitit"
)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


@pytest.fixture(autouse=True)
def no_job_is_left():
    yield
    job_processes.end_all("submitit")


def assert_same_metrics(a, b, cells):
    for cell in cells:
        for name in ("metrics.csv", "metrics.jsonl"):
            assert Path(a, cell, name).read_bytes() == Path(b, cell, name).read_bytes(), cell


def logs(folder):
    return "".join(path.read_text() for path in sorted(Path(folder, "jobs").glob("*.err")))


@needs_submitit
def test_local_jobs_killed_and_preempted_end_with_the_bytes_of_one_process(process, command):
    Path("s.yaml").write_text(SMALL)
    child = process("suite", "s.yaml", "--out", "a", "--executor", "local", "--array", "2")
    for cell, number in zip(CELLS[:2], (signal.SIGKILL, signal.SIGUSR2), strict=True):
        wait_for_iteration(child, f"a/{cell}", 10)
        job_processes.signal_holder(f"a/{cell}", number)
    status, out, err = finish(child)
    assert status == 0, (out, err, logs("a"))
    assert "2 of 2 cells are done, in a" in out and "Traceback" not in err
    assert f"{CELLS[0]}: local " in out and out.count("trying again") == 1, out
    # The preempted one came back by itself, in the same job.
    again = [path for path in Path("a/jobs").glob("*_log.out") if "Requeued" in path.read_text()]
    assert len(again) == 1 and again[0].read_text().count("Starting with") == 2
    assert command("suite s.yaml --out one").status == 0
    assert_same_metrics("a", "one", CELLS[:2])


@needs_submitit
def test_jobs_go_on_without_the_command_and_are_found_again(process, command):
    head, _, ppo = (
        SMALL.replace("seeds: 2", "seeds: 1").replace("steps: 16000\n", "").rpartition("  ppo: {")
    )
    wild = ppo.replace("hidden:", "learning_rate: 1e38, hidden:")
    Path("s.yaml").write_text(
        f"{head}  wild: {{algo: ppo, steps: 1600, {wild}  short: {{algo: ppo, steps: 1600, {ppo}"
        f"  long: {{algo: ppo, steps: 96000, {ppo}"
    )
    words = ("suite", "s.yaml", "--out", "a", "--executor", "local", "--array", "1")
    child = process(*words)
    wait_for_iteration(child, "a/ProbeFollow/long/seed0", 2)
    child.send_signal(signal.SIGINT)
    status, out, err = finish(child)
    assert status == 130 and "going on without this command: local " in out, (out, err)
    assert "ProbeFollow/wild/seed0: failed: diverged: iteration " in out
    assert out.splitlines()[-1].startswith("1 of 3 cells are done, in a; go on with: ")
    assert out.splitlines()[-1].endswith("--out a --resume --executor local")
    assert job_processes.holder("a/ProbeFollow/long/seed0") is not None
    # A report takes what is done, and says what is not.
    assert command("report a --out r").status == 0
    rows = [line.split(",") for line in Path("r/cells.csv").read_text().splitlines()[1:]]
    assert [row[6] for row in rows] == ["failed", "done", "begun"]
    status, out, err = finish(process(*words, "--resume"))
    assert status == 1 and "2 of 3 cells are done" in out, (out, err)
    assert len(list(Path("a/jobs").glob("*_submitted.pkl"))) == 3  # no other was submitted


@pytest.mark.slow
@needs_submitit
def test_slurm_jobs_killed_preempted_and_left_end_with_the_bytes_of_one_process(
    process, command, monkeypatch
):
    slurm_stand_in.install(Path("bin"))
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    Path("s.yaml").write_text(SUITE)
    words = ("suite", "s.yaml", "--out", "a", "--executor", "slurm", "--array", "2")
    words += ("--resources", "time=60", "mem=2GB")
    child = process(*words)
    wait_for_iteration(child, f"a/{CELLS[0]}", 20)
    job_processes.signal_holder(f"a/{CELLS[0]}", signal.SIGUSR2)
    child.send_signal(signal.SIGKILL)  # the command goes, the jobs do not
    finish(child)
    script = Path("bin/100.sh").read_text()
    for line in (
        "--array=0-3%2",
        "--time=60",
        "--mem=2GB",
        "--cpus-per-task=1",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}\n" in script, script
    child = process(*words, "--resume")
    wait_for_iteration(child, f"a/{CELLS[2]}", 5)
    job_processes.signal_holder(f"a/{CELLS[2]}", signal.SIGKILL)
    status, out, err = finish(child)
    assert status == 0 and "4 of 4 cells are done, in a" in out, (out, err, logs("a"))
    # One array of all, and one job for the cell that was killed.
    assert sorted(path.name for path in Path("bin").glob("*.sh")) == ["100.sh", "101.sh"]
    assert f"{CELLS[2]}: slurm 100_2 was killed (failed)" in out
    assert command("suite s.yaml --out one").status == 0
    assert_same_metrics("a", "one", CELLS)


@pytest.mark.slow
@needs_ray
def test_ray_tasks_killed_and_stopped_end_with_the_bytes_of_one_process(process, command):
    Path("s.yaml").write_text(SUITE)
    words = ("suite", "s.yaml", "--out", "a", "--executor", "ray")
    child = process(*words)
    wait_for_iteration(child, f"a/{CELLS[0]}", 20)
    job_processes.signal_holder(f"a/{CELLS[0]}", signal.SIGKILL)
    wait_for_iteration(child, f"a/{CELLS[2]}", 20)
    child.send_signal(signal.SIGTERM)
    status, out, err = finish(child)
    assert status == 143 and "its task of Ray's was killed (WorkerCrashedError)" in out, (out, err)
    assert out.splitlines()[-1].endswith("--out a --resume --executor ray")
    status, out, err = finish(process(*words, "--resume"))
    assert status == 0 and "4 of 4 cells are done, in a" in out, (out, err)
    assert command("suite s.yaml --out one").status == 0
    assert_same_metrics("a", "one", CELLS)


@pytest.mark.slow
@needs_ray
def test_what_ray_does_not_know_or_reach_is_one_line(process):
    Path("s.yaml").write_text(SMALL)
    words = ("suite", "s.yaml", "--out", "a", "--executor", "ray", "--resources", "num_cpu=2")
    status, _, err = finish(process(*words))
    assert status == 2 and "resources: Invalid option keyword num_cpu" in err
    assert len(err.splitlines()) == 1 and not Path("a").exists()
