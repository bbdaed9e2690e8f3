"""What readings of SMPO pay, configs/suites/readings.py, by hand."""

import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from smpo_jax.algorithms.smpo import SMPOCode, SMPOEarlier, SMPOPaper


@pytest.fixture
def readings(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "configs" / "suites"))
    return importlib.import_module("readings")


def steps(*columns):
    """Of episodes, a column each."""
    return jnp.asarray(columns, jnp.float32).T


def test_the_critic_in_hindsight_by_hand(readings):
    # Q_2 = 1 / 1.5, Q_1 = (0 + 0.5 Q_2) / 1.5, Q_0 = (2 + 0.5 Q_1) / 1.5
    q = readings.hindsight(steps([2, 0, 1]), discount=0.5, regularisation=0.5)
    np.testing.assert_allclose(q[:, 0], [1.4074074, 0.2222222, 0.6666667], rtol=1e-6)
    # Without the penalty it is the discounted cost to go.
    q = readings.hindsight(steps([2, 0, 1]), discount=0.5, regularisation=0.0)
    np.testing.assert_allclose(q[:, 0], [2.25, 0.5, 1.0])


def test_the_baseline_of_an_advantage_is_the_mean_over_policies(readings):
    # To go, with γ = 0.5: 2, 2 and 0, 0; less the means 1, 1 that is ±1.
    found = readings.advantage(steps([1, 2], [0, 0]), discount=0.5)
    np.testing.assert_allclose(found, [[1, -1], [1, -1]], rtol=1e-6)


# Rewards of 1 and -1 a step; both columns are in a hazard at the first three of four steps.
REWARD, COST = steps([1, 1, 1, 1], [-1, -1, -1, -1]), steps([1, 1, 1, 0], [1, 1, 1, 0])
SPENT = np.array([0, 1, 2, 3])


def pay(readings, preset, threshold):
    """Of a critic that has no horizon: Q_t = c_t / (1 + λ)."""
    made = preset(minibatches=1, cost_minibatches=1, cost_discount=0.0, cost_regularisation=1.0)
    return readings.pay(made, REWARD, COST, threshold)


def test_the_paper_pays_for_running_away_beyond_the_budget(readings):
    f, modulated, advantage = pay(readings, SMPOPaper, 1.0)
    # x = C_t + Q - d' = -0.5, 0.5, 1.5, 2; f = (1 - 3^x) / (1 - 1/3), at least -5
    x = SPENT + np.array([0.5, 0.5, 0.5, 0]) - 1
    expected = np.maximum((1 - 3.0**x) / (2 / 3), -5)
    np.testing.assert_allclose(f[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(modulated, np.stack([expected, -expected], 1), rtol=1e-5)
    assert modulated.sum(0)[1] > 0 > modulated.sum(0)[0]
    assert advantage.mean(0)[1] > 0 > advantage.mean(0)[0]


def test_the_published_code_lifts_rewards_and_turns_advantages_round(readings):
    f, modulated, advantage = pay(readings, SMPOCode, 1.0)
    assert np.all(f[1:] < 0)
    # Shifted by the least so far: 1 stays 1, -1 becomes 0.
    np.testing.assert_allclose(modulated, np.stack([f[:, 0], 0 * f[:, 0]], 1), atol=1e-6)
    plain = readings.advantage(steps([1, 1, 1, 1], [0, 0, 0, 0]))
    np.testing.assert_allclose(advantage, f * plain, rtol=1e-5)
    assert advantage[3, 1] > 0 > advantage[3, 0]


def test_the_earlier_weight_pays_as_the_task_does(readings):
    f, modulated, _ = pay(readings, SMPOEarlier, 2.0)
    # 1 - e^(min(Q, 2) + min(C, 2) - 4)
    exponent = np.array([0.5, 0.5, 0.5, 0]) + np.minimum(SPENT, 2) - 4
    np.testing.assert_allclose(f[:, 0], 1 - np.exp(exponent), rtol=1e-5)
    assert np.all(f > 0)
    np.testing.assert_allclose(modulated, f * REWARD, rtol=1e-5)
