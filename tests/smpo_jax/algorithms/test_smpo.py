import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_envs
import smpo_jax as sx
from smpo_envs import probes
from smpo_jax.algorithms import recipes, safety_critic, smpo
from smpo_jax.core import episodes
from smpo_jax.types import DiagonalGaussian, EpisodeStats, Rollout, Transition


@pytest.mark.parametrize("modulates", smpo.MODULATES)
@pytest.mark.usefixtures("quick_compilation")
def test_with_full_weight_and_no_critic_gradient_smpo_is_ppo(modulates):
    """During the warm-up f = 1; the same keys shuffle the same samples into the same steps."""
    run = toy.two_iterations("smpo", warmup_epochs=1e9, critic_gradient="off", modulates=modulates)
    toy.assert_learns_the_same(run, toy.two_iterations("ppo"))
    assert np.all(run[1]["smpo/weight"] == 1)


def settings(**overrides):
    return smpo.Hyperparameters(**overrides)


def rollout(reward, cost, *, cost_so_far=None, elapsed=None):
    reward, cost = (jnp.asarray(x, jnp.float32)[:, None] for x in (reward, cost))
    none, blank = jnp.zeros_like(reward), jnp.zeros((*reward.shape, 1))
    t = Transition(
        blank, blank, none, DiagonalGaussian(blank, blank), reward, cost, none, none, blank
    )
    stats = EpisodeStats(*(jnp.asarray(x) for x in (0.0, 40.0, 10.0, 1.0, 2.0)))
    before = none if cost_so_far is None else jnp.asarray(cost_so_far)[:, None]
    ages = none if elapsed is None else jnp.asarray(elapsed)[:, None]
    return Rollout(t, before, ages, stats)


def spec_of(limit=25.0, steps=4, envs=1):
    return sx.Spec(1, 1, envs, steps, episode_length=10, total_iterations=10, cost_limit=limit)


def weigh(settings, rollout, cost_value, *, mean_cost=0.0, threshold=4.0):
    cost_value = jnp.asarray(cost_value)[:, None]
    arrays = (cost_value, jnp.asarray(mean_cost), jnp.asarray(threshold))
    weight, price = smpo.weigh(settings, spec_of(), rollout, *arrays)
    return weight[:, 0], price[:, 0]


def test_weight_of_the_paper_by_hand():
    """x = C_t + clip(Q, 0, d') - d', with b = 2, d' = 4: f(x) = (1 - 2^x) / (15/16)."""
    s = settings(weight_base=2.0)
    r = rollout([1.0] * 4, [0.0] * 4, cost_so_far=[0.0, 0.0, 3.0, 5.0])
    weight, _ = weigh(s, r, cost_value=[0.0, 2.0, 9.0, 0.0])
    x = np.array([-4.0, -2.0, 3.0, 1.0])  # the third prediction is clipped at d'
    expected = np.maximum((1 - 2**x) / (15 / 16), -5)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "spent, expected", [("episode", 3.0), ("expected", 40.0 * 5 / 10), ("none", 0.0)]
)
def test_what_counts_as_spent(spent, expected):
    r = rollout([1.0], [0.0], cost_so_far=[3.0], elapsed=[5.0])
    s = settings(spent=spent, weight_base=1.000001)  # the straight line f = -x / d'
    weight, _ = weigh(s, r, cost_value=[0.0], mean_cost=40.0, threshold=50.0)
    np.testing.assert_allclose(weight, [1 - expected / 50], rtol=1e-4)


@pytest.mark.parametrize("scale, steps", [("episode", 10.0), ("remaining", 7.0)])
def test_predictions_scaled_to_the_episode_undo_horizon_and_penalty(scale, steps):
    s = settings(prediction_scale=scale, spent="none", weight_base=1.000001)
    per_step = 0.01 + 0.1  # 1 - γ + ρ
    weight, _ = weigh(s, rollout([1.0], [0.0], elapsed=[3.0]), [20.0], threshold=50.0)
    np.testing.assert_allclose(weight, [1 - 20 * per_step * steps / 50], rtol=1e-4)


