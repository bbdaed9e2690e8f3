"""The run-time fixes: what breaks without each, that it holds with them, that nothing else changes.

Imports cannot be undone, so what needs an untouched interpreter runs in one of its own.
"""

import dataclasses
import importlib.util
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import xmltodict

from smpo_envs.host import compat

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
NUMPY = tuple(int(part) for part in np.__version__.split(".")[:2])
ROBOTS = ("Point", "Car", "Racecar", "Ant", "Doggo")
TASKS = (
    *(f"{task}{level}" for task in ("Goal", "Button", "Push", "Circle") for level in range(3)),
    "Run0",
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter that sees what this one sees."""
    command = f"import sys; sys.path[:0] = {sys.path!r}\n{code}"
    return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)


@pytest.mark.host
def test_import_without_fixes_fails_on_array_defaults():
    result = run("import safety_gymnasium")
    assert "ValueError: mutable default <class 'numpy.ndarray'>" in result.stderr


@pytest.mark.host
@pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is not None, reason="it is installed"
)
def test_import_without_stand_in_fails_on_gymnasium_robotics():
    result = run("""
from smpo_envs.host import compat
with compat._array_defaults():
    import safety_gymnasium
""")
    assert "ModuleNotFoundError: No module named 'gymnasium_robotics'" in result.stderr


@pytest.mark.host
@pytest.mark.skipif(NUMPY < (2, 4), reason="NumPy before 2.4 takes one-element arrays as numbers")
def test_joint_sensors_without_fix_are_refused():
    result = run("""
from smpo_envs.host import compat
compat._accept_one_element_arrays = lambda base_agent: None
make = compat.import_safety_gymnasium().make
try:
    make("SafetyDoggoGoal0-v0")  # hinges
except TypeError as error:
    print("model.jnt:", error)
""")
    assert result.stdout.startswith("model.jnt: jnt(): incompatible function arguments")


@pytest.mark.host
@pytest.mark.skipif(NUMPY < (2, 4), reason="NumPy before 2.4 takes one-element arrays as numbers")
def test_hinge_reading_without_fix_is_refused():
    package = compat.import_safety_gymnasium()
    env = package.make("SafetyDoggoGoal0-v0", disable_env_checker=True)
    env.reset(seed=0)
    base_agent = sys.modules["safety_gymnasium.bases.base_agent"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_agent, "float", float)
        with pytest.raises(TypeError, match="only 0-dimensional arrays can be converted"):
            env.step(np.zeros(12))


@pytest.mark.host
@pytest.mark.skipif(NUMPY < (2, 0), reason="NumPy before 2 copies where it must")
def test_action_that_is_no_array_is_refused():
    package = compat.import_safety_gymnasium()
    env = package.make("SafetyPointGoal0-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        env.step([0.0, 0.0])


@pytest.mark.host
def test_import_with_fixes_prints_nothing_and_warns_of_nothing():
    result = run("""
import warnings
warnings.simplefilter("error")
from smpo_envs.host.compat import import_safety_gymnasium
make = import_safety_gymnasium().make
env = make("SafetyPointGoal1-v0", disable_env_checker=True)
env.reset(seed=0)
env.step(env.action_space.sample())
""")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.host
def test_import_leaves_no_trace_outside_the_package():
    result = run("""
import dataclasses, warnings
from smpo_envs.host.compat import import_safety_gymnasium
before = dataclasses.dataclass, list(warnings.filters)
package = import_safety_gymnasium()
assert (dataclasses.dataclass, list(warnings.filters)) == before
assert not [name for name in sys.modules if name.startswith("gymnasium_robotics")]
assert not [name for name in sys.modules if name.startswith(("jax", "pygame", "brax"))]
# Again: the same module, and the fixes are not stacked.
agents = sys.modules["safety_gymnasium.bases.base_agent"].BaseAgent
patched = agents._init_jnt_sensors
assert import_safety_gymnasium() is package
assert agents._init_jnt_sensors is patched
""")
    assert result.stderr == ""


def test_array_defaults_gives_each_instance_its_own_copy():
    with compat._array_defaults():

        @dataclasses.dataclass(frozen=True)
        class Disc:
            color: np.ndarray = np.array([1.0, 2.0])  # noqa: RUF009
            name: str = "disc"

    first, second = Disc(), Disc()
    first.color[0] = 7.0
    np.testing.assert_array_equal(second.color, [1.0, 2.0])
    assert second.name == "disc"


def test_array_defaults_restores_dataclass_after_an_error():
    original = dataclasses.dataclass
    with pytest.raises(KeyError), compat._array_defaults():
        assert dataclasses.dataclass is not original
        raise KeyError
    assert dataclasses.dataclass is original


@pytest.mark.host
@pytest.mark.parametrize("robot", ROBOTS)
def test_every_robot_resets_and_steps(robot):
    _reset_and_step(f"Safety{robot}Goal1-v0")


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_every_navigation_task_resets_and_steps(robot, task):
    _reset_and_step(f"Safety{robot}{task}-v0")


def _reset_and_step(task_id):
    package = compat.import_safety_gymnasium()
    compat.log_to_stderr()  # and not to a file where the tests are started
    env = package.make(task_id, disable_env_checker=True)
    first, _ = env.reset(seed=0)
    env.action_space.seed(0)
    obs, reward, cost, *_ = env.step(env.action_space.sample())
    assert obs.shape == first.shape == env.observation_space.shape
    assert np.isfinite([*obs, reward, cost]).all()


@pytest.mark.host
def test_leaving_out_the_sky_changes_no_number(monkeypatch):
    package = compat.import_safety_gymnasium()
    world = sys.modules["safety_gymnasium.world"]

    def play():
        env = package.make("SafetyPointGoal2-v0", disable_env_checker=True)
        actions = np.random.default_rng(0).uniform(-1, 1, (30, 2))
        seen = [env.reset(seed=0)[0], *(np.hstack(env.step(action)[:3]) for action in actions)]
        return np.hstack(seen), env.unwrapped.task.model.ntexdata

    monkeypatch.setattr(world, "xmltodict", xmltodict)  # with the sky, also after other tests
    with_sky, before = play()
    compat.leave_out_the_sky()
    without_sky, after = play()
    np.testing.assert_array_equal(without_sky, with_sky)
    assert before > 100e6 > 1e6 > after  # bytes of texture


def test_missing_package_names_the_commands_that_install_it(monkeypatch):
    def version(name):
        if name == "safety-gymnasium":
            raise metadata.PackageNotFoundError(name)
        return "0.29.1"

    monkeypatch.setattr(compat.metadata, "version", version)
    with pytest.raises(ImportError) as caught:
        compat.check_installed()
    message = str(caught.value)
    assert "the package 'safety-gymnasium' is not installed" in message
    assert "\n  pip install --no-deps safety-gymnasium==1.0.0" in message


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"safety-gymnasium": "1.2.0", "gymnasium": "0.29.1"}, "only 1.0.0 is known to work"),
        ({"safety-gymnasium": "1.0.0", "gymnasium": "1.2.1"}, "gymnasium 0.29, and 1.2.1 is"),
    ],
)
def test_versions_that_cannot_work_are_named(monkeypatch, versions, reason):
    monkeypatch.setattr(compat.metadata, "version", versions.__getitem__)
    with pytest.raises(ImportError, match=reason):
        compat.check_installed()


def test_printed_requirements_are_those_of_the_extra():
    extra = PYPROJECT["project"]["optional-dependencies"]["safety-gymnasium"]
    assert set(compat.REQUIREMENTS) == set(extra)


def test_uv_metadata_holds_the_extra_and_yaml():
    (entry,) = PYPROJECT["tool"]["uv"]["dependency-metadata"]
    assert (entry["name"], entry["version"]) == ("safety-gymnasium", "1.0.0")
    # The package reads YAML too; for us that is a dependency of the trainer.
    (yaml,) = [line for line in PYPROJECT["project"]["dependencies"] if line.startswith("pyyaml")]
    assert set(entry["requires-dist"]) == {*compat.REQUIREMENTS, yaml}


VELOCITY = ("HalfCheetah", "Hopper", "Walker2d", "Swimmer", "Ant", "Humanoid")


@pytest.mark.host
@pytest.mark.parametrize("robot", VELOCITY)
def test_every_velocity_task_resets_and_steps(robot):
    _reset_and_step(f"Safety{robot}Velocity-v1")


@pytest.mark.host
def test_nothing_of_the_swimmer_collides():
    """Its model asked for the collisions of a list, which was empty."""
    env = compat.import_safety_gymnasium().make("SafetySwimmerVelocity-v1")
    model = env.unwrapped.model
    assert not np.any(model.geom_contype) and not np.any(model.geom_conaffinity)
