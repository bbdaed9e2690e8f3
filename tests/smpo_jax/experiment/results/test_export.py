"""Exported policies, in the hands of programs that know nothing of the package."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.settings.config import Config

ROOT = Path(__file__).parents[4]
OLD_RUNS = ROOT / "tests" / "data" / "old_runs"
OBS = np.random.default_rng(0).normal(scale=2.0, size=(50, 1))


@pytest.fixture
def policy(tmp_path):
    shutil.copytree(OLD_RUNS / "trpo_smpo", tmp_path / "run")
    return sx.load_policy(tmp_path / "run")


def untrained(*, networks=None, **settings):
    """A policy as it starts, with moments of observations as they never are at the start."""
    spec = sx.Spec(
        3, 2, num_envs=4, rollout_length=8, episode_length=8, total_iterations=1, cost_limit=25.0
    )
    extra = {} if networks is None else {"networks": networks}
    algorithm = sx.make("ppo", spec, **settings, **extra)
    learner = algorithm.init(jax.random.key(0))
    seen = learner.obs_moments._replace(
        mean=jnp.array([1.0, -2.0, 0.0]), variance=jnp.array([4.0, 0.1, 0.0])
    )
    # Biases start at 0 and the last layer near it, at which any policy is like any other.
    draw = np.random.default_rng(1).normal
    params = jax.tree.map(lambda x: x + 0.3 * draw(size=x.shape).astype("f"), learner.params)
    own = dataclasses.replace(Config(algo="ppo").hyperparameters, **settings)
    config = Config(algo="ppo", hyperparameters=own)
    return TrainedPolicy(
        config, spec, algorithm, learner.replace(obs_moments=seen, params=params), 0
    )


def recipe():
    texts = re.findall(
        r"```python\n(.*?)```", (ROOT / "smpo_jax/experiment/README.md").read_text(), re.DOTALL
    )
    (text,) = (x for x in texts if "np.load" in x)
    return text


def act_by_recipe(obs):
    names = {}
    exec(recipe(), names)
    return names["act"](obs)


def test_recipe_of_the_readme_acts_as_predict_does(policy):
    assert policy.export("policy.npz") == Path("policy.npz")
    np.testing.assert_allclose(act_by_recipe(OBS), policy.predict(OBS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(act_by_recipe(OBS[0]), policy.predict(OBS[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("hidden", [(8,), (8, 5)])
def test_recipe_holds_for_every_network_that_settings_make(activation, normalise, hidden):
    policy = untrained(activation=activation, normalise_observations=normalise, hidden=hidden)
    policy.export("policy.npz")
    obs = np.random.default_rng(0).normal(scale=3.0, size=(50, 3))
    found = act_by_recipe(obs)
    assert np.std(found) > 0.05 and np.abs(found).max() <= 1
    np.testing.assert_allclose(found, policy.predict(obs), rtol=0, atol=1e-6)


def test_recipe_needs_neither_jax_nor_the_package(policy):
    policy.export("policy.npz")
    np.save("obs.npy", OBS)
    program = f"""{recipe()}
import sys
np.save("action.npy", act(np.load("obs.npy")))
assert not {{name.partition(".")[0] for name in sys.modules}} & {{"jax", "smpo_jax", "smpo_envs"}}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_allclose(np.load("action.npy"), policy.predict(OBS), rtol=0, atol=1e-6)


def test_arrays_say_what_they_are(policy):
    policy.export("policy.npz")
    about = json.loads(str(np.load("policy.npz")["about"]))
    assert about["env"] == "ProbeFollow" and about["algo"] == "smpo"


def test_program_acts_as_predict_does_and_takes_any_number(policy):
    policy.export("policy.bin")
    act = jax.export.deserialize(bytearray(Path("policy.bin").read_bytes())).call
    for obs in (OBS, OBS[:1]):
        found = act(obs.astype(np.float32))
        np.testing.assert_allclose(found, policy.predict(obs), rtol=0, atol=1e-6)


def own_networks():
    def init(key):
        return {"w": jax.random.normal(key, (3, 2)), "log_std": jnp.zeros(2)}

    def apply(params, obs):
        return sx.SquashedGaussian(obs @ params["w"], params["log_std"] + 0.0 * obs[..., :2])

    return sx.Networks(policy=sx.Network(init, apply))


def test_a_network_of_ones_own_goes_into_a_program_only():
    policy = untrained(networks=own_networks())
    with pytest.raises(UserError, match=r"no multilayer perceptron.*: \.npz cannot"):
        policy.export("policy.npz")
    assert not Path("policy.npz").exists()
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    act = jax.export.deserialize(bytearray(policy.export("policy.bin").read_bytes())).call
    np.testing.assert_allclose(act(obs), policy.predict(obs), rtol=0, atol=1e-6)


def test_a_network_that_only_looks_like_ours_is_found_out():
    """The parameters of our own, put to another use."""
    ours = untrained()
    learner = ours.learner

    def apply(params, obs):
        layers = params["mean"]["params"]
        mean = jnp.sin(obs @ layers["Dense_0"]["kernel"])[..., :2]
        return sx.DiagonalGaussian(mean, params["log_std"] + 0.0 * mean)

    networks = sx.Networks(policy=sx.Network(lambda key: learner.params["policy"], apply))
    policy = untrained(networks=networks)
    with pytest.raises(UserError, match="no multilayer perceptron"):
        policy.export("policy.npz")


def test_without_flatbuffers_a_program_says_what_to_install(policy, monkeypatch):
    def refuse(self):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(jax.export.Exported, "serialize", refuse)
    with pytest.raises(UserError, match=r"the extra `export` \(pip install flatbuffers\)"):
        policy.export("policy.bin")


def test_command_writes_it(command, policy):
    assert command("export run --out deep/er/mine.npz").out == "deep/er/mine.npz\n"
    assert np.load("deep/er/mine.npz")["weight_0"].shape == (1, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("export run --out x.onnx", "--out x.onnx: its ending must be .npz (arrays) or .bin"),
        ("export missing", "missing is not the folder of a run"),
    ],
)
def test_mistakes(command, policy, arguments, expected):
    result = command(arguments)
    assert result.status == 2 and expected in result.error
