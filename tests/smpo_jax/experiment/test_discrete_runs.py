"""Runs with discrete actions and with observations of several parts, through the command line."""

import csv
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import smpo_jax as sx
from smpo_envs.host import tasks
from smpo_jax.experiment.settings import config_file

CODE = '''
from collections import OrderedDict

import gymnasium
import numpy as np
from gymnasium import spaces


class Lights(gymnasium.Env):
    """Action -1 or 0; earns 1 for telling which of two lights is on, and 0 costs 1."""

    action_space = spaces.Discrete(2, start=-1)
    observation_space = spaces.Dict(
        OrderedDict(PARTS)
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.look(), {}

    def look(self):
        self.on = int(self.np_random.integers(2))
        return {"light": np.eye(2)[self.on], "noise": self.np_random.normal(size=3)}

    def step(self, action):
        assert self.action_space.contains(action), action
        reward = float(action + 1 == self.on)
        return self.look(), reward, False, False, {"zero": float(action == 0)}


gymnasium.register("Lights-v0", Lights, max_episode_steps=10)


def at_zero(obs, action, next_obs, info):
    return float(action == 0)
'''
LIGHT, NOISE = '("light", spaces.Box(0, 1, (2,)))', '("noise", spaces.Box(-9, 9, (3,)))'
SMALL = "--num-envs 8 --rollout-length 20 --hidden 8 --report-every 0 --minibatches 2"
RUN = "train --env gymnasium:lights:Lights-v0 --env-option cost=lights:at_zero --algo ppo_lag"
pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.xdist_group("discrete runs"),
]


def write(*parts):
    Path("lights.py").write_text(CODE.replace("PARTS", f"[{', '.join(parts)}]"))


@pytest.fixture
def lights(toy):
    """`lights.py` in the current folder."""
    del toy
    pytest.importorskip("gymnasium")
    write(NOISE, LIGHT)
    yield
    sys.modules.pop("lights", None)
    tasks._sizes.cache_clear()


