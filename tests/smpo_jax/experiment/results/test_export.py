"""Exported policies, in the hands of programs that know nothing of the package."""

import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
import smpo_jax as sx
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import exported
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.settings.config import Config

ROOT = Path(__file__).parents[4]
OLD_RUNS = ROOT / "tests" / "data" / "old_runs"
OBS = np.random.default_rng(0).normal(scale=2.0, size=(50, 1))
FORMATS = ["npz", "onnx", "stablehlo"]
READER = ROOT / "smpo_jax" / "experiment" / "results" / "exported.py"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A policy that has learnt a little, and 10 000 observations of its own rollouts."""
    folder = tmp_path_factory.mktemp("learnt") / "run"
    jax.config.update("jax_disable_most_optimizations", True)  # most of the time is XLA's
    sx.run(
        env="PointGoal1",
        algo="ppo",
        steps=48_000,
        num_envs=50,
        rollout_length=320,
        out=folder,
        quiet=True,
    )
    policy = sx.load_policy(folder)
    env = smpo_envs.VectorEnv(smpo_envs.make("PointGoal1"), 50)
    act = policy.acting(deterministic=False)

    @jax.jit
    def roll(key):
        def step(state, key):
            return env.step(state, jnp.clip(act(state.obs, key), -1, 1))[0], state.obs

        return jax.lax.scan(step, env.reset(key), jax.random.split(key, 200))[1]

    obs = np.asarray(roll(jax.random.key(0))).reshape(10_000, -1)
    jax.config.update("jax_disable_most_optimizations", False)
    return policy, obs


@pytest.mark.parametrize("to", FORMATS)
def test_acts_as_the_policy_does_on_real_rollouts(learnt, to):
    policy, obs = learnt
    right = policy.predict(obs)
    read = sx.load_exported(policy.export(f"policy.{to}"))
    np.testing.assert_array_equal(policy.predict(obs), right)  # exporting leaves no trace in JAX
    assert right.std(axis=0).min() > 0.05
    np.testing.assert_allclose(read.predict(obs), right, rtol=0, atol=1e-6)
    for few in (obs[:1], obs[:7], obs[0], obs[:0]):
        found = read.predict(few)
        assert found.dtype == np.float32 and found.shape == (*few.shape[:-1], 2)
        if len(few):
            np.testing.assert_allclose(found, policy.predict(few), rtol=0, atol=1e-6)


@pytest.mark.parametrize("to", FORMATS)
def test_says_what_it_is(learnt, to):
    policy, _ = learnt
    about = sx.load_exported(policy.export("policy.any", to=to)).about
    assert about["env"] == "PointGoal1" and about["algo"] == "ppo" and about["seed"] == 0
    assert about["iteration"] == policy.iteration and about["steps"] == 48_000
    assert about["cost_limit"] == 25.0 and about["config"]["hyperparameters"]["hidden"] == [64, 64]
    assert about["versions"]["smpo-jax"] == sx.__version__
    assert about["versions"]["jax"] == jax.__version__
    parts = {part["name"]: (part["size"], part["unit"]) for part in about["observation"]["parts"]}
    assert parts["accelerometer"] == (3, "m/s²") and parts["hazards_lidar"] == (16, "1")
    assert about["observation"]["size"] == sum(size for size, _ in parts.values()) == 60
    assert about["action"]["size"] == 2
    assert (about["action"]["low"], about["action"]["high"]) == (-1, 1)


def test_says_the_limits_of_several_costs(policy):
    policy.config = dataclasses.replace(
        policy.config, cost_limit=(25.0, 10.0), cost_names=("hazards", "vases")
    )
    about = sx.load_exported(policy.export("policy.npz")).about
    assert about["cost_limit"] == [25, 10] and about["cost_names"] == ["hazards", "vases"]


def test_onnx_is_one_that_any_runtime_takes(learnt):
    """Without our reader: named, of any batch size, and of an opset that is years old."""
    import onnx
    import onnxruntime

    policy, obs = learnt
    model = onnx.load(policy.export("policy.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [17]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1], made.name, made.shape[1]) == ("obs", 60, "action", 2)
    assert isinstance(given.shape[0], str) and given.shape[0] == made.shape[0]
    (action,) = session.run(None, {"obs": obs[:3]})
    np.testing.assert_allclose(np.asarray(action), policy.predict(obs[:3]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("to", ["npz", "onnx"])
def test_acts_without_jax_from_a_copy_of_the_reader(learnt, to):
    policy, obs = learnt
    policy.export(f"policy.{to}")
    shutil.copy(READER, "reader.py")
    np.save("obs.npy", obs)
    program = f"""
