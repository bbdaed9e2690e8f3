"""What makes each trust-region method that method."""

import numpy as np
import pytest
import toy

from smpo_jax.algorithms import recipes

UNLIMITED = float("inf")
# Settings in which the methods differ from TRPO whatever the limit.
SAME = {"learning_rate_decay": False, "backtracks": 15}
CONSTRAINED = {
    "trpo_lag": {"multiplier_start": 0.0},
    "cpo": SAME,
    "pcpo": SAME,
    "crpo": {},
}


@pytest.mark.parametrize("name", CONSTRAINED)
@pytest.mark.usefixtures("quick_compilation")
def test_without_a_limit_every_constrained_method_is_trpo(name):
    trpo = toy.two_iterations("trpo", UNLIMITED)
    toy.assert_learns_the_same(toy.two_iterations(name, UNLIMITED, **CONSTRAINED[name]), trpo)
    assert np.all(np.asarray(trpo[1]["policy/step_fraction"]) > 0)  # something was learnt


@pytest.mark.parametrize("name", ["trpo", "cpo", "pcpo", "smpo"])
@pytest.mark.usefixtures("quick_compilation")
def test_the_trust_region_shrinks_geometrically(name):
    """To 1e-20 times over 20 iterations: tenfold in the second, so small that theory is exact."""
    _, metrics = toy.two_iterations(
        name, UNLIMITED, target_kl=1e-4, target_kl_decay=1e-20, line_search=False
    )
    np.testing.assert_allclose(metrics["policy/kl"], [1e-4, 1e-5], rtol=0.3)


@pytest.mark.usefixtures("quick_compilation")
def test_rcpo_takes_the_whole_step_that_a_line_search_shortens_unless_it_is_far_beyond():
    """With a target so large that the quadratic model of the divergence is far off."""
    _, whole = toy.two_iterations("rcpo", target_kl=4.0, initial_log_std=-4.0)
    _, searched = toy.two_iterations("trpo_lag", target_kl=4.0, initial_log_std=-4.0)
    np.testing.assert_array_equal(whole["policy/step_fraction"], [1.0, 0.25])
    assert np.all(whole["policy/kl"] <= recipes.FARTHEST * 4.0)  # the second, whole, would be more
    assert np.all(searched["policy/kl"] <= 4.0)
    assert np.any(searched["policy/step_fraction"] < 1)


@pytest.mark.usefixtures("quick_compilation")
def test_beyond_the_tolerance_crpo_turns_against_the_cost():
    """The untrained policy costs 1 to 4 an episode (chance: 2 to 3)."""
    _, within = toy.two_iterations("crpo", cost_limit=0.0, tolerance=10.0)
    _, beyond = toy.two_iterations("crpo", cost_limit=0.0, tolerance=0.0)
    assert np.all(within["constraint/slack"] == 1) and np.all(beyond["constraint/slack"] == 0)
    assert within["policy/kl"][0] != beyond["policy/kl"][0]


@pytest.mark.usefixtures("quick_compilation")
def test_beyond_reach_of_the_limit_cpo_cuts_cost_alone():
    """A trust region so small that no step within it gets from a cost of 1 to 4 to the limit."""
    _, metrics = toy.two_iterations("cpo", cost_limit=0.0, target_kl=1e-9)
    assert np.all(metrics["constraint/recovery"] == 1) and np.all(metrics["constraint/slack"] == 0)
