"""Runs with networks of the user's own, here convolutions over pictures: kept, found, refused."""

import dataclasses
import json
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.experiment import problem
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file

CODE = """
import jax.numpy as jnp
from flax import linen as nn

import smpo_envs
import smpo_jax as sx
from smpo_envs.from_above import Camera, from_above


def seen():
    return from_above(smpo_envs.make("PointGoal0", episode_length=20), Camera(pixels=8))


class Sight(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, picture, *others):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(picture))
        x = jnp.concatenate([x.reshape(*x.shape[:-3], -1), *others], axis=-1)
        return nn.Dense(self.outputs)(x)


def network(spec, outputs, head, *others):
    sight, picture = Sight(outputs), jnp.zeros((1, *spec.observation_shape))
    return sx.Network(
        lambda key: sight.init(key, picture, *others),
        lambda params, *inputs: head(sight.apply(params, *inputs)),
    )


def make(spec):
    def head(out):
        mean, log_std = jnp.split(out, 2, axis=-1)
        return sx.DiagonalGaussian(mean, jnp.clip(log_std, -5.0, 1.0))

    def value(out):
        return out[..., 0]

    def cost(out):
        return nn.softplus(out[..., 0])

    action = jnp.zeros((1, spec.action_size))
    return sx.Networks(
        policy=network(spec, 2 * spec.action_size, head),
        value=network(spec, 1, value),
        action_value=network(spec, 1, cost, action),
    )


def nothing(spec):
    return None


def broken(spec):
    return {}["x"]


def two(spec, width):
    return None
"""
RUN = {
    "env": "own_sight:seen",
    "networks": "own_sight:make",
    "algo": "ppo",
    "hyperparameters": {"minibatches": 2, "epochs": 1},
    "num_envs": 4,
    "rollout_length": 8,
    "steps": 64,
}
WORDS = "--env own_sight:seen --algo ppo --num-envs 4 --rollout-length 8 --steps 64 --out run"
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """`own_sight.py` in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("own_sight.py").write_text(CODE)
    yield
    sys.modules.pop("own_sight", None)


def test_a_run_from_pictures_is_kept_whole(command, capsys):
    folder = sx.run(**RUN, out="run")
    place = Path("own_sight.py").resolve()
    assert f"own_sight:make is code of {place}" in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["networks"] == "own_sight:make"
    policy = sx.load_policy(folder)
    shapes = {leaf.shape for leaf in jax.tree.leaves(policy.learner.params["policy"])}
    assert (3, 3, policy.spec.observation_shape[-1], 4) in shapes  # the convolution's windows
    picture = np.random.default_rng(0).random(policy.spec.observation_size)
    again = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(policy.predict(picture), again.predict(picture))
    # It goes on with them, and what it has learnt is played.
    assert command("train --resume run --steps 96").status == 0
    after = sx.load_policy(folder)
    assert after.iteration == 3
    assert np.abs(after.predict(picture) - policy.predict(picture)).max() > 0
    result = command("evaluate run --episodes 2 --json")
    assert json.loads(result.out)["episodes"] == 2
    # A file for NumPy holds a perceptron and nothing else.
    assert "npz cannot hold it" in command("export run --out policy.npz").error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_sight", "'own_sight' is no name of networks: it is MODULE:FUNCTION"),
        ("own_sight:mak", "has no 'mak'; did you mean own_sight:make?"),
        ("own_sigth:make", "there is no module 'own_sigth'"),
        ("own_sight:nothing", "own_sight:nothing returned NoneType, which is no smpo_jax.Networks"),
        ("own_sight:broken", "own_sight:broken raised KeyError: 'x' (own_sight.py, line"),
        ("own_sight:two", "own_sight:two: missing a required argument: 'width'"),
        ("os:system", "is part of Python"),
    ],
)
def test_what_is_no_networks_is_one_line_and_leaves_nothing(command, name, expected):
    result = command(f"train {WORDS} --networks {name}")
    assert result.status == 2
    assert expected in result.err.splitlines()[-1] and "networks: " in result.err
    assert not Path("run").exists()


def test_pictures_without_networks_are_refused(command):
    result = command(f"train {WORDS}")
    assert result.status == 2 and "networks: MODULE:FUNCTION" in result.err.splitlines()[-1]


def test_every_network_of_smpo_sees_pictures():
    config = config_file.from_mapping({**RUN, "algo": "smpo", "hyperparameters": {}}, where="test")
    config = dataclasses.replace(config, rollout_length=16)
    env, spec, algorithm, _ = problem.build(config)
    state = jax.eval_shape(lambda key: sx.init(algorithm, env, key), jax.random.key(0))
    jax.eval_shape(sx.iteration(algorithm, env, spec), state)
    for name, network in state.learner.params.items():
        assert any(leaf.shape[:2] == (3, 3) for leaf in jax.tree.leaves(network)), name


def test_no_networks_are_taken_from_the_folder_of_a_run():
    folder = sx.run(**RUN, out="runs/foreign")
    Path("own_sight.py").rename("runs/foreign/evil.py")
    config = folder / "config.json"
    plain = json.loads(config.read_text())
    own = {"env": "ProbeFollow", "networks": "runs.foreign.evil:make"}
    config.write_text(json.dumps(plain | own))
    with pytest.raises(UserError, match="from which no code is taken"):
        sx.load_policy(folder)
    assert "runs.foreign.evil" not in sys.modules