import sys
import numpy as np
from reader import load_exported
np.save("action.npy", load_exported("policy.{to}").predict(np.load("obs.npy")))
assert not {{name.partition(".")[0] for name in sys.modules}} & {{"jax", "smpo_jax", "smpo_envs"}}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_allclose(np.load("action.npy"), policy.predict(obs), rtol=0, atol=1e-6)


def test_reading_with_the_package_imports_no_jax(policy):
    policy.export("policy.npz")
    program = """
import sys
import smpo_jax
smpo_jax.load_exported("policy.npz").predict([0.5])
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("to", FORMATS)
def test_observations_that_are_no_such(policy, to):
    read = sx.load_exported(policy.export(f"policy.{to}"))
    for wrong in ([1.0, 2.0], [[1.0, 2.0]], 1.0, [[[1.0]]]):
        with pytest.raises(ValueError, match=r"obs has shape .*, expected \[1\] or \[N, 1\]"):
            read.predict(wrong)
    for wrong in (np.nan, np.inf, -np.inf, 1e300):
        with pytest.raises(ValueError, match="obs is not finite"):
            read.predict([wrong])
        with pytest.raises(ValueError, match="obs 1 is not finite"):
            read.predict([[0.5], [wrong]])


@pytest.mark.parametrize("to", FORMATS)
def test_safe_action_stands_in_where_an_observation_is_not_finite(policy, to):
    read = sx.load_exported(policy.export(f"policy.{to}"), safe_action=[-0.25])
    assert read.predict([np.nan]).tolist() == [-0.25]
    found = read.predict([[0.5], [np.inf], [-0.5]])
    assert found[1] == -0.25
    np.testing.assert_allclose(found[::2], policy.predict([[0.5], [-0.5]]), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="obs has shape"):  # that is never a matter of a sensor
        read.predict([0.5, 0.5])


@pytest.mark.parametrize("action", [[0.0, 0.0], [2.0], [np.nan], 0.0])
def test_safe_actions_that_are_none(policy, action):
    policy.export("policy.npz")
    with pytest.raises(ValueError, match=r"safe_action=.* must be 1 numbers of -1 to 1"):
        sx.load_exported("policy.npz", safe_action=action)


def test_an_overflow_in_the_network_is_no_action():
    """Without a normaliser, observations that float32 holds may be too large for its sums."""
    policy = untrained(normalise_observations=False, hidden=(8,), activation="relu")
    read = sx.load_exported(policy.export("policy.npz"), safe_action=[0.0, 0.5])
    found = read.predict([[3e38, 3e38, -3e38]])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("to", FORMATS)
def test_damaged_files_are_told(policy, to):
    whole = policy.export(f"policy.{to}").read_bytes()
    right = sx.load_exported(f"policy.{to}").predict(OBS)
    random = np.random.default_rng(0)
    told = 0
    for at in random.integers(len(whole), size=60):
        broken = bytearray(whole)
        broken[at] ^= 1 << random.integers(8)
        try:
            read = exported.parse(bytes(broken), "policy")
        except ValueError as error:
            assert "policy is damaged, or no policy that smpo-jax exported" in str(error)
            assert "\n" not in str(error)
            told += 1
        else:  # what is of no consequence, such as the hour in an archive
            np.testing.assert_array_equal(read.predict(OBS), right)
    assert told > 20
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="policy is damaged"):
            exported.parse(whole[:length], "policy")


def foreign():
    array, archive, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.savez(arrays, weights=np.zeros(3))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("program", "x")
        file.writestr("about.json", "{}")
    return [b"", b"hello", array.getvalue(), arrays.getvalue(), archive.getvalue()]


@pytest.mark.parametrize("content", foreign(), ids=["empty", "text", "npy", "npz", "zip"])
def test_foreign_files_are_told(content):
    Path("other.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"other.onnx is damaged, or no policy that smpo-jax exp"):
        sx.load_exported("other.onnx")


def test_a_file_of_another_version_is_told(policy, monkeypatch):
    monkeypatch.setattr(exported, "FORMAT", "smpo-jax policy, version 2")
    content = exported_bytes(policy, "npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its format is 'smpo-jax policy, version 2'"):
        exported.parse(content, "policy.npz")


def exported_bytes(policy, to):
    return policy.export(f"policy.{to}").read_bytes()


@pytest.mark.parametrize(
    ("algo", "to"),
    [
        ("ppo_saute", "onnx"),
        ("ppo_saute", "stablehlo"),
        pytest.param("ppo_simmer", "stablehlo", marks=pytest.mark.slow),
        pytest.param("ppo_early_terminated", "stablehlo", marks=pytest.mark.slow),
    ],
)
def test_a_policy_that_sees_its_account_of_cost(tmp_path, algo, to):
    """Whoever keeps the account as `about` says has the observations of training."""
    sx.run(
        env="ProbeFollow",
        algo=algo,
        steps=64,
        num_envs=2,
        rollout_length=16,
        quiet=True,
        out=tmp_path / "run",
        hyperparameters={"hidden": [4], "minibatches": 1},
    )
    policy = sx.load_policy(tmp_path / "run")
    read = sx.load_exported(policy.export(f"policy.{to}"))
    account = read.about["observation"]["account"]
    env = sx.augment(smpo_envs.make("ProbeFollow"), algo)
    state = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    z = account and np.array(account["start"])
    for action in (0.9, -0.8, 0.7, 0.1):
        own = np.asarray(state.obs)[:1]
        obs = own if account is None else np.concatenate([own, z])
        np.testing.assert_allclose(obs, state.obs, rtol=1e-6)
        np.testing.assert_allclose(read.predict(obs), policy.predict(state.obs), rtol=0, atol=1e-5)
        state = step(state, jnp.array([action]))
        cost = float(state.info["cost"])
        z = account and np.array(account["matrix"]) @ z + np.array(account["cost"]) * cost


def test_an_account_of_cost_is_refused_as_npz(tmp_path):
    sx.run(
        env="ProbeFollow",
        algo="ppo_saute",
        steps=64,
        num_envs=2,
        rollout_length=16,
        quiet=True,
        out=tmp_path / "run",
        hyperparameters={"hidden": [4], "minibatches": 1},
    )
    with pytest.raises(UserError, match=r"ppo_saute is more than a normalisation and a multi"):
        sx.load_policy(tmp_path / "run").export("policy.npz")
    assert not Path("policy.npz").exists()


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


@pytest.mark.parametrize("to", FORMATS)
def test_acts_as_predict_does_and_takes_any_number(policy, to):
    assert policy.export(f"policy.{to}") == Path(f"policy.{to}")
    read = sx.load_exported(f"policy.{to}")
    for obs in (OBS, OBS[:1], OBS[0], OBS.tolist()):
        np.testing.assert_allclose(read.predict(obs), policy.predict(obs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("hidden", "to"), [((8,), "npz"), ((8, 5), "npz"), ((8, 5), "onnx")])
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("normalise", [True, False])
def test_holds_every_network_that_settings_make(activation, normalise, hidden, to):
    policy = untrained(activation=activation, normalise_observations=normalise, hidden=hidden)
    read = sx.load_exported(policy.export(f"policy.{to}"))
    obs = np.random.default_rng(0).normal(scale=3.0, size=(50, 3))
    found = read.predict(obs)
    assert np.std(found) > 0.05 and np.abs(found).max() <= 1
    np.testing.assert_allclose(found, policy.predict(obs), rtol=0, atol=1e-6)


def own_parameters(key):
    return {"w": jax.random.normal(key, (3, 2)), "log_std": jnp.zeros(2)}


def own_networks():
    def apply(params, obs):
        return sx.SquashedGaussian(obs @ params["w"], params["log_std"] + 0.0 * obs[..., :2])

    return sx.Networks(policy=sx.Network(own_parameters, apply))


@pytest.mark.parametrize("to", ["onnx", "stablehlo"])
def test_a_network_of_ones_own_goes_into_programs_only(to):
    policy = untrained(networks=own_networks())
    with pytest.raises(UserError, match=r"a multilayer perceptron.*: npz cannot hold it; onnx and"):
        policy.export("policy.npz")
    assert not Path("policy.npz").exists()
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    read = sx.load_exported(policy.export(f"policy.{to}"))
    np.testing.assert_allclose(read.predict(obs), policy.predict(obs), rtol=0, atol=1e-6)


def test_what_onnx_does_not_know_is_refused_in_one_line():
    def apply(params, obs):
        mean = obs @ params["w"] + jax.random.normal(jax.random.key(1), (obs.shape[0], 2))
        return sx.DiagonalGaussian(mean, params["log_std"] + 0.0 * mean)

    policy = untrained(networks=sx.Networks(policy=sx.Network(own_parameters, apply)))
    with pytest.raises(UserError, match=r"computes what onnx cannot hold; stablehlo can"):
        policy.export("policy.onnx")
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    read = sx.load_exported(policy.export("policy.stablehlo"))
    np.testing.assert_allclose(read.predict(obs), policy.predict(obs), rtol=0, atol=1e-6)


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
    with pytest.raises(UserError, match="more than a normalisation and a multilayer perceptron"):
        policy.export("policy.npz")


def test_without_flatbuffers_a_program_says_what_to_install(policy, monkeypatch):
    def refuse(self):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(jax.export.Exported, "serialize", refuse)
    with pytest.raises(UserError, match=r"the extra `export` \(pip install flatbuffers\)"):
        policy.export("policy.stablehlo")


def test_without_jax2onnx_it_says_what_to_install(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"the extra `onnx` \(pip install jax2onnx onnxruntime\)"):
        policy.export("policy.onnx")


def test_without_onnxruntime_reading_says_so(policy, monkeypatch):
    policy.export("policy.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"policy.onnx takes a package that is not there"):
        sx.load_exported("policy.onnx")


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ("--out deep/er/mine.npz", "deep/er/mine.npz"),
        ("--out mine.ONNX", "mine.ONNX"),
        ("--to stablehlo --out mine.bin", "mine.bin"),
        ("--to onnx", "policy.onnx"),
    ],
)
def test_command_writes_it(command, policy, arguments, file):
    assert command(f"export run {arguments}").out == f"{file}\n"
    np.testing.assert_allclose(
        sx.load_exported(file).predict(OBS), policy.predict(OBS), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "export run --out x.bin",
            "--out x.bin: its ending must be .npz, .onnx",
        ),
        (
            "export run --to npz --out x.onnx",
            "x.onnx has the ending of another format",
        ),
        ("export run --to tflite", "--to"),
        ("export run --to npz --out run", "--out run is a folder: name a file"),
        ("export missing", "missing is not the folder of a run"),
    ],
)
def test_mistakes(command, policy, arguments, expected):
    result = command(arguments)
    assert result.status == 2 and expected in result.error


def driving():
    """The program of the README, with the copy of the reader that it imports."""
    texts = re.findall(
        r"```python\n(.*?)```", (ROOT / "smpo_jax/experiment/README.md").read_text(), re.DOTALL
    )
    (text,) = (x for x in texts if "from exported import" in x)
    shutil.copy(READER, "exported.py")
    Path("drive.py").write_text(text)
    return text


@pytest.mark.host
def test_readme_drives_the_real_package_without_jax(learnt):
    policy, _ = learnt
    policy.export("policy.onnx")
    assert len(driving().splitlines()) <= 36
    path = f"{ROOT}:{ROOT / 'envs'}"
    shown = subprocess.run(
        [sys.executable, "drive.py", "policy.onnx"],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^ppo: return -?[\d.]+, cost \d+ of 25$", shown.stdout, re.MULTILINE)


@pytest.mark.host
def test_readme_tells_a_policy_of_another_task():
    untrained().export("policy.onnx")
    driving()
    shown = subprocess.run(
        [sys.executable, "drive.py", "policy.onnx"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'envs'}"},
        capture_output=True,
        text=True,
    )
    assert "policy.onnx takes 3 numbers, SafetyPointGoal1-v0 gives (60,)" in shown.stderr
