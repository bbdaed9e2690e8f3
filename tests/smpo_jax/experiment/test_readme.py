"""What the README promises."""

import re
from pathlib import Path

import jax
import pytest

from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment.config import Config, hyperparameters
from smpo_jax.experiment.options import TrainOptions
from smpo_jax.experiment.problem import build
from smpo_jax.training import loop

README = (Path(__file__).parents[3] / "README.md").read_text()


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
