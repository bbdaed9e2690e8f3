"""What the README promises."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

import smpo_envs
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment.config import Config, hyperparameters
from smpo_jax.experiment.options import TrainOptions
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.suite import grid
from smpo_jax.training import loop

HOME = Path(__file__).parents[3]
README = (HOME / "README.md").read_text()
ENVIRONMENTS = (HOME / "envs" / "README.md").read_text()


def example(mark):
    """What the program of a README that contains `mark` defines."""
    programs = re.findall(r"```python\n(.*?)```", README + ENVIRONMENTS, re.DOTALL)
    (program,) = {x for x in programs if mark in x}
    mine: dict[str, Any] = {"__name__": "mine"}
    exec(program, mine)
    return mine


def test_there_are_two_setup_commands_of_one_line_each():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "smpo-jax train" in commands[0] and "pytest" in commands[1]


def test_program_runs(capsys):
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    for large, small in {"PointGoal1": "ProbeFollow", "=250": "=10", "100": "2"}.items():
        assert large in program
        program = program.replace(large, small)
    exec(program, {})
    assert capsys.readouterr().out == "(3, 2)\n"


def test_devices_can_be_shared_by_a_program():
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (program,) = (x for x in programs if "jax_num_cpu_devices" in x)
    program += "print(state.env_state.obs.sharding.num_devices)"
    # In a process of its own: it must come before anything else of jax.
    line = [sys.executable, "-c", program.replace("PointButton1", "ProbeFollow")]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "2\n"


def test_a_method_of_ones_own_learns_what_it_says():
    # With a price above what reward is worth, the policy keeps away from cost.
    mine = example("def make")
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeTradeoff"), num_envs=16)
    spec = loop.make_spec(env, rollout_length=20, total_iterations=60)
    costs = []
    for price in (0.0, 5.0):
        settings = mine["Hyperparameters"](
            cost_price=price, minibatches=4, learning_rate=1e-2, hidden=(8,)
        )
        run = jax.jit(lambda key, s=settings: loop.train(mine["make"](spec, s), env, spec, key, 60))
        _, metrics = run(jax.random.key(0))
        costs.append(float(np.nanmean(metrics["episode/cost"][-5:])))
    free, dear = costs
    assert dear < 0.5 * free


def test_a_level_of_ones_own_has_what_it_says():
    env = example("PILLARS_CONTACT")["env"]
    state = jax.jit(env.reset)(jax.random.key(0))
    around = state.env.pipeline_state.arena
    for objects, number in ((around.markers["hazards"], 12), (around.world.fixed, 2)):
        assert objects.shape == (128, number, 2)
        assert np.all(np.abs(objects) < 1.2)
    assert state.obs.shape == (128, env.observation_size) == (128, 12 + 3 * 16)


@pytest.mark.usefixtures("quick_compilation")
def test_an_object_of_ones_own_is_pushed_and_charged_for():
    env = example("CRATES")["env"]
    state, step = jax.jit(env.reset)(jax.random.key(0)), jax.jit(env.step)
    assert state.obs.shape == (128, 12 + 2 * 16)
    assert state.env.pipeline_state.arena.world.boxes.position.shape == (128, 5, 3)
    before = state.env.pipeline_state.arena.world.boxes.position
    cost = np.zeros(128)
    for _ in range(150):
        state, seen = step(state, np.tile([0.05, 0.0], (128, 1)))  # full power straight ahead
        cost += np.where(state.steps > 0, seen.cost, 0)
    after = state.env.pipeline_state.arena.world.boxes.position
    same_episode = np.asarray(state.steps) >= 150
    pushed = np.abs(after - before).max((1, 2)) > 0.05
    assert np.sum(pushed & same_episode) > 10
    assert not np.any(pushed & same_episode & (cost == 0))
    assert np.all(np.isfinite(state.obs))


def test_a_task_of_ones_own_pays_by_the_metre():
    mine = example("Roaming")
    env, task = mine["env"], mine["task"]
    state = jax.jit(env.reset)(jax.random.key(0))
    assert state.obs.shape == (128, 12 + 16)
    one = jax.jit(task.reset)(jax.random.key(1))
    step, paid = jax.jit(task.step), 0.0
    start = one.pipeline_state.arena.world.point.q
    for _ in range(50):
        one = step(one, np.array([0.05, 0.0]))
        paid += float(one.reward)
    way = np.linalg.norm(one.pipeline_state.arena.world.point.q[:2] - start[:2])
    np.testing.assert_allclose(paid, way, rtol=1e-5)  # a straight line
    assert way > 0.1


@pytest.mark.usefixtures("quick_compilation")
def test_suite_runs_and_is_reported(command):
    (text,) = (x for x in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "variants:" in x)
    cells = grid.expand(yaml.safe_load(text), where="README")
    assert len(cells) == 2 * (1 + 4) * 3
    assert cells[3].variant == "ours,threshold_feedback=0.05,cost_limit=10"
    small = {"PointGoal1, PointGoal2": "ProbeFollow", "seeds: 3": "seeds: 1", "2e6": "80"}
    for large, little in {
        **small,
        "variants:": "num_envs: 4\nrollout_length: 10\nvariants:",
    }.items():
        assert large in text
        text = text.replace(large, little)
    text = text.replace("ppo_lag:  ", "ppo_lag: {hyperparameters: {minibatches: 2}}  ")
    text = text.replace("weight_temperature: 30", "minibatches: 2, cost_minibatches: 2")
    Path("mine.yaml").write_text(text)
    result = command("suite mine.yaml --batch 4")
    assert result.status == 0 and "5 of 5 cells are done, in runs/mine" in result.out
    assert command("report runs/mine").status == 0
    assert "ours,threshold_feedback=0.2,cost_limit=25" in Path("report/report.md").read_text()


@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_every_metric_is_explained(algo):
    config = Config(env="ProbeFollow", algo=algo)
    problem = build(config)
    state = jax.eval_shape(
        lambda key: loop.init(problem.algorithm, problem.env, key), jax.random.key(0)
    )
    iteration = loop.iteration(problem.algorithm, problem.env, problem.spec)
    _, metrics = jax.eval_shape(iteration, state)
    assert [name for name in metrics if f"`{name}`" not in README] == []


@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_no_hyperparameter_has_the_name_of_a_field_of_the_run(algo):
    record = hyperparameters(algo, {}, where="test")
    assert not set(vars(record)) & (set(vars(Config())) | set(vars(TrainOptions())))


@pytest.mark.usefixtures("quick_compilation")
def test_a_schedule_of_ones_own_adds_hazards():
    curriculum = example("def harder")["curriculum"]
    first = jax.jit(curriculum.reset)
    for taken, number in ((0, 8), (20_000, 10)):
        markers = first(jax.random.key(0), np.int32(taken)).pipeline_state.arena.markers
        assert markers["hazards"].shape == (16, 2)
        assert np.sum(markers["hazards"][:, 0] < 2) == number
