"""Runs on environments from outside: trained, resumed, evaluated, in suites, and refused."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
import smpo_jax as sx
from smpo_envs import probes
from smpo_jax.experiment.errors import DivergenceError, UserError
from smpo_jax.experiment.run import train
from smpo_jax.experiment.settings import config_file

CODE = """
from dataclasses import replace

import jax.numpy as jnp
from smpo_envs.probes import follow

def make(price=1.0, later=False):
    env = follow()

    def step(state, action):
        after = env.step(state, action)
        is_charged = after.obs[0] > 2.0 if later else True
        return after.replace(info={"cost": price * after.info["cost"]})

    return replace(env, step=step)
"""
TINY = {
    "algo": "ppo",
    "steps": 160,
    "num_envs": 8,
    "rollout_length": 10,
    "hyperparameters": {"minibatches": 2, "epochs": 1, "hidden": [8]},
}
WORDS = (
    "--algo ppo --steps 160 --num-envs 8 --rollout-length 10 --minibatches 2 --epochs 1 --hidden 8"
)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def module(toy):
    """`own_task.py` in the current folder."""
    del toy
    Path("own_task.py").write_text(CODE)
    yield
    sys.modules.pop("own_task", None)


def test_a_name_its_options_and_limit_are_saved_and_found_by_a_new_process(command, process):
    words = f"train --env own_task:make --env-option price=3 --episode-length 5 {WORDS} --out run"
    assert command(words).status == 0
    saved = json.loads(Path("run/config.json").read_text())
    assert saved["env"] == "own_task:make" and saved["env_options"] == {"price": 3}
    assert saved["episode_length"] == 5
    child = process("evaluate", "run", "--episodes", "4", "--json")
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert json.loads(out)["env"] == "own_task:make"
    assert err == f"smpo-jax: own_task:make is code of {Path('own_task.py').resolve()}\n"


def test_options_come_from_yaml_and_the_command_line_wins(command):
    Path("run.yaml").write_text("env: own_task:make\nenv_options: {price: 2, later: false}\n")
    words = f"train --config run.yaml --env-option price=5e-1 --env-option later=true {WORDS}"
    assert command(words).status == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name == "own_task-make-ppo-seed0"
    saved = json.loads((folder / "config.json").read_text())
    assert saved["env_options"] == {"price": 0.5, "later": True}


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(command):
    whole = sx.run(env="own_task:make", env_options={"price": 2.0}, out="whole", **TINY)
    assert command("train --resume whole").status == 0
    half = sx.run(env="own_task:make", env_options={"price": 2.0}, out="half", **TINY)
    rows = Path("half/metrics.csv").read_bytes()
    newest = max(int(path.name) for path in Path("half/checkpoints").iterdir())
    for path in Path("half/checkpoints").iterdir():
        if int(path.name) == newest:
            shutil.rmtree(path)
    assert command("train --resume half").status == 0
    assert (half / "metrics.csv").read_bytes() == rows == (whole / "metrics.csv").read_bytes()


def test_an_object_is_given_again(command):
    task = probes.follow()
    folder = sx.run(env=task, out="run", **TINY)
    saved = json.loads((folder / "config.json").read_text())
    assert saved["env"] == "object:Environment" and "env_object" not in saved
    for words in ("evaluate run", "train --resume run", "render run"):
        result = command(words)
        assert result.status == 2
        assert "was an object of Python's (Environment)" in result.error
        assert "load_policy(folder, env=...)" in result.error
    policy = sx.load_policy(folder, env=task)
    again = pickle.loads(pickle.dumps(policy))  # which needs no environment
    np.testing.assert_array_equal(policy.predict([0.5]), again.predict([0.5]))
    assert sx.resume(folder, env=task) == folder
    with pytest.raises(UserError, match="does not fit"):
        sx.load_policy(folder, env=smpo_envs.make("PointGoal0"))
    with pytest.raises(UserError, match="cannot be drawn"):
        sx.render(folder, env=task)


def test_a_drawing_of_ones_own_is_drawn():
    folder = sx.run(env=smpo_envs.make("PointGoal0", episode_length=5), out="run", **TINY)
    task = smpo_envs.make("PointGoal0", episode_length=5)
    assert sx.render(folder, env=task, episodes=1, out="paths.png").is_file()


def test_a_native_task_gives_the_same_numbers_by_either_name():
    by_name = sx.run(env="ProbeFollow", out="native", **TINY)
    by_module = sx.run(env="smpo_envs.probes:follow", out="module", **TINY)
    as_object = sx.run(env=probes.follow(), out="object", **TINY)
    rows = {(each / "metrics.csv").read_bytes() for each in (by_name, by_module, as_object)}
    assert len(rows) == 1


SUITE = """
tasks: ["own_task:make", ProbeFollow]
num_envs: 8
rollout_length: 10
steps: 80
variants:
  cheap: {algo: ppo, hyperparameters: {minibatches: 2, hidden: [8]}}