def test_rewards_are_shifted_before_and_unshifted_after():
    r, f, shift = jnp.array([[-0.5, 2.0]]), jnp.array([[-1.0, 0.5]]), jnp.array([[1.0, 1.0]])
    # f (r + s) - s: -1 * 0.5 - 1, 0.5 * 3 - 1
    modulated = smpo.MODULATES["reward"].reward(r, f, shift)
    np.testing.assert_allclose(modulated, [[-1.5, 0.5]])
    assert smpo.MODULATES["advantage"].reward(r, f, shift) is r
    np.testing.assert_allclose(smpo.MODULATES["advantage"].advantage(r, f), [[0.5, 1.0]])


def test_shifting_by_the_running_minimum_leaves_no_negative_reward():
    r = rollout([0.5, -2.0, 1.0], [0.0] * 3)
    shift = smpo.shift_of(settings(shift="minimum"), r.transition)
    np.testing.assert_allclose(shift[:, 0], [0.0, 2.0, 2.0])


def test_price_is_the_reward_at_stake_times_the_slope_one_step_before():
    """-r df/dQ at the step before: r 2^x ln 2 / (15/16), discounted once."""
    r = rollout([1.0, 3.0, 1.0], [0.0] * 3)
    _, price = weigh(settings(weight_base=2.0), r, cost_value=[0.0, 2.0, 0.0])
    charge = np.array([1.0, 3.0]) * 2.0 ** np.array([-4.0, -2.0]) * np.log(2) / (15 / 16)
    np.testing.assert_allclose(price, [0.0, *(0.99 * charge)], rtol=1e-5)


def test_price_is_not_lifted_where_the_prediction_is_clipped():
    r = rollout([1.0, 1.0], [0.0] * 2)
    s = settings(weight_base=2.0)
    _, at_clip = weigh(s, r, cost_value=[4.0, 0.0])
    _, beyond = weigh(s, r, cost_value=[400.0, 0.0])
    np.testing.assert_array_equal(at_clip, beyond)


def samples(action, mean, *, price, cost_value):
    action, mean = jnp.asarray(action)[:, None], jnp.asarray(mean)[:, None]
    dist = DiagonalGaussian(mean, jnp.zeros_like(mean))
    log_prob = -0.5 * (action - mean)[:, 0] ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    zero = jnp.zeros_like(log_prob)
    batch = recipes.Batch(mean * 0, action, log_prob, dist, advantage=zero, targets={"value": zero})
    return smpo.Samples(batch, jnp.asarray(price), jnp.asarray(cost_value))


def quadratic(obs, action):
    del obs
    return action[..., 0] ** 2


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_reparameterised_gradient_is_the_critics_slope_at_the_moved_action(shift):
    s = samples([1.0, -2.0], [0.5, 0.5], price=[2.0, 1.0], cost_value=[1.0, 4.0])

    def term(mean):
        dist = DiagonalGaussian(s.batch.dist.mean + mean, s.batch.dist.log_std)
        return smpo.reparameterised(quadratic, dist, s)

    # mean over samples of W * 2 (a + shift)
    expected = (2 * 2 * (1.0 + shift) + 1 * 2 * (-2.0 + shift)) / 2
    np.testing.assert_allclose(jax.grad(term)(shift), expected, rtol=1e-5)


def test_score_gradient_is_that_of_log_prob_where_the_policies_agree():
    s = samples([1.0, -2.0], [0.5, 0.5], price=[2.0, 1.0], cost_value=[3.0, 4.0])

    def term(mean):
        dist = DiagonalGaussian(s.batch.dist.mean + mean, s.batch.dist.log_std)
        return smpo.score(quadratic, dist, s)

    # mean of W Q d log π / d mean = W Q (a - mean)
    expected = (2 * 3 * 0.5 + 1 * 4 * -2.5) / 2
    np.testing.assert_allclose(jax.grad(term)(0.0), expected, rtol=1e-5)


