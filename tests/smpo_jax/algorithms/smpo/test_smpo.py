import jax
import numpy as np
import pytest
import toy

import smpo_envs
import smpo_jax as sx
from smpo_envs import probes

# The safety critic has the other halves of the keys.
SHARED = ("init", "update")


@pytest.mark.parametrize("modulates", ["reward", "advantage"])
@pytest.mark.usefixtures("quick_compilation")
def test_with_full_weight_and_no_critic_gradient_smpo_ppo_is_ppo(modulates):
    """During the warm-up f = 1; the same keys shuffle the same samples into the same steps."""
    run = toy.two_iterations(
        "smpo-ppo",
        warmup_epochs=1e9,
        critic_gradient="off",
        modulates=modulates,
        shift_amount=0.0,
    )
    toy.assert_learns_the_same(run, toy.two_iterations("ppo", shared=SHARED))
    assert np.all(run[1]["smpo/weight"] == 1)


@pytest.mark.usefixtures("quick_compilation")
def test_the_price_on_measured_cost_changes_the_policy_only_once_there_is_a_price():
    same = {"critic_gradient_trace": 1.0, "shift_amount": 0.5}
    off = toy.two_iterations("smpo-ppo", warmup_epochs=1e9, critic_gradient="off", **same)
    free = toy.two_iterations("smpo-ppo", warmup_epochs=1e9, critic_gradient="advantage", **same)
    toy.assert_learns_the_same(free, off)
    off = toy.two_iterations("smpo-ppo", critic_gradient="off", **same)
    paid = toy.two_iterations("smpo-ppo", critic_gradient="advantage", **same)
    assert np.all(paid[1]["smpo/price"] > 0)
    assert paid[1]["policy/kl"][0] != off[1]["policy/kl"][0]
    np.testing.assert_allclose(paid[1]["smpo/weight"][0], off[1]["smpo/weight"][0], rtol=1e-9)


OFF = {"critic_gradient": "off"}


@pytest.mark.parametrize(
    "name, reference, same",
    [
        ("smpo-ppo", "ppo", OFF),
        ("smpo", "trpo", {**OFF, "target_kl": 0.01, "target_kl_decay": 1.0}),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_without_a_limit_smpo_modulates_nothing(name, reference, same):
    run = toy.two_iterations(name, float("inf"), **same)
    toy.assert_learns_the_same(run, toy.two_iterations(reference, float("inf"), shared=SHARED))
    assert np.all(run[1]["smpo/weight"] == 1) and np.all(run[1]["smpo/price"] == 0)


@pytest.mark.usefixtures("quick_compilation")
def test_a_shift_that_leaves_rewards_negative_is_told():
    """A limit of nearly nothing makes every weight negative; rewards of the toy go below 0."""
    tight = {"threshold_minimum": 1e-6}
    low, high = (toy.two_iterations("smpo-ppo", 1e-6, shift_amount=x, **tight) for x in (0.0, 1e3))
    assert np.all(low[1]["smpo/inverted_share"] > 0) and np.all(high[1]["smpo/inverted_share"] == 0)
    assert np.all(low[1]["smpo/inverted_share"] <= low[1]["smpo/negative_share"])


@pytest.mark.usefixtures("quick_compilation")
def test_with_full_weight_and_no_critic_gradient_smpo_is_trpo():
    run = toy.two_iterations(
        "smpo", warmup_epochs=1e9, critic_gradient="off", target_kl=0.01, target_kl_decay=1.0
    )
    toy.assert_learns_the_same(run, toy.two_iterations("trpo", shared=SHARED))
    assert np.all(run[1]["smpo/weight"] == 1)


@pytest.mark.parametrize("form", ["score", "reparameterised"])
@pytest.mark.usefixtures("quick_compilation")
def test_natural_gradient_takes_off_the_gradient_through_the_critic(form):
    """A price a million times the advantage leaves a step that only lowers predicted cost."""
    runs = [
        toy.two_iterations(
            "smpo",
            critic_gradient=form,
            critic_gradient_coefficient=coefficient,
            line_search=False,
        )
        for coefficient in (0.0, 1e6)
    ]
    free, paid = (np.asarray(metrics["policy/kl"]) for _, metrics in runs)
    assert np.all(np.isfinite(paid)) and paid[0] != free[0]


@pytest.mark.slow
def test_smpo_ends_at_the_constrained_optimum():
    """The target of the cost falls from 8 to 4; the return is what that cost can buy."""
    return_, cost, _ = toy.learnt(
        "smpo",
        "ProbeDiminishing",
        4.0,
        epoch_steps=1280.0,  # an iteration
        weight_temperature=16.0,
        shift_amount=0.5,
        critic_gradient_coefficient=4.0,
        threshold_minimum=4.0,
        threshold_feedback=0.5,
        target_epochs=50.0,
    )
    np.testing.assert_allclose(cost, 4.0, atol=0.4)
    np.testing.assert_allclose(return_, probes.diminishing_optimum(float(cost)), atol=0.2)


def test_smpo_ppo_spends_its_budget_and_no_more():
    """`tradeoff`: return = cost spent, up to 10 an episode. PPO spends 10; the limit is 4."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeTradeoff"), 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=200, cost_limit=4.0)
    algorithm = sx.make(
        "smpo-ppo",
        spec,
        learning_rate=3e-3,
        cost_learning_rate=3e-3,
        epochs=10,
        minibatches=4,
        cost_minibatches=4,
        epoch_steps=1280.0,
        threshold_factor=2.0,
        threshold_epochs=50.0,
        threshold_feedback=0.1,
    )
    _, metrics = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 200))(jax.random.key(0))
    assert metrics["episode/cost"][12] > 8  # before the threshold has come down
    # The controller swings about the limit, less and less as the learning rate falls.
    np.testing.assert_allclose(np.mean(metrics["episode/cost"][-40:]), 4.0, atol=0.2)
    np.testing.assert_allclose(np.mean(metrics["episode/return"][-40:]), 4.0, atol=0.2)
