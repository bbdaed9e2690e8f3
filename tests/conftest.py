"""Which tests share a process, and for how long it keeps what it has compiled."""

import gc
import os
import subprocess
import sys

import jax
import pytest

from smpo_envs.registry import TASKS
from smpo_jax.algorithms.registry import ALGORITHMS


def _use_older_emitters() -> None:
    """Half of the time of the tests is XLA's compiler, whose older emitters of fusions are faster.

    For this process and those it starts. A jaxlib that has dropped them ends a process that asks
    for them, so one is sent ahead.
    """
    flag, own = "--xla_cpu_use_fusion_emitters=false", os.environ.get("XLA_FLAGS", "")
    if flag in own:
        return
    asked = {**os.environ, "XLA_FLAGS": f"{flag} {own}", "JAX_PLATFORMS": "cpu"}
    ahead = [sys.executable, "-c", "import jax; jax.devices()"]
    if subprocess.run(ahead, env=asked, capture_output=True, check=False).returncode == 0:
        os.environ["XLA_FLAGS"] = asked["XLA_FLAGS"]


os.environ.setdefault("PJRT_NPROC", "1")  # XLA's threads: two processes of tests share two cores
_use_older_emitters()
# Python looks for garbage among all that JAX has traced: a tenth of the tests' time.
gc.set_threshold(50_000)
jax.config.update("jax_num_cpu_devices", 2)  # for tests of environments that devices share


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one module about one task or method run in one process, which compiles it once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drops compiled programs between groups.

    Each takes several memory maps, of which Linux allows a process 65 530; beyond that the compiler
    crashes.
    """
    if nextitem is None or _group(item) != _group(nextitem):
        jax.clear_caches()


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests whose time is XLA's and whose outcome its optimisations must not change."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def _group(item: pytest.Item) -> str:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    names = [value for value in parameters.values() if isinstance(value, str)]
    # Recordings are called by the task they are of.
    tasks = [task for task in TASKS for name in names if name.startswith(task)]
    methods = [name for name in names if name in ALGORITHMS]
    return ":".join([str(item.path), *tasks[:1], *methods[:1]])
