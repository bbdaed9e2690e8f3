"""What model-predictive control makes of the plants (tests/helpers/plant_oracles.py)."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import smpo_envs

DATA = Path(__file__).parents[2] / "data" / "plants"
ORACLES = json.loads((DATA / "oracles.json").read_text())
JACKETS = json.loads((DATA / "jackets.json").read_text())  # of StirredTank's benchmark, K


@pytest.mark.parametrize("controller", list(JACKETS))
def test_jackets_of_control_earn_in_the_native_plant_what_they_did_in_pcgyms(controller):
    env = smpo_envs.make("StirredTank", fixed=True)
    actions = (jnp.array(JACKETS[controller]) - 300.0)[:, None] / 10.0
    _, states = jax.jit(lambda key: jax.lax.scan(
        lambda state, action: (env.step(state, action),) * 2, env.reset(key), actions
    ))(jax.random.key(0))  # fmt: skip
    # In float32, from inputs of four decimals.
    assert_allclose(
        float(states.reward.sum()), ORACLES["StirredTank"][controller]["return"][0], atol=2e-3
    )
    violation = ORACLES["StirredTank"][controller]["violation"][0]
    assert_allclose(float(states.info["cost"].sum()), violation, atol=2e-2)


@pytest.mark.parametrize("plant", list(ORACLES))
def test_nothing_earns_more_than_the_optimum_of_its_violation(plant):
    """It has 20 steps of Runge-Kutta between decisions and a price of 1e-6 on violation."""
    best = np.array(ORACLES[plant]["optimum_inf"]["return"])
    for name, played in ORACLES[plant].items():
        earned = np.array(played["return"], float)  # NaN where nothing was found
        assert np.nanmax(earned - best) < 2e-3, name
    budgets = sorted(float(x.removeprefix("optimum_")) for x in ORACLES[plant] if "optimum" in x)
    for less, more in itertools.pairwise(budgets):
        low, high = (
            np.array(ORACLES[plant][f"optimum_{x:g}"]["return"], float) for x in (less, more)
        )
        assert np.nanmax(low - high) < 2e-3, (less, more)
        assert (
            np.nanmax(np.array(ORACLES[plant][f"optimum_{less:g}"]["violation"], float))
            < less + 0.01
        )
