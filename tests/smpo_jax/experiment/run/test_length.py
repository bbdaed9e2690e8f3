"""Runs that are made longer, and runs that start from another."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.run.chunk import compile_chunk, make_chunk
from smpo_jax.experiment.run.progress import ProgressLines
from smpo_jax.experiment.settings import config_file
from smpo_jax.training import loop

TINY = {
    "env": "ProbeTradeoff",
    "algo": "ppo_lag",
    "num_envs": 4,
    "rollout_length": 5,
    "hyperparameters": {"hidden": [4], "minibatches": 2, "epochs": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 6 iterations, and a folder that has nothing else."""
    return sx.run(**TINY, steps=120, out=tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture
def run(trained):
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.fixture
def toy_run():
    toy: Any = {name: value for name, value in TINY.items() if name != "hyperparameters"}
    return sx.run(**toy | {"algo": "toy", "steps": 120, "out": "toy"}).folder


def bytes_of(folder):
    return Path(folder, "metrics.csv").read_bytes()


def params(folder, checkpoint: Any = "newest"):
    return jax.tree.leaves(sx.load_policy(folder, checkpoint).learner.params)


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_longer_run_decays_as_if_it_had_always_been_that_long(run):
    first = bytes_of(run)
    assert sx.resume(run, steps=200).folder == run
    assert bytes_of(run).startswith(first)
    config = config_file.load(run)
    assert (config.steps, config.earlier_lengths) == (200, ((120, 120),))

    # 6 iterations of a run of 6, then 4 of a run of 10
    state: Any = None
    for total, count in ((120, 6), (200, 4)):
        problem = build(config_file.from_mapping({**TINY, "steps": total}, where="test"))
        state = state or loop.init(problem.algorithm, problem.env, jax.random.key(0))
        one = loop.iteration(problem.algorithm, problem.env, problem.spec)
        state, _ = compile_chunk(make_chunk(one, 128), state)(state, jnp.int32(count))
    assert_equal(params(run), jax.tree.leaves(state.learner.params))


def test_run_that_was_killed_while_made_longer_ends_with_the_same_bytes(
    command, toy_run, monkeypatch
):
    shutil.copytree(toy_run, "killed")
    assert command(f"train --resume {toy_run} --steps 1e3").status == 0

    def die(self, row, rate):
        if row["iteration"] > 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLines, "update", die)
        result = command("train --resume killed --steps 1000")
    assert result.status == 130
    assert "is of 50 iterations now, not 6" in result.out
    assert command("train --resume killed").status == 0
    assert bytes_of("killed") == bytes_of(toy_run)
    assert_equal(params("killed"), params(toy_run))
    assert_equal(params("killed", "best"), params(toy_run, "best"))


def test_run_may_be_made_longer_more_than_once(toy_run):
    more: Any = np.int64(200)
    sx.resume(toy_run, steps=more)
    sx.resume(toy_run, steps=400)
    config = config_file.load(toy_run)
    assert config.earlier_lengths == ((120, 120), (200, 200))
    assert sx.load_policy(toy_run).iteration == 20


def test_fewer_steps_than_were_made_are_refused_in_one_line_and_nothing_changes(command, run):
    before = (run / "config.json").read_bytes()
    result = command(f"train --resume {run} --steps 40")
    assert (
        result.status == 2
        and result.error == "steps: run has made 120 steps, which is more than 40"
    )
    result = command(f"train --resume {run} --steps 0")
    assert result.status == 2 and "at least 1" in result.error
    assert (run / "config.json").read_bytes() == before


def test_same_length_changes_nothing(command, run):
    before = (run / "config.json").read_bytes()
    assert "complete" in command(f"train --resume {run} --steps 120").out
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize("extra", ["--seed 1", "--algo ppo", "--overwrite", "--cost-limit 3"])
def test_resume_takes_no_option_but_steps(command, run, extra):
    result = command(f"train --resume {run} {extra}")
    assert result.status == 2 and "the only other option is --steps" in result.error


def test_config_of_a_longer_run_repeats_it_as_one_of_that_length(command, toy_run):
    sx.resume(toy_run, steps=200)
    assert command("train --config toy/config.json --out again").status == 0
    assert config_file.load(Path("again")).earlier_lengths == ()


def test_run_starts_from_another_with_parameters_moments_and_multiplier(run):
    sx.run(**TINY, steps=120, out="next", init_from="run", keep_checkpoints=9)
    source, start = sx.load_policy(run).learner, sx.load_policy("next", 0).learner
    for name in ("params", "obs_moments", "aux"):
        assert_equal(jax.tree.leaves(getattr(start, name)), jax.tree.leaves(getattr(source, name)))
    assert int(start.iteration) == 0 < int(source.iteration)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(start.opt_state))  # Adam anew


def test_start_is_saved_so_that_the_source_may_change(command, run):
    assert command(
        "train --env ProbeTradeoff --algo ppo_lag --num-envs 4 --rollout-length 5 --hidden 4 "
        "--minibatches 2 --epochs 1 --steps 120 --out next --init-from run --checkpoint best"
    ).status == 0  # fmt: skip
    saved = json.loads(Path("next/config.json").read_text())
    assert saved["init_from"] == str(run.resolve())
    assert saved["checkpoint"] == sx.load_policy(run, "best").iteration
    first = bytes_of("next")
    shutil.rmtree(run)
    shutil.rmtree("next/checkpoints/6")
    assert command("train --resume next").status == 0
    assert bytes_of("next") == first


def test_method_of_the_same_networks_starts_from_another_and_says_what_it_does_not_take(
    capsys, run
):
    sx.run(**{**TINY, "algo": "p3o"}, steps=20, out="next", init_from=run, keep_checkpoints=9)
    assert "besides networks starts anew" in capsys.readouterr().out
    assert_equal(params("next", 0), params(run))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env": "PointGoal0"}, r"ppo_lag on ProbeTradeoff has observation_size=\d+, and this run"),
        (
            {"hyperparameters": {"hidden": [5], "minibatches": 2}},
            r"float32\[4\] there and float32\[5\] here",
        ),
        ({"algo": "ppo"}, "cost_value"),
        ({"checkpoint": 4}, r"init_from: there is no checkpoint 4 .* there are"),
        ({"init_from": "nowhere"}, "init_from: nowhere is not the folder of a run"),
    ],
)
def test_start_that_does_not_fit_is_refused_and_leaves_no_folder(run, fields, message):
    given: Any = {**TINY, "init_from": run, "steps": 40, **fields}
    with pytest.raises(UserError, match=message):
        sx.run(**given, out="next")
    assert not Path("next").exists()


def test_run_cannot_start_from_itself(run):
    with pytest.raises(UserError, match="init_from: a run cannot start from itself"):
        sx.run(**TINY, out="run", overwrite=True, init_from="./run")
    assert sx.load_policy(run).iteration == 6


def test_evaluate_plays_the_checkpoint_that_is_named(command, run):
    for which in ("newest", "best", "6"):
        result = command(f"evaluate {run} --checkpoint {which} --episodes 2")
        assert result.status == 0 and "after" in result.out
    result = command(f"evaluate {run} --checkpoint 4 --episodes 2")
    assert result.status == 2
    assert result.error.startswith("there is no checkpoint 4 in run/checkpoints; there are 0, 5")