def rows(folder):
    with open(Path(folder) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_native_task_of_choices_is_trained_resumed_and_predicts_indices(command):
    words = f"train --env ProbeChoice --algo ppo {SMALL} --steps 1600 --learning-rate 0.01"
    assert command(f"{words} --out run").status == 0
    assert command("train --resume run --steps 3200").status == 0
    assert len(rows("run")) == 20
    assert command("evaluate run --episodes 4").status == 0
    policy = sx.load_policy("run")
    assert policy.spec.discrete
    one, many = policy.predict([1.0]), policy.predict(np.ones((3, 1)))
    assert type(one) is int and one == 2  # it runs: see `smpo_envs.probes.choice`
    assert isinstance(many, np.ndarray)
    np.testing.assert_array_equal(many, [2, 2, 2])
    assert np.issubdtype(many.dtype, np.integer)
    drawn = policy.act(np.ones((500, 1)), 0)
    assert isinstance(drawn, np.ndarray) and set(drawn) <= {0, 1, 2} and np.mean(drawn == 2) > 0.4
    assert pickle.loads(pickle.dumps(policy)).predict([1.0]) == one
    for to in ("npz", "onnx", "stablehlo"):
        exported = sx.load_exported(policy.export(f"policy.{to}"), safe_action=1)
        assert exported.predict([1.0]) == one and type(exported.predict([1.0])) is int
        np.testing.assert_array_equal(exported.predict([[1.0], [np.nan], [1.0]]), [2, 1, 2])
    with pytest.raises(ValueError, match="safe_action=3 must be a whole number of 0 to 2"):
        sx.load_exported("policy.npz", safe_action=3)


def test_a_squashed_policy_is_exported_as_it_predicts(command):
    words = f"train --env ProbeFollow --algo ppo --policy squashed {SMALL} --steps 640"
    assert command(f"{words} --learning-rate 0.01 --out run").status == 0
    policy = sx.load_policy("run")
    assert policy.config.hyperparameters.policy == "squashed"
    obs = np.linspace(-1, 1, 9)[:, None]
    exported = sx.load_exported(policy.export("policy.npz"))
    np.testing.assert_allclose(exported.predict(obs), policy.predict(obs), atol=1e-5)
    result = command(f"train --env ProbeChoice --algo ppo --policy squashed {SMALL} --out other")
    assert result.status == 2 and "policy='squashed' is for continuous actions" in result.error
    assert not Path("other").exists()


@pytest.mark.host
def test_choices_of_gymnasium_keep_their_numbers_and_the_order_of_parts(command, lights):
    del lights
    assert command(f"{RUN} {SMALL} --steps 640 --out run").status == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["observations"] == ["noise[3]", "light[2]"]
    policy = sx.load_policy("run")
    assert policy.first_action == -1
    drawn = np.asarray(policy.act(np.random.default_rng(0).normal(size=(200, 5)), 0))
    assert set(drawn.tolist()) == {-1, 0}
    assert policy.predict(np.zeros(5)) in (-1, 0)
    assert pickle.loads(pickle.dumps(policy)).first_action == -1
    exported = sx.load_exported(policy.export("p.npz"))
    assert exported.predict(np.zeros(5)) == policy.predict(np.zeros(5))
    # Untrained, it chooses 0, which costs 1, in about half of the 10 steps.
    assert 2 < float(rows("run")[0]["episode/cost"]) < 8


@pytest.mark.host
def test_another_order_of_parts_is_refused_in_one_line(command, lights):
    del lights
    assert command(f"{RUN} {SMALL} --steps 320 --out run").status == 0
    write(LIGHT, NOISE)
    tasks._sizes.cache_clear()  # a new process would look again
    for words in ("train --resume run --steps 640", "evaluate run --episodes 2"):
        result = command(words)
        line = result.err.splitlines()[-1]
        assert result.status == 2, words
        assert "gives observations of light[2], noise[3], and the run was trained on " in line
    assert len(rows("run")) == 2
    write(NOISE, LIGHT)
    tasks._sizes.cache_clear()
    assert command("train --resume run --steps 640").status == 0
    assert len(rows("run")) == 4


PICTURES = """
import jax
import jax.numpy as jnp
from smpo_envs.safe_env import Environment, State


def make(parts=False):
    zero = jnp.zeros(())

    def observe(x):
        return {"x": x[None], "half": x / 2} if parts else jnp.full((4, 4, 1), x)

    def reset(key):
        x = jax.random.uniform(key)
        return State(x, observe(x), zero, zero, info={"cost": zero})

    def step(state, action):
        x = state.pipeline_state + 0.1 * action[0]
        return state.replace(
            pipeline_state=x, obs=observe(x), reward=x, info={"cost": jnp.abs(action[0])}
        )

    return Environment(reset, step, 0, 1, 10)
"""


def test_a_task_of_ones_own_with_parts_is_trained_and_with_pictures_refused(command):
    Path("seen.py").write_text(PICTURES)
    try:
        words = f"train --env seen:make --algo ppo {SMALL} --steps 320 --out run"
        assert command(f"{words} --env-option parts=true").status == 0
        assert config_file.load(Path("run")).observations == ("half[]", "x[1]")
        assert command("evaluate run --episodes 2").status == 0
        result = command(words.replace("--out run", "--out other"))
        assert result.status == 2
        line = result.err.splitlines()[-1]
        assert "observations are pictures, [4, 4, 1], and the built-in network for policy" in line
    finally:
        sys.modules.pop("seen", None)


CARTPOLE = "--env gymnasium:CartPole-v1 --env-option cost={cost}"


@pytest.mark.host
@pytest.mark.parametrize("cost", [pytest.param("none", marks=pytest.mark.slow), "away:far"])
def test_cartpole_is_trained_and_resumed_with_a_cost_or_without(command, cost):
    pytest.importorskip("gymnasium")
    Path("away.py").write_text(
        "def far(obs, action, next_obs, info):\n    return float(abs(next_obs[0]) > 0.02)\n"
    )
    words = CARTPOLE.format(cost=cost)
    assert command(f"train {words} --algo cpo {SMALL} --steps 480 --out run").status == 0
    assert command("train --resume run --steps 640").status == 0
    assert len(rows("run")) == 4
    played = json.loads(command("evaluate run --episodes 6 --json").out)
    assert played["return"]["value"] >= 6
    assert (played["cost"]["value"] > 0) == (cost != "none")
    sys.modules.pop("away", None)


@pytest.mark.slow
@pytest.mark.host
def test_ppo_solves_cartpole():
    """Optimum 500; chance about 20."""
    pytest.importorskip("gymnasium")
    words = "--algo ppo --steps 200_000 --num-envs 8 --rollout-length 256 --learning-rate 1e-3"
    words += " --minibatches 8 --epochs 10 --out run"
    program = "import sys; from smpo_jax.experiment.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", *CARTPOLE.format(cost="none").split()]
    subprocess.run([*command, *words.split()], check=True)
    policy = sx.load_policy("run")
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    totals = []
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy.predict(obs))
            total, over = total + float(reward), terminated or truncated
        totals.append(total)
    assert np.mean(totals) >= 400
