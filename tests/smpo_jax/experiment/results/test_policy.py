"""Runs made before algorithms were renamed and redesigned load, and act as they did."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_jax as sx

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
    act = policy.act(deterministic=True)
    found = act(jnp.array([[-0.5], [0.0], [0.5]]), jax.random.key(0))
    np.testing.assert_allclose(found[:, 0], actions, rtol=1e-5)
