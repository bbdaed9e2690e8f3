"""Every method ends at the known optimum of a tiny problem: the constrained one where it can.

SMPO's is in `test_smpo`, PPO's in `test_ppo`: those run always.
"""

import numpy as np
import pytest
import toy

from smpo_envs import probes

pytestmark = pytest.mark.slow

LIMIT = 4.0
UNLIMITED = float("inf")
# Gradient ascent finds the price only where the policy follows it faster than it moves; if not,
# the two circle each other, and cost is at the limit only on average over many turns.
SLOW_PRICE = {"multiplier_learning_rate": 0.005, "iterations": 900}
PASSES = {"epochs": 10}
# CUP's second phase weighs a fall in cost, which is proportional to the policy's spread, against a
# divergence: what it gives up goes with the square of the spread, what PPO takes in the first phase
# with the spread itself. A policy that is left to become deterministic so outgrows any price.
SPREAD = {"multiplier_learning_rate": 0.003, "iterations": 900, "entropy_coefficient": 0.02}
CONSTRAINED = {
    "ppo_lag": SLOW_PRICE | PASSES,
    "focops": SLOW_PRICE | PASSES,
    "cup": SPREAD | PASSES,
    "trpo_lag": SLOW_PRICE,
    "rcpo": SLOW_PRICE,
    "pid_lag": PASSES,
    "trpo_pid": {},
    "ipo": PASSES,
    "p3o": PASSES,
    "cpo": {},
    "pcpo": {},
    "crpo": {"tolerance": 0.0},
}


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_constrained_method_ends_at_the_constrained_optimum(name):
    return_, cost, _ = toy.learnt(name, "ProbeDiminishing", LIMIT, **CONSTRAINED[name])
    np.testing.assert_allclose(cost, LIMIT, atol=0.4)
    # What the cost that it did spend can buy, but for the noise of the actions: 10 std² an episode.
    np.testing.assert_allclose(return_, probes.diminishing_optimum(float(cost)), atol=0.2)


ACCOUNTS = [
    f"{base}_{account}" for base in ("ppo", "trpo") for account in ("saute", "early_terminated")
]


@pytest.mark.parametrize("name", [*ACCOUNTS, "ppo_simmer", "trpo_simmer"])
def test_a_method_with_an_account_never_spends_more_and_hardly_less(name):
    """`tradeoff`: the return is the cost spent.

    An episode that is cut off may overshoot by what its last step cost, less than 1. Not
    `diminishing`: a learner for whom an episode's end is only a pause in an endless one saves.
    """
    _, _, episodes = toy.learnt(name, "ProbeTradeoff", LIMIT)
    most = 5.0 if name.endswith("early_terminated") else 4.3
    assert np.max(episodes.cost) < most
    assert 3.4 < np.mean(episodes.return_) < most


def test_trpo_follows_the_signal_whatever_that_costs():
    _, _, episodes = toy.learnt("trpo", "ProbeFollow", UNLIMITED)
    assert np.mean(episodes.return_) > probes.follow_optimum(UNLIMITED) - 0.3
    np.testing.assert_allclose(np.mean(episodes.cost), 2.5, atol=0.4)
