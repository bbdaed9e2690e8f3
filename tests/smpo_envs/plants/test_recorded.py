"""The plants against recordings of pcgym 0.1.8 (tests/helpers/record_plants.py)."""

from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.plants import four_tanks, stirred_tank
from smpo_envs.plants.plant import PERFECT, Scenario, minus_error, reset, step

DATA = Path(__file__).parents[2] / "data" / "plants"
PLANTS = {"StirredTank": stirred_tank.PLANT, "FourTanks": four_tanks.PLANT}
CALM = ("constant", "mild", "mild_feed", "coldest", "random", "held", "fullest", "emptiest")


def recorded(name):
    with np.load(DATA / f"{name}.npz") as file:
        arrays = dict(file)
    names = arrays.pop("names")
    return {str(x): {key: rows[i] for key, rows in arrays.items()} for i, x in enumerate(names)}


EPISODES = [(plant, name) for plant in PLANTS for name in recorded(plant)]


@lru_cache
def replayed(name, episode):
    """States, rewards, costs and observations under the recorded actions, in float64."""
    plant, given = PLANTS[name], recorded(name)[episode]
    with double_precision():
        scenario = Scenario(*(given[key] for key in ("start", "set_points", "disturbances")))
        first = reset(plant, lambda _: scenario, PERFECT, jax.random.key(0))

        def play(state, action):
            after = step(plant, PERFECT, minus_error, state, action)
            return after, after

        _, after = jax.jit(partial(jax.lax.scan, play))(first, jnp.array(given["actions"]))
        states = [x.pipeline_state.state for x in (first, after)]
        obs = np.vstack([first.obs, after.obs])
        return np.vstack(states), np.array(after.reward), np.array(after.info["cost"]), obs


@pytest.mark.parametrize(("plant", "episode"), EPISODES)
def test_states_are_pcgyms(plant, episode):
    states, _, _, _ = replayed(plant, episode)
    assert states.dtype == np.float64
    assert_allclose(states, recorded(plant)[episode]["states"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("plant", "episode"), EPISODES)
def test_rewards_are_pcgyms(plant, episode):
    _, rewards, _, _ = replayed(plant, episode)
    assert_allclose(rewards, recorded(plant)[episode]["rewards"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("plant", "episode"), EPISODES)
def test_violations_are_pcgyms(plant, episode):
    _, _, costs, _ = replayed(plant, episode)
    theirs = recorded(plant)[episode]["violations"]  # [T, limits]
    prices = {limit.price for limit in PLANTS[plant].limits}
    (price,) = prices  # one unit
    assert_array_equal(costs > 0, theirs.sum(1) > 0)
    assert_allclose(costs, price * theirs.sum(1), rtol=0, atol=1e-6 * price)


@pytest.mark.parametrize(("plant", "episode"), EPISODES)
def test_observations_are_pcgyms_and_targets_ahead_of_its(plant, episode):
    _, _, _, obs = replayed(plant, episode)
    theirs = recorded(plant)[episode]["obs"]
    states = len(PLANTS[plant].states)
    targets = slice(states, theirs.shape[1])
    # pcgym keeps the ranges in float32.
    assert_allclose(obs[:, :states], theirs[:, :states], rtol=1e-6, atol=1e-6)
    # Ours is what the step to come is paid by; pcgym shows that of two steps before.
    assert_allclose(obs[:-2, targets], theirs[2:, targets], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("plant", "episode"), [x for x in EPISODES if x[1] in CALM])
def test_states_are_those_of_pcgyms_own_solver_within_its_tolerance(plant, episode):
    states, _, _, _ = replayed(plant, episode)
    theirs = recorded(plant)[episode]["casadi"]
    assert_allclose(states, theirs, rtol=1e-5, atol=1e-5)  # CVODES: 1e-6 for each step


def test_recordings_have_all_that_is_to_be_compared():
    tank, four = recorded("StirredTank"), recorded("FourTanks")
    broken = np.concatenate([x["violations"] for x in tank.values()])
    assert (broken > 0).any(0).all()
    assert max(x["states"][:, 1].max() for x in tank.values()) > 400  # it runs away
    assert any(np.ptp(x["disturbances"], axis=0).all() for x in tank.values())
    broken = np.concatenate([x["violations"] for x in four.values()])
    assert (broken > 0).any(0).all() and (broken > 0).all(1).any()
    assert min(x["states"].min() for x in four.values()) < 1e-3