def test_both_forms_estimate_the_same_gradient():
    """E_a Q(a) for a ~ N(m, 1), Q = a²: d/dm (m² + 1) = 2 m, at m = 0.5."""
    action = 0.5 + jax.random.normal(jax.random.key(0), (200_000,))
    ones = jnp.ones(200_000)
    s = samples(action, 0.5 * ones, price=ones, cost_value=action**2)

    def gradient(form):
        def term(mean):
            return form(
                quadratic, DiagonalGaussian(mean * jnp.ones((200_000, 1)), 0 * s.batch.action), s
            )

        return jax.grad(term)(0.5)

    # Standard errors: 2 / sqrt(2e5) = 0.0045, and about 3.2 / sqrt(2e5) = 0.007.
    np.testing.assert_allclose(gradient(smpo.reparameterised), 1.0, atol=4 * 0.0045)
    np.testing.assert_allclose(gradient(smpo.score), 1.0, atol=4 * 0.007)


def tighten(s, *, iteration, cost=40.0, offset=0.0, limit=25.0):
    """One iteration of 4 steps is 0.2 epochs of 20 steps."""
    aux = smpo.Aux(episodes.empty_window(), jnp.asarray(offset))
    r = rollout([0.0] * 4, [0.0] * 4)
    r = r._replace(episodes=r.episodes._replace(cost=jnp.asarray(cost)))
    aux, threshold = smpo.tighten(s, spec_of(limit), aux, r, jnp.asarray(iteration * 0.2))
    return float(aux.threshold_offset), float(threshold)


def test_threshold_follows_the_schedule_and_the_measured_cost():
    s = settings(epoch_steps=20.0, warmup_epochs=1.0, threshold_epochs=2.0, threshold_feedback=1.0)
    assert tighten(s, iteration=0) == (0.0, 50.0)
    assert tighten(s, iteration=4) == (0.0, 40.0)
    offset, threshold = tighten(s, iteration=5)  # d' = 37.5 + 0.2 * (25 - 40)
    np.testing.assert_allclose([offset, threshold], [-3.0, 34.5], rtol=1e-6)
    offset, threshold = tighten(s, iteration=10)  # 25 + the same
    np.testing.assert_allclose([offset, threshold], [-3.0, 22.0], rtol=1e-6)
    offset, threshold = tighten(s, iteration=11, offset=offset, cost=15.0)  # + 0.2 * 10
    np.testing.assert_allclose([offset, threshold], [-1.0, 24.0], rtol=1e-6)


def test_feedback_does_not_wind_up_at_its_bounds():
    s = settings(
        epoch_steps=20.0, warmup_epochs=0.0, threshold_epochs=0.0, threshold_feedback=100.0
    )
    assert tighten(s, iteration=0, cost=9999.0) == (-24.0, 1.0)  # threshold_minimum
    assert tighten(s, iteration=0, cost=0.0) == (75.0, 100.0)  # 4 times the limit


def test_the_measured_cost_is_steered_to_a_target_that_falls():
    """η = 2 over 2 epochs: targets 50, 37.5 (epoch 1), 25; d' itself has no schedule here."""
    s = settings(
        epoch_steps=20.0,
        warmup_epochs=0.0,
        threshold_factor=3.0,
        threshold_epochs=1e9,
        threshold_feedback=1.0,
        target_factor=2.0,
        target_epochs=2.0,
    )
    # 0.2 epochs an iteration; slack 50 - 40, then 37.5 - 40
    np.testing.assert_allclose(tighten(s, iteration=0), (2.0, 77.0), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=5), (-0.5, 74.5), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=10), (-3.0, 72.0), rtol=1e-6)


def test_feedback_is_bounded_and_what_is_proportional_is_not_summed_up():
    s = settings(
        epoch_steps=20.0,
        warmup_epochs=0.0,
        threshold_factor=4.0,
        threshold_epochs=1e9,
        threshold_feedback=1.0,
        feedback_proportional=2.0,
        feedback_bound=0.4,
    )
    # J_c = 400: the slack of -375 counts as -10; -2 for good, -20 for now
    np.testing.assert_allclose(tighten(s, iteration=0, cost=400.0), (-2.0, 78.0), rtol=1e-6)
    np.testing.assert_allclose(tighten(s, iteration=0, cost=30.0), (-1.0, 89.0), rtol=1e-6)


