import os
import subprocess
import sys

import jax
import pytest
import toy_algorithm
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles each program once for all tests of this folder, and for the processes they start."""
    folder = tmp_path_factory.getbasetemp() / "jax-cache"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _configure(settings)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
        yield
    _configure(before)


def _configure(settings):
    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """Registers the toy algorithm and works in an empty folder."""
    monkeypatch.setitem(ALGORITHMS, "toy", toy_algorithm.ENTRY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


class Result:
    """What a command gave: exit status and the two streams."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def error(self):
        """The one line that a failed command says on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("smpo-jax: error: ")
        return lines[0].removeprefix("smpo-jax: error: ")


@pytest.fixture
def command(capsys):
    """Runs `smpo-jax ...` in this process; arguments are one string or several words."""

    def run(*words):
        arguments = words[0].split() if len(words) == 1 else list(map(str, words))
        capsys.readouterr()
        try:
            status = cli.main(arguments)
        except SystemExit as exit_:
            status = exit_.code or 0
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def process():
    """Starts `smpo-jax ...` in a process of its own; what still runs at the end is killed."""
    started = []

    def start(*words, env=None):
        program = "import sys; from smpo_jax.experiment.cli import main; sys.exit(main())"
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
