"""A run with two limits from the command line to the report, and wrong numbers of limits."""

import csv
import json
from pathlib import Path

import pytest

import smpo_jax as sx
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run.selection import Score
from smpo_jax.experiment.settings import config_file

WORDS = (
    "--env ProbeSpending --algo ppo_lag --steps 640 --num-envs 8 --rollout-length 20 --hidden 8 "
    "--minibatches 2 --epochs 1 --report-every 0"
)
SUITE = """
tasks: [ProbeSpending]
seeds: 2
steps: 320
num_envs: 8
rollout_length: 20
cost_limit: [3, 6]
variants:
  ppo_lag:
    hyperparameters: {minibatches: 2, epochs: 1, hidden: [8]}
"""
pytestmark = pytest.mark.usefixtures("quick_compilation", "toy")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def done(command):
    """What a command that ends well has printed."""

    def run(words):
        result = command(words)
        assert result.status == 0, result.err
        return result.out

    return run


def test_two_limits_from_the_command_line_to_every_table(command, done):
    told = done(f"train {WORDS} --cost-limit 3 6 --out run")
    assert "cost first" in told and "(limit 3, 6)" in told
    first = rows("run/metrics.csv")[-1]
    assert {"episode/cost/first", "constraint/second/multiplier", "cost_value/first/loss"} <= set(
        first
    )
    assert "episode/cost" not in first
    assert json.loads(Path("run/config.json").read_text())["cost_limit"] == [3.0, 6.0]
    before = rows("run/metrics.csv")
    done("train --resume run --steps 960")
    after = rows("run/metrics.csv")
    assert after[:4] == before and len(after) == 6 and list(after[0]) == list(before[0])

    told = done("evaluate run --episodes 8 --checkpoint best")
    assert "cost first" in told and "cost second" in told
    assert "more than 3 of cost first or 6 of cost second" in told
    found = json.loads(done("evaluate run --episodes 8 --cost-limit 0,inf --json"))
    assert found["cost_limit"] == [0.0, float("inf")] and found["over_limit"]["value"] == 1.0
    assert {"cost/first", "cost/second"} <= set(found) and "cost" not in found
    refused = command("evaluate run --cost-limit 3")
    assert refused.status and "cost_limit: 1 given, and run has 2: cost/first" in refused.err
    done("plot run --out curves.png")
    assert Path("curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_suite_of_two_limits_is_reported_by_name(done, batch):
    Path("two.yaml").write_text(SUITE)
    done(f"suite two.yaml --out suite --batch {batch}")
    done("report suite --out report --window 1")
    cells = rows("report/cells.csv")
    assert {"cost/first", "cost/second", "cost_rate/first", "over_limit"} <= set(cells[0])
    assert "cost" not in cells[0] and cells[0]["cost_limit"] == "3, 6"
    assert {"cost/first", "cost/first_low"} <= set(rows("report/variants.csv")[0])
    text = Path("report/report.md").read_text()
    assert "cost, first | cost, second" in text and "| 3, 6 |" in text
    for name in ("curves", "scatter", "intervals"):
        assert Path(f"report/{name}-ProbeSpending.png").exists()


def test_limits_from_yaml_and_python_are_the_same_run(tmp_path):
    (tmp_path / "two.yaml").write_text("env: ProbeSpending\ncost_limit: [3, 6]\n")
    config = config_file.load_yaml(tmp_path / "two.yaml")
    assert config.cost_limit == (3.0, 6.0)
    assert config_file.from_mapping({"cost_limit": [7]}, where="here").cost_limit == 7.0
    named = config_file.from_mapping({"cost_limit": [3, 6], "cost_names": ["a", "b"]}, where="here")
    assert named.limits == {"cost/a": 3.0, "cost/b": 6.0} and config.limits.keys() == {
        "cost/cost_1",
        "cost/cost_2",
    }
    assert config_file.from_mapping({}, where="here").limits == {"cost": 25.0}


@pytest.mark.parametrize(
    ("env", "algo", "limit", "words"),
    [
        ("ProbeSpending", "ppo_lag", 3, "1 limit given, but the environment has 2 costs"),
        ("ProbeSpending", "ppo_lag", [1, 2, 3], "3 limits given, but the environment has 2 costs"),
        ("ProbeFollow", "ppo_lag", [1, 2], r"2 limits given, but the environment has 1 cost"),
        ("ProbeSpending", "ppo_saute", [1, 2], "ppo_saute keeps 1 cost limit at most, and 2 are"),
        ("ProbeSpending", "ppo_saute", 1, "keeps an account of one cost, and the environment has"),
        ("ProbeSpending", "ppo_lag", [1, -2], "cost_limit: must not be negative, got -2"),
        ("ProbeSpending", "ppo_lag", [], "cost_limit: expected a number, or one for each cost"),
        ("ProbeSpending", "ppo_lag", [1, "x"], "cost_limit: expected a number or a list"),
    ],
)
def test_a_wrong_number_of_limits_is_one_clear_line(env, algo, limit, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        sx.run(env=env, algo=algo, cost_limit=limit, steps=160, num_envs=8, rollout_length=20,
               out=tmp_path / "run", quiet=True)  # fmt: skip
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_the_best_checkpoint_keeps_all_limits():
    limits = {"cost/a": 5.0, "cost/b": 5.0}

    def score(return_, a, b):
        return Score(return_, {"cost/a": a, "cost/b": b}, {"cost/a": 0.0, "cost/b": 0.5}, 9)

    ascending = [score(99, 0, 9), score(99, 5, 5), score(1, 5, 4.5), score(2, 0, 0)]
    ranks = [each.rank(limits) for each in ascending]
    assert ranks == sorted(ranks) and len(set(ranks)) == 4
    assert [each.is_feasible(limits) for each in ascending] == [False, False, True, True]