def test_without_a_finished_episode_nothing_is_fed_back():
    s = settings(threshold_epochs=0.0, threshold_feedback=1.0)
    r = rollout([0.0] * 4, [0.0] * 4)
    r = r._replace(episodes=EpisodeStats(*[jnp.asarray(jnp.nan)] * 4, count=jnp.asarray(0.0)))
    aux = smpo.Aux(episodes.empty_window(), jnp.asarray(3.0))
    aux, threshold = smpo.tighten(s, spec_of(), aux, r, jnp.asarray(9.0))
    assert (aux.threshold_offset, threshold) == (3.0, 28.0)


def test_expectation_is_the_mean_action_or_a_mean_over_samples():
    dist = DiagonalGaussian(jnp.full((1, 1), 3.0), jnp.log(jnp.full((1, 1), 0.5)))
    obs = jnp.zeros((1, 1))
    key = jax.random.key(0)
    exact = safety_critic.expectation(quadratic, obs, dist, key, samples=0)
    np.testing.assert_allclose(exact, [9.0])
    sampled = safety_critic.expectation(quadratic, obs, dist, key, samples=20_000)
    np.testing.assert_allclose(sampled, [9.25], atol=4 * 3.0 / 20_000**0.5)  # E a² = 9 + 1/4


@pytest.mark.parametrize("regularisation", [0.0, 0.5])
def test_the_critic_converges_to_the_penalised_fixed_point(regularisation):
    """A cost of 0.5 at every step, γ = 0.8: Q = c / (1 + ρ - γ), 2.5 or 0.71, at any (s, a)."""
    spec = sx.Spec(1, 1, 8, 16, episode_length=16, total_iterations=1)
    learning = safety_critic.Settings(
        0.8, 0.0, regularisation, 0, rounds=300, epochs=1, minibatches=1
    )
    critic = safety_critic.make(
        spec, learning, hidden=(8,), activation="tanh", max_gradient_norm=10.0
    )
    params = critic.network.init(jax.random.key(0))
    obs, action = (jax.random.normal(jax.random.key(i), (16, 8, 1)) for i in (1, 2))
    flat, none = jnp.full((16, 8), 0.5), jnp.zeros((16, 8))
    dist = DiagonalGaussian(0 * action, 0 * action)
    t = Transition(obs, action, none, dist, none, flat, none, none, obs)
    estimates = recipes.Estimates(obs, obs, none, none)
    opt_state = critic.optimiser.init({"cost_value": params})
    fit = jax.jit(
        lambda key: safety_critic.fit(
            critic, params, opt_state, t, estimates, dist, key, learning_rate=0.02
        )
    )
    params, _, metrics = fit(jax.random.key(3))
    expected = 0.5 / (1 + regularisation - 0.8)
    np.testing.assert_allclose(critic.predict(params)(obs, action), expected, rtol=0.03)
    assert np.isfinite(metrics["cost_value/loss"])


def test_cost_advantages_are_of_measured_costs_with_the_penalty_given_back():
    """One-step TD errors, γ = 0.8, ρ = 0.5: what the critic says is grown 1 + 0.5 / 0.2 times."""
    spec = sx.Spec(1, 1, 1, 3, episode_length=3, total_iterations=1)
    learning = safety_critic.Settings(0.8, 0.0, 0.5, 0, rounds=1, epochs=1, minibatches=1)
    critic = safety_critic.make(
        spec, learning, hidden=(8,), activation="tanh", max_gradient_norm=1.0
    )
    column = lambda *x: jnp.array(x)[:, None]  # noqa: E731
    none, mean, next_mean = column(0.0, 0.0, 0.0), column(1.0, 0.0, 2.0), column(2.0, 0.0, 1.0)
    dist, next_dist = (DiagonalGaussian(x[..., None], x[..., None]) for x in (mean, next_mean))
    cost, end = column(1.0, 0.0, 4.0), column(0.0, 0.0, 1.0)
    blank = none[..., None]
    t = Transition(blank, blank, none, dist, none, cost, end, none, blank)
    estimates = recipes.Estimates(blank, blank, none, none)
    found = safety_critic.advantage(critic, quadratic, t, estimates, next_dist)
    # c + γ 3.5 Q(next mean) - 3.5 Q(mean), Q = a²; nothing after the end
    expected = [1 + 0.8 * 3.5 * 4 - 3.5, 0.0, 4 - 3.5 * 4]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
