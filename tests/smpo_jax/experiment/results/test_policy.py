"""Trained policies in other hands, and those of runs made before algorithms were redesigned."""

import pickle
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_jax as sx
from smpo_jax.experiment.settings import config_file

OLD_RUNS = Path(__file__).parents[3] / "data" / "old_runs"
# Three iterations on ProbeFollow with networks of 4 units; actions at -0.5, 0 and 0.5 by the code
# that made them.
ACTIONS = {
    "smpo": ("smpo-ppo", [-0.006064307875931263, 0.00473589263856411, 0.014042609371244907]),
    "trpo_smpo": ("smpo", [-0.3149564564228058, 0.20298701524734497, 0.6612553596496582]),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_policy_of_an_old_run_acts_as_it_did(name, tmp_path):
    shutil.copytree(OLD_RUNS / name, tmp_path / name)
    policy = sx.load_policy(tmp_path / name)
    now, actions = ACTIONS[name]
    assert policy.config.algo == now and policy.iteration == 3
    act = policy.acting(deterministic=True)
    found = act(jnp.array([[-0.5], [0.0], [0.5]]), jax.random.key(0))
    np.testing.assert_allclose(found[:, 0], actions, rtol=1e-5)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "trpo_smpo"
    shutil.copytree(OLD_RUNS / "trpo_smpo", folder)
    return sx.load_policy(folder)


def test_predict_takes_lists_and_arrays_one_or_many(policy):
    _, actions = ACTIONS["trpo_smpo"]
    many = policy.predict([[-0.5], [0.0], [0.5]])
    np.testing.assert_allclose(many[:, 0], actions, rtol=1e-5)
    one = policy.predict(np.array([0.5]))
    assert isinstance(one, np.ndarray) and one.shape == (1,)
    np.testing.assert_allclose(one, actions[2:], rtol=1e-5)
    assert np.abs(policy.predict([[1e6]])).max() <= 1


def test_act_samples_with_a_key_or_a_seed_within_the_bounds(policy):
    obs = np.zeros((200, 1))
    a, b = policy.act(obs, 3), policy.act(obs, jax.random.key(3))
    np.testing.assert_array_equal(a, b)
    assert np.std(a) > 0.1 and np.abs(a).max() <= 1
    assert np.any(a != policy.act(obs, 4))
    np.testing.assert_array_equal(a, policy.act(obs, jax.random.PRNGKey(3)))


@pytest.mark.parametrize(
    ("key", "shown"),
    [(None, "None"), ("3", "'3'"), (1.5, "1.5"), (2**70, "1180591620717411303424")],
)
def test_what_is_no_key_is_refused_in_our_words(policy, key, shown):
    expected = rf"^key: expected jax.random.key\(...\) or an integer seed, got {shown}$"
    with pytest.raises(TypeError, match=expected):
        policy.act([0.0], key)


def test_keys_of_several_are_refused(policy):
    with pytest.raises(TypeError, match=r"^key: expected"):
        policy.act([0.0], jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    "obs, message",
    [
        (np.zeros((5, 3)), r"obs has shape \[5, 3\]; smpo on ProbeFollow takes \[1\] or \[N, 1\]"),
        (0.5, r"obs has shape \[\]"),
        (np.zeros((2, 2, 1)), r"obs has shape \[2, 2, 1\]"),
        ([[np.nan]], "obs is not finite"),
    ],
)
def test_a_wrong_observation_is_told_plainly(policy, obs, message):
    with pytest.raises(ValueError, match=message):
        policy.predict(obs)


def test_a_pickled_policy_acts_the_same(policy):
    again = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(again.predict([[0.3]]), policy.predict([[0.3]]))
    assert config_file.flat(again.config) == config_file.flat(policy.config)


def test_a_policy_is_compiled_once(policy):
    program = policy._programs[True]
    for value in (0.1, 0.2, 0.3):
        policy.predict([value])
    assert program._cache_size() <= 3  # one for each number of observations: 1, 3


def test_a_run_in_another_thread_ends_as_any_other():
    found = []
    fields = {"env": "ProbeFollow", "algo": "ppo", "steps": 80, "num_envs": 4}
    own = {"minibatches": 2, "hidden": [4]}
    thread = threading.Thread(
        target=lambda: found.append(
            sx.run(**fields, rollout_length=10, hyperparameters=own, out="run")
        )
    )
    thread.start()
    thread.join()
    assert found and sx.load_policy(found[0]).iteration == 2
