"""Names, their messages, and what importing costs."""

import subprocess
import sys

import pytest

import smpo_envs
from smpo_envs.naming import make
from smpo_envs.registry import TASKS, resolve


def loaded_modules(code):
    """The names of the modules that are loaded after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_make_knows_the_ids_of_the_original(level):
    assert resolve(f"SafetyPointGoal{level}-v0") == f"PointGoal{level}"
    assert make(f"SafetyPointGoal{level}-v0").observation_size in (28, 60)


def test_make_passes_options_on():
    assert make("PointGoal1").episode_length == 1000
    assert make("PointGoal1", episode_length=50).episode_length == 50


@pytest.mark.parametrize("name", TASKS)
def test_environments_can_be_arguments_of_compiled_functions(name):
    env = make(name)
    assert hash(env) == hash(env) and env == env


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("PointGoall1", "PointGoal1"), ("pointgoal2", "PointGoal2"), ("SafetyPointGoal9-v0", "Point")],
)
def test_make_names_the_nearest_match_and_all_known(name, nearest):
    with pytest.raises(ValueError, match=f"unknown environment '{name}'.*did you mean") as error:
        make(name)
    assert f"did you mean '{nearest}" in str(error.value)
    assert all(known in str(error.value) for known in TASKS)


@pytest.mark.parametrize("name", ["zzz", "", "SafetyProbeExits-v0"])
def test_make_refuses_what_is_no_task(name):
    with pytest.raises(ValueError, match="unknown environment"):
        make(name)


@pytest.mark.parametrize("task", ["Goal0", "Circle1", "Run0"])
def test_make_names_the_agents_that_there_are(task):
    assert make(f"SafetyCar{task}-v0").observation_size == make(f"Car{task}").observation_size
    with pytest.raises(ValueError, match="agent='Doggo' is unknown: known are Point, Car"):
        make(f"Point{task}", agent="Doggo")


def test_entries_have_a_line_for_people():
    for name, entry in TASKS.items():
        assert entry.summary and "\n" not in entry.summary, name


def test_the_package_is_lazy_and_complete():
    assert set(smpo_envs.__all__) <= set(dir(smpo_envs))
    assert all(getattr(smpo_envs, name) is not None for name in smpo_envs.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        smpo_envs.nonsense  # noqa: B018


def test_registry_imports_no_jax():
    assert not {"jax", "flax", "numpy"} & loaded_modules("import smpo_envs.registry")


def test_building_an_environment_imports_no_brax():
    code = "import smpo_envs; smpo_envs.VectorEnv(smpo_envs.make('PointGoal2'), 2)"
    modules = loaded_modules(code)
    assert "jax" in modules
    assert not {"brax", "mujoco"} & modules
