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
os.sched_setaffinity(0, {int(sys.argv[1])} if sys.argv[1] else os.sched_getaffinity(0))
from smpo_jax.experiment import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores",
)
@pytest.mark.xdist_group("processes")
def test_numbers_do_not_depend_on_the_cores_that_the_process_sees(monkeypatch):
    monkeypatch.delenv("PJRT_NPROC")
    # Large enough for XLA to split its sums, if it had more than one thread.
    run = (
        "train --env ProbeFollow --algo ppo --num-envs 64 --rollout-length 50 --minibatches 2 "
        "--epochs 1 --steps 6400 --out"
    )
    one = str(min(os.sched_getaffinity(0)))
    for cores, out in (("", "all"), (one, "one")):
        done = subprocess.run(
            [sys.executable, "-c", CORES, cores, *run.split(), out],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
    assert Path("all/metrics.csv").read_bytes() == Path("one/metrics.csv").read_bytes()
    record = next(Path("all/checkpoints").glob("*/record/metadata")).read_text()
    assert "PJRT_NPROC=1" in record


def test_resume_with_another_number_of_threads_says_so(command, monkeypatch):
    assert command(f"{RUN} run").status == 0
    shutil.copytree("run", "fewer")
    monkeypatch.setenv("PJRT_NPROC", "7")
    result = command("train --resume fewer --steps 100")
    assert result.status == 0
    assert "PJRT_NPROC=1 and this is" in result.out and "PJRT_NPROC=7" in result.out
    assert "its last digits may differ" in result.out
