import io
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.text import Text

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import single_env
from smpo_jax.experiment.results import evaluate, pieces
from smpo_jax.experiment.results.policy import load_policy

TRAIN = "train --algo toy --num-envs 4 --rollout-length 5 --steps 20 --step 0"


@pytest.fixture
def tradeoff(command):
    """A policy whose weights stay at 0.5; the observation is 1, so its mean action is 0.5."""
    assert command(f"{TRAIN} --env ProbeTradeoff --start 0.5 --cost-limit 3 --out run").status == 0
    return Path("run")


def test_deterministic_policy_has_the_return_and_cost_of_its_mean(command, tradeoff):
    result = json.loads(command("evaluate run --episodes 7 --deterministic --json").out)
    # 10 steps that each earn 0.5 and cost 0.5
    assert result["return"] == {"value": 5.0, "interval": [5.0, 5.0], "std": 0.0}
    assert result["cost"] == {"value": 5.0, "interval": [5.0, 5.0], "std": 0.0}
    assert result["over_limit"]["value"] == 1.0  # 5 > 3
    assert result["episodes"] == 7 and result["on"] == "native" and result["steps"] == 20


def test_sampled_policy_scatters_around_it(command, tradeoff):
    result = json.loads(command("evaluate run --episodes 400 --json").out)
    # the noise has standard deviation 0.1 a step, that of 10 steps 0.316
    assert abs(result["return"]["std"] - 0.316) < 0.05
    low, high = result["return"]["interval"]
    assert low < 5.0 < high
    assert np.isclose(high - low, 2 * 1.966 * result["return"]["std"] / 20, rtol=1e-3)


def test_seed_decides_the_episodes(command, tradeoff):
    def value(seed):
        return json.loads(command(f"evaluate run --episodes 3 --seed {seed} --json").out)["return"]

    assert value(1) == value(1) != value(2)


def test_table_names_what_it_shows(command, tradeoff):
    out = command("evaluate run --episodes 3 --deterministic").out
    for expected in ("toy on ProbeTradeoff (native) after 20 steps", "5.00", "100.00 %", "Wilson"):
        assert expected in out


def test_a_policy_that_knows_several_limits_is_told_the_one_that_is_asked_for(command):
    small = "--hidden 4 --cost-hidden 4 --minibatches 2 --cost-minibatches 2 --cost-limit 3"
    words = "--algo smpo-limits --other-limits 1 8 --num-envs 4 --rollout-length 10 --steps 40"
    assert command(f"train {words} {small} --env ProbeTradeoff --out run").status == 0
    policy = load_policy("run")
    told = [float(single_env(own.config).reset(jax.random.key(0)).obs[-1])
            for own in (policy, policy.under(8.0), policy.under(1.5))]  # fmt: skip
    np.testing.assert_allclose(told, np.log1p([3.0, 8.0, 1.5]), rtol=1e-6)
    evaluated = [
        json.loads(command(f"evaluate run --episodes 4 --deterministic --json {given}").out)
        for given in ("", "--cost-limit 1", "--cost-limit 8")
    ]
    assert [each["cost_limit"] for each in evaluated] == [3.0, 1.0, 8.0]
    assert len({each["return"]["value"] for each in evaluated}) == 3  # it acts otherwise
    refused = command("evaluate run --cost-limit 9")
    assert refused.status == 2
    assert "cost_limit=9 must be from 1 to 8, between those that the policy has" in refused.err


def test_a_policy_of_one_limit_cannot_be_told_another(tradeoff):
    with pytest.raises(UserError, match=r"toy has learnt to keep 3\.0, and is not told of others"):
        load_policy(tradeoff).under(5.0)


def test_one_episode_has_no_interval(command, tradeoff):
    result = json.loads(command("evaluate run --episodes 1 --deterministic --json").out)
    assert result["return"] == {"value": 5.0, "interval": [None, None]}