def test_the_price_on_measured_cost_changes_the_policy_only_once_there_is_a_price():
    same = {"critic_gradient_trace": 1.0, "shift_amount": 0.5}
    off = toy.two_iterations("smpo", warmup_epochs=1e9, critic_gradient="off", **same)
    free = toy.two_iterations("smpo", warmup_epochs=1e9, critic_gradient="advantage", **same)
    toy.assert_learns_the_same(free, off)
    off = toy.two_iterations("smpo", critic_gradient="off", **same)
    paid = toy.two_iterations("smpo", critic_gradient="advantage", **same)
    assert np.all(paid[1]["smpo/price"] > 0)
    assert paid[1]["policy/kl"][0] != off[1]["policy/kl"][0]
    np.testing.assert_allclose(paid[1]["smpo/weight"][0], off[1]["smpo/weight"][0], rtol=1e-9)


OFF = {"critic_gradient": "off"}


@pytest.mark.parametrize(
    "name, reference, same",
    [
        ("smpo", "ppo", OFF),
        ("trpo_smpo", "trpo", {**OFF, "target_kl": 0.01, "target_kl_decay": 1.0}),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_without_a_limit_smpo_modulates_nothing(name, reference, same):
    run = toy.two_iterations(name, float("inf"), **same)
    toy.assert_learns_the_same(run, toy.two_iterations(reference, float("inf")))
    assert np.all(run[1]["smpo/weight"] == 1) and np.all(run[1]["smpo/price"] == 0)


@pytest.mark.usefixtures("quick_compilation")
def test_with_full_weight_and_no_critic_gradient_trpo_smpo_is_trpo():
    run = toy.two_iterations(
        "trpo_smpo", warmup_epochs=1e9, critic_gradient="off", target_kl=0.01, target_kl_decay=1.0
    )
    toy.assert_learns_the_same(run, toy.two_iterations("trpo"))
    assert np.all(run[1]["smpo/weight"] == 1)


@pytest.mark.parametrize("form", ["score", "reparameterised"])
@pytest.mark.usefixtures("quick_compilation")
def test_natural_gradient_takes_off_the_gradient_through_the_critic(form):
    """A price a million times the advantage leaves a step that only lowers predicted cost."""
    runs = [
        toy.two_iterations(
            "trpo_smpo",
            critic_gradient=form,
            critic_gradient_coefficient=coefficient,
            line_search=False,
        )
        for coefficient in (0.0, 1e6)
    ]
    free, paid = (np.asarray(metrics["policy/kl"]) for _, metrics in runs)
    assert np.all(np.isfinite(paid)) and paid[0] != free[0]


def test_calibration_compares_with_what_followed():
    cost = jnp.array([[1.0], [0.0], [4.0]])
    none = jnp.zeros((3, 1))
    blank = jnp.zeros((3, 1, 1))
    t = Transition(
        blank, blank, none, DiagonalGaussian(blank, blank), none, cost, none, none, blank
    )
    followed = jnp.array([[2.5], [3.0], [6.0]])  # γ = 1/2, then 4 behind the window's end
    next_value = jnp.full((3, 1), 4.0)
    metrics = safety_critic.calibration(0.5 * followed, next_value, t, discount=0.5)
    np.testing.assert_allclose(metrics["cost_value/ratio"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["cost_value/correlation"], 1.0, rtol=1e-5)
    free = t._replace(cost=none)
    metrics = safety_critic.calibration(followed, none, free, discount=0.5)
    assert metrics["cost_value/ratio"] == 0


@pytest.mark.slow
def test_trpo_smpo_ends_at_the_constrained_optimum():
    """The target of the cost falls from 8 to 4; the return is what that cost can buy."""
    return_, cost, _ = toy.learnt(
        "trpo_smpo",
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


def test_smpo_spends_its_budget_and_no_more():
    """`tradeoff`: return = cost spent, up to 10 an episode. PPO spends 10; the limit is 4."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeTradeoff"), 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=200, cost_limit=4.0)
    algorithm = sx.make(
        "smpo",
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
