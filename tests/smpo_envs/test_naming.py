"""Names of environments: what they mean, and what is said of wrong ones."""

import importlib.metadata
import sys
import types

import jax
import pytest

import smpo_envs
from smpo_envs import naming, own_code

CODE = """
import functools
from os import system
from smpo_envs.probes import follow, tradeoff

ENV = tradeoff()
count = len
PART = functools.partial(follow, episode_length=3)

def make(scale=1.0):
    assert scale > 0, "scale must be positive"
    return follow()

def needs_length(*, episode_length):
    return follow(episode_length=episode_length)

def nothing():
    return None

def broken():
    return {}["x"]

def leaves():
    raise SystemExit(3)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder with `own_task.py` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_task.py").write_text(CODE)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and name.startswith("own_"):
            del sys.modules[name]


def test_a_file_of_the_current_folder_is_found_and_the_path_is_left_as_it_was():
    path = list(sys.path)
    assert smpo_envs.make("own_task:make", scale=2.0).episode_length == 10
    assert smpo_envs.make("own_task:ENV").observation_size == 1
    assert smpo_envs.make("own_task:PART").episode_length == 3
    assert sys.path == path


def test_a_time_limit_is_anyones():
    for name in ("own_task:make", "own_task:ENV", "own_task:needs_length", "PointGoal0"):
        assert smpo_envs.make(name, episode_length=7).episode_length == 7
    task = smpo_envs.make("PointGoal0", episode_length=7)
    assert isinstance(task, smpo_envs.Environment) and task.drawing is not None
    with pytest.raises(ValueError, match="must be at least 1"):
        smpo_envs.make("own_task:make", episode_length=0)


def test_one_can_be_made_while_a_program_is_traced():
    kept = []

    def make():
        kept.append(jax.numpy.ones(2))
        return smpo_envs.make("ProbeFollow")

    module = types.ModuleType("own_kept")
    vars(module)["make"] = make
    sys.modules["own_kept"] = module
    jax.jit(lambda: smpo_envs.make("own_kept:make") and 0)()
    assert not isinstance(kept[0], jax.core.Tracer)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PointGaol1", "did you mean 'PointGoal1'"),
        ("SafetyDoggoGoal1-v0", "is stepped outside JAX: see smpo_envs.host$"),
        ("own_taks:make", "no module 'own_taks' in .*; did you mean own_task:make"),
        ("brxa:ant", "no module 'brxa' .*; did you mean brax:ant"),
        ("own_task:mak", "has no 'mak'; did you mean own_task:make"),
        ("own_task:nothing", "own_task:nothing: NoneType is no environment, it has no reset"),
        ("own_task:broken", r"own_task:broken raised KeyError: 'x' \(own_task.py, line 21\)"),
        ("own_task:leaves", "own_task:leaves raised SystemExit: 3"),
        ("own_task:needs_length", "missing .*'episode_length'; its options are episode_length"),
        ("own_bad:make", r"importing own_bad failed: SyntaxError: .*\(own_bad.py, line 1\)"),
        (
            "own_needy:make",
            "importing own_needy failed: ModuleNotFoundError: .* 'nope'",
        ),
        ("own_task.part:make", "no module 'own_task.part'"),
        (":make", "is no name of an environment"),
        ("own task:make", "is no name of an environment"),
        ("own_task:make()", "is no name of an environment"),
        ("brax:", "is followed by the name"),
        ("gymnasium:Pendulum-v1", "is stepped outside JAX"),
        ("safety-gymnasium:SafetyPointGoal1-v0", "outside JAX.* or PointGoal1, which is here"),
        ("object:Cart", r"was an object of Python's \(Cart\).*load_policy"),
        ("os:system", "is part of Python"),
        ("builtins:exec", "is part of Python"),
        ("own_task:system", "is part of Python"),
        ("own_task:count", "is part of Python"),
    ],
)
def test_a_wrong_name_is_told_of_in_one_line(here, name, expected):
    (here / "own_bad.py").write_text("def make(:\n")
    (here / "own_needy.py").write_text("import nope\n")
    with pytest.raises(ValueError, match=expected) as error:
        smpo_envs.make(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scal": 1}, "unexpected keyword argument 'scal'; its options are scale"),
        (
            {"scale": -1.0},
            r"raised AssertionError: scale must be positive \(own_task.py, line 11",
        ),
    ],
)
def test_wrong_options_are_told_of(options, expected):
    with pytest.raises(ValueError, match=expected):
        smpo_envs.make("own_task:make", **options)


def test_entry_points_of_other_packages_are_names(monkeypatch):
    point = importlib.metadata.EntryPoint("CartFast", "own_task:make", "smpo_envs")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    assert smpo_envs.make("CartFast").episode_length == 10
    assert naming.find("CartFast").module == "own_task"
    with pytest.raises(ValueError, match="did you mean 'CartFast'"):
        naming.find("CartFsat")


def test_where_code_is_can_be_told_without_running_any(here):
    (here / "own_package" / "deep").mkdir(parents=True)
    for name in ("own_package/__init__.py", "own_package/deep/tasks.py"):
        (here / name).write_text("raise AssertionError('it ran')\n")
    places = own_code.locations("own_package.deep.tasks")
    assert places[0] == str(here / "own_package" / "__init__.py")
    assert places[-1] == str(here / "own_package" / "deep" / "tasks.py")
    assert own_code.locations("own_nowhere") == []


def test_an_id_of_the_original_is_the_native_task():
    assert naming.find("SafetyPointGoal1-v0").name == "PointGoal1"
    assert naming.find("PointGoal1").has_hazards and not naming.find("brax:ant").has_hazards
