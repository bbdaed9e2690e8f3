"""Systems and homes that are not as usual: each works, or says in one line what is missing."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smpo_jax.experiment import cli
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run import run_folder

RUN = "train --algo toy --env ProbeFollow --num-envs 4 --rollout-length 5 --steps 60 --out"
PATIENCE = 300
NO_FCNTL = """
import sys
sys.modules["fcntl"] = None
import toy_algorithm
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run import run_folder
ALGORITHMS["toy"] = toy_algorithm.ENTRY
from pathlib import Path
assert cli.main(sys.argv[1:]) == 0
with run_folder.locked(Path("run")):
    try:
        with run_folder.locked(Path("run")):
            raise SystemExit("two at once")
    except UserError as error:
        assert "another process is training" in str(error)
"""


def test_system_without_fcntl_trains_and_locks():
    helpers = Path(__file__).parents[3] / "helpers"
    root = helpers.parents[1]
    path = os.pathsep.join(map(str, (root, root / "envs", helpers)))
    done = subprocess.run(
        [sys.executable, "-c", NO_FCNTL, *RUN.split(), "run"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", sorted(run_folder.NO_LOCKS))
def test_file_system_without_locks_has_a_file_that_names_the_process(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        run_folder.locked(tmp_path),
        pytest.raises(UserError, match="another process is training in"),
        run_folder.locked(tmp_path),
    ):
        pass
    with run_folder.locked(tmp_path):
        pass


def test_lock_of_a_process_that_is_gone_is_free(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    child = subprocess.Popen(["true"])
    child.wait()
    with run_folder.locked(tmp_path):
        marker = next(tmp_path.glob("*.process"))
        text = marker.read_text()
    marker.write_text(text.replace(str(os.getpid()), str(child.pid), 1))
    with run_folder.locked(tmp_path):
        pass


@pytest.fixture
def cacheless(monkeypatch):
    """As in a shell: no word about a cache. What the command sets is undone."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_home_that_cannot_be_written_has_no_cache_and_says_so_in_one_line(cacheless, capsys):
    Path("file").write_text("")
    cacheless.setenv("HOME", str(Path("file").resolve()))
    cli._use_compilation_cache()
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    said = capsys.readouterr().err
    assert said.startswith("smpo-jax: programs are compiled anew") and said.count("\n") == 1


def test_user_that_nobody_knows_has_no_cache(cacheless, capsys):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    cacheless.setattr(Path, "home", unknown)
    cli._use_compilation_cache()
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert capsys.readouterr().err.count("\n") == 1


def test_cache_of_the_users_choice_is_left_alone(cacheless):
    cacheless.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
    cli._use_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "gs://bucket/cache"
    assert "JAX_ENABLE_COMPILATION_CACHE" not in os.environ


CORES = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
from smpo_jax.experiment import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def on_cores(monkeypatch):
    """Runs a command where it sees this many cores, and gives what it printed."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    monkeypatch.delenv("PJRT_NPROC")

    def run(cores, line):
        done = subprocess.run(
            [sys.executable, "-c", CORES, str(cores), *line.split()],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.xdist_group("processes")
def test_resumed_on_fewer_cores_a_run_computes_with_the_threads_it_began_with(on_cores):
    # Large enough for XLA to split its sums, if it has more than one thread.
    on_cores(
        2,
        "train --env ProbeFollow --algo ppo --num-envs 64 --rollout-length 50 --minibatches 2 "
        "--epochs 1 --steps 12800 --checkpoint-iterations 2 --keep-checkpoints 9 --out whole",
    )
    shutil.copytree("whole", "cut")
    shutil.rmtree(Path("cut/checkpoints/4"))
    assert "last digits" not in on_cores(1, "train --resume cut")
    assert Path("whole/metrics.csv").read_bytes() == Path("cut/metrics.csv").read_bytes()
    assert "PJRT_NPROC=2" in Path("cut/checkpoints/4/record/metadata").read_text()


SUITE = """
tasks: [ProbeFollow]
seeds: 1
steps: 6400
num_envs: 64
rollout_length: 50
variants: {ppo: {hyperparameters: {epochs: 1, minibatches: 2}}}
"""


@pytest.mark.xdist_group("processes")
def test_numbers_of_a_suite_do_not_depend_on_the_cores_it_sees(on_cores):
    Path("suite.yaml").write_text(SUITE)
    for cores in (1, 2):
        on_cores(cores, f"suite suite.yaml --out {cores}")
    one, two = (Path(out, "ProbeFollow/ppo/seed0/metrics.csv") for out in "12")
    assert one.read_bytes() == two.read_bytes()


def test_resume_with_another_number_of_threads_says_so(command, monkeypatch):
    assert command(f"{RUN} run").status == 0
    shutil.copytree("run", "fewer")
    monkeypatch.setenv("PJRT_NPROC", "7")
    result = command("train --resume fewer --steps 100")
    assert result.status == 0
    assert "PJRT_NPROC=1 and this is" in result.out and "PJRT_NPROC=7" in result.out
    assert "its last digits may differ" in result.out