"""


@pytest.mark.parametrize("options", ["", pytest.param("--processes 2", marks=pytest.mark.slow)])
def test_a_suite_has_tasks_of_ones_own(command, options):
    Path("suite.yaml").write_text(SUITE)
    result = command(f"suite suite.yaml --out suite {options}")
    assert result.status == 0, result.err
    assert "2 of 2 cells are done" in result.out
    assert Path("suite/own_task-make/cheap/seed0/metrics.csv").is_file()
    assert command("report suite --out report").status == 0
    assert "own_task:make" in Path("report/report.md").read_text()


def test_a_batch_is_one_program_on_a_task_of_ones_own(command):
    Path("suite.yaml").write_text(SUITE.replace(", ProbeFollow", "") + "seeds: 2\n")
    assert command("suite suite.yaml --out suite --batch 2").status == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--env own_task:mak", "has no 'mak'; did you mean own_task:make?"),
        ("--env own_tsak:make", "there is no module 'own_tsak'"),
        ("--env own_task:make --env-option pirce=3", "its options are price, later"),
        ("--env own_task:make --env-option 3", "expected NAME=VALUE, got '3'"),
        ("--env PointGoal1 --env-option price=3", "env_options: PointGoal1 takes none"),
        (
            "--env StirredTank --env-option flwo=3",
            "env: flwo=3: no such option; parameters are flow, volume",
        ),
        ("--env own_task:make --episode-length 0", "episode_length: must be at least 1, got 0"),
        ("--env own_task:make --hazard-shift size=0.3", "has no hazards that can be shifted"),
        ("--env own_task:make --env-option price=-1", "costs must be 0 or more"),
        (
            "--env gymnasium:Pendulum-v1",
            "gymnasium:Pendulum-v1 needs a cost: --env-option cost=info",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(command, words, expected):
    result = command(f"train {words} {WORDS} --out run")
    assert result.status == 2
    assert expected in result.err.splitlines()[-1]
    assert not result.out and not Path("run").exists()


def test_no_code_is_taken_from_the_folder_of_a_run(command):
    assert command(f"train --env own_task:make {WORDS} --out runs/foreign").status == 0
    Path("own_task.py").rename("runs/foreign/evil.py")
    config = Path("runs/foreign/config.json")
    for name in ("runs.foreign.evil:make", "os:system"):
        plain = json.loads(config.read_text())
        config.write_text(json.dumps(plain | {"env": name}))
        result = command("evaluate runs/foreign")
        assert result.status == 2 and "runs.foreign.evil" not in sys.modules
        assert "from which no code is taken" in result.error or "is part of Python" in result.error


def test_costs_that_turn_negative_during_training_end_it():
    with pytest.raises(ValueError, match=r"rollout/cost is nan: .*costs below 0"):
        env = smpo_envs.VectorEnv(negative(), 8)
        spec = sx.make_spec(env, rollout_length=20, total_iterations=2)
        sx.train(sx.make("ppo", spec, minibatches=2), env, spec, jax.random.key(0), 2)


def negative():
    env = probes.follow()

    def step(state, action):
        after = env.step(state, action)
        return after.replace(info={"cost": -jnp.ones(())})

    return smpo_envs.Environment(env.reset, step, 1, 1, 10)


def test_a_report_of_negative_costs_ends_a_run(monkeypatch):
    monkeypatch.setattr(train, "check_task", lambda config: None)  # as if random steps had none
    with pytest.raises(DivergenceError, match=r"rollout/cost is nan .*costs below 0"):
        sx.run(env=negative(), out="run", **TINY)


def test_a_config_reads_what_it_writes():
    options = {"a": [1, 2], "b": "text", "c": None, "d": {"e": 1.5}, "f": np.float32(0.5)}
    config = config_file.from_mapping({"env": "x:y", "env_options": options}, where="test")
    plain = config_file.as_mapping(config)
    assert plain["env_options"] == options
    assert config_file.from_mapping(plain, where="test") == config
    for wrong in (3, [1], {"episode_length": 3}, {"a b": 1}, {"a": object()}):
        with pytest.raises(UserError, match="test: env_options: "):
            config_file.from_mapping({"env": "x:y", "env_options": wrong}, where="test")
