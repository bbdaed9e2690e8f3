"""The policies that come with the package."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import pretrained
from smpo_jax.experiment.settings import config_file, presets

NAMES = sorted(presets.policies())
NAME = "pretrained:PointGoal1/smpo"
FOLDER = Path(__file__).parents[4] / "configs" / "pretrained"


@pytest.fixture(scope="module")
def policy():
    return sx.load_policy(NAME)


def test_every_file_is_of_a_policy():
    files = {path.relative_to(FOLDER) for path in FOLDER.glob("*/*")}
    assert files == {Path(name + end) for name in NAMES for end in (".json", ".npz")}
    assert {"PointGoal1/smpo", "PointGoal1/trpo_lag"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_what_it_is_of(name):
    config, iteration, _, about = pretrained.read(presets.policies()[name])
    assert name == f"{config.env}/{config.algo}"
    assert about["version"] and about["commit"]
    for actions in ("sampled", "deterministic"):
        score = about["scores"][actions]
        assert (score["episodes"], score["iteration"]) == (1000, iteration)
        assert (score["env"], score["train_seed"]) == (config.env, config.seed)
        assert score["deterministic"] is (actions == "deterministic")
    assert (FOLDER / f"{name}.npz").stat().st_size < 50_000


def test_it_scores_what_its_record_says(command, policy):
    """64 episodes: their mean is within four of its standard deviations of the record's."""
    found = json.loads(command("evaluate", NAME, "--episodes", 64, "--seed", 5, "--json").out)
    recorded = policy.about["scores"]["sampled"]
    assert (found["algo"], found["steps"]) == ("smpo", recorded["steps"])
    for name in ("return", "cost"):
        error = 4 * recorded[name]["std"] / np.sqrt(64)
        assert abs(found[name]["value"] - recorded[name]["value"]) < error


def test_it_acts_when_pickled_and_exported(policy, tmp_path):
    obs = np.linspace(-1, 1, 3 * policy.spec.observation_size).reshape(3, -1)
    again = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(again.predict(obs), policy.predict(obs))
    assert again.about == policy.about
    exported = sx.load_exported(policy.export(tmp_path / "policy.npz"))
    np.testing.assert_allclose(exported.predict(obs), policy.predict(obs), atol=1e-4)


def test_files_are_made_by_its_name(command, tmp_path):
    assert command("export", NAME, "--out", "policy.npz").out == "policy.npz\n"
    assert command("render", NAME, "--episodes", 1, "--out", "paths.png").out == "paths.png\n"
    assert {path.name for path in tmp_path.iterdir()} >= {"policy.npz", "paths.png"}


def test_list_names_them_with_what_they_score(command):
    lines = command("list").out.splitlines()
    for name in NAMES:
        (line,) = (line for line in lines if line.startswith(f"  pretrained:{name} "))
        assert "return" in line and "at a limit of 25" in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pretrained:PointGoal1/smop",
            r"no pretrained policy PointGoal1/smop; did you mean PointGoal1/smpo\? \(all: .*"
            "PointGoal1/trpo_lag",
        ),
        ("pretrained:Cat", "no pretrained policy Cat; allowed: .*PointGoal1/smpo, "),
    ],
)
def test_a_wrong_name_is_told_with_those_there_are(name, message, command):
    with pytest.raises(UserError, match=message):
        sx.load_policy(name)
    failed = command("render", name)
    assert failed.status == 2 and "no pretrained policy" in failed.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", NAME, "--checkpoint", "best"), "has only one; leave it out"),
        (("render", NAME, "--log"), "has no run to log to"),
        (("robustness", NAME), "has no critics to calibrate"),
    ],
)
def test_what_only_a_run_has_is_refused(words, message, command):
    failed = command(*words)
    assert failed.status == 2 and message in failed.error


def test_files_come_back_as_they_were_written_and_damage_is_told(policy, tmp_path):
    record = tmp_path / "PointGoal1" / "smpo.json"
    pretrained.write(record, policy.config, policy.learner, policy.about)
    theirs = presets.policies()["PointGoal1/smpo"]
    written, shipped = (json.loads(x.read_text()) | {"sha256": None} for x in (record, theirs))
    assert written == shipped  # but for the digest: another zlib compresses to other bytes
    found = pretrained.read(record)
    assert config_file.flat(found.config) == config_file.flat(policy.config)
    assert found.about == policy.about
    arrays = record.with_suffix(".npz")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"smpo\.npz is damaged: install the package again"):
        pretrained.read(record)
    arrays.unlink()
    with pytest.raises(UserError, match=r"cannot read .*npz"):
        pretrained.read(record)
    record.write_text('{"format": 2}')
    with pytest.raises(UserError, match="not of format 1"):
        pretrained.read(record)