@pytest.mark.parametrize("episodes", [0, -3])
def test_number_of_episodes_must_be_positive(command, tradeoff, episodes):
    result = command(f"evaluate run --episodes {episodes}")
    assert result.status == 2 and "episodes: must be at least 1" in result.error


@pytest.mark.parametrize("shift", ["", "--hazard-shift size=0.2"])
def test_more_episodes_than_memory_holds_are_refused(command, monkeypatch, shift):
    command(f"{TRAIN} --env PointGoal1 --out run")
    monkeypatch.setattr("smpo_jax.experiment.sizes.machine_memory", lambda: 2**30)
    result = command(f"evaluate run --episodes 1000000000 {shift}")
    # 12 bytes of each: return, cost and length
    assert result.error == (
        "episodes: 1,000,000,000 need 11.2 GiB of memory at least, and there are 1.0 GiB; "
        "at most about 89,000,000 fit"
    )


def test_an_evaluation_in_pieces_says_how_far_it_is(command, tradeoff, monkeypatch):
    monkeypatch.setattr(pieces, "PAUSE", 0.0)
    assert command("evaluate run --episodes 2 --json").err == ""
    monkeypatch.setattr(evaluate, "LARGEST_BATCH", 2)
    lines = command("evaluate run --episodes 7 --json").err.splitlines()
    assert len(lines) == 3
    for played, line in zip((2, 4, 6), lines, strict=True):
        assert re.fullmatch(rf"smpo-jax: {played} of 7 episodes, \d+:\d\d left", line)


def test_on_a_terminal_that_is_one_line_which_goes(tradeoff, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pieces.shown(2000) as show:
        for played in (500, 1000):
            show(played)
    text = Text.from_ansi(screen.getvalue()).plain
    assert "0 of 2,000 episodes" in text and "left" in text
    assert screen.getvalue().endswith("\x1b[2K")  # the line is empty again


def test_load_policy_needs_only_the_folder(tradeoff):
    moved = tradeoff.rename("elsewhere")
    policy = load_policy(moved)
    act = policy.acting(deterministic=True)
    action = act(jnp.ones((2, 1)), jax.random.key(0))
    np.testing.assert_array_equal(action, [[0.5], [0.5]])


def test_policy_trained_on_several_devices_acts_on_one(command, monkeypatch):
    train = f"{TRAIN} --env ProbeTradeoff --start 0.5 --devices 2 --out shared"
    assert command(train).status == 0
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    result = json.loads(command("evaluate shared --episodes 2 --deterministic --json").out)
    assert result["return"]["value"] == 5.0


def test_evaluation_changes_nothing_in_the_folder(command, tradeoff):
    before = {path: path.stat().st_mtime_ns for path in tradeoff.rglob("*")}
    command("evaluate run --episodes 2")
    assert {path: path.stat().st_mtime_ns for path in tradeoff.rglob("*")} == before


def test_task_without_a_real_counterpart_is_refused(command, tradeoff):
    result = command("evaluate run --on safety-gymnasium")
    assert result.status == 2 and "it has no task 'ProbeTradeoff'" in result.error


def test_missing_real_package_is_told_with_the_command_that_installs_it(command, monkeypatch):
    command(f"{TRAIN} --env PointGoal0 --out run")
    monkeypatch.setattr("importlib.metadata.version", _not_installed)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    result = command("evaluate run --on safety-gymnasium")
    assert result.status == 2 and "pip install" in result.error


def _not_installed(name):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@pytest.mark.host
def test_policy_runs_in_the_real_environment(command):
    pytest.importorskip("mujoco")
    command(f"{TRAIN} --env PointGoal0 --out run")
    result = command("evaluate run --on safety-gymnasium --episodes 2 --json")
    assert result.status == 0, result.err
    seen = json.loads(result.out)
    assert seen["env"] == "SafetyPointGoal0-v0" and seen["on"] == "safety-gymnasium"
    # without hazards nothing costs, and a policy that stays where it is earns about nothing
    assert seen["cost"]["value"] == 0.0 and abs(seen["return"]["value"]) < 5
