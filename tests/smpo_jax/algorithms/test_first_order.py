"""What makes each first-order constrained method that method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from smpo_jax.algorithms import cup, focops, p3o, recipes, registry
from smpo_jax.core import surrogate
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.training import loop

UNLIMITED = float("inf")
# What keeps the multiplier at 0 before the first episode has been measured.
CONSTRAINED = {
    "ppo_lag": {"multiplier_start": 0.0},
    "pid_lag": {"multiplier_start": 0.0},
    "cup": {"multiplier_start": 0.0, "target_kl": 0.02},
    "p3o": {},
}


@pytest.mark.parametrize("name", CONSTRAINED)
@pytest.mark.usefixtures("quick_compilation")
def test_without_a_limit_every_constrained_method_is_ppo(name):
    run = toy.two_iterations(name, UNLIMITED, **CONSTRAINED[name])
    shared = ("update",) if name == "cup" else ()  # its second phase has the other half of the key
    toy.assert_learns_the_same(run, toy.two_iterations("ppo", UNLIMITED, shared=shared))


@pytest.mark.usefixtures("quick_compilation")
def test_second_phase_of_cup_projects_the_policy_and_leaves_the_critics():
    """The same first phase: after one iteration only the price of cost can have made a difference.

    Critics learn from the first rollout alone, so they agree until the second.
    """
    # Without a limit the multiplier moves by its learning rate, down: 0 stays 0, 2 becomes 1.965.
    env, spec = toy.problem(num_envs=8, cost_limit=UNLIMITED)
    states, metrics = [], []
    for price in (0.0, 2.0):
        algorithm = toy.small("cup", spec, multiplier_start=price)
        start = loop.init(algorithm, env, jax.random.key(0))
        state, seen = loop.chunk(algorithm, env, spec, 1)(start)
        states.append(state.learner)
        metrics.append(seen)
    free, dear = states
    toy.assert_same(free.params["value"], dear.params["value"])
    toy.assert_same(free.params["cost_value"], dear.params["cost_value"])
    assert metrics[0]["projection/kl"][0] == 0 and metrics[0]["projection/gradient_norm"][0] == 0
    assert metrics[1]["projection/kl"][0] > 0
    # Cost is a mean action above 0: the projection has moved it down for most observations.
    obs = jnp.linspace(-1, 1, 21)[:, None]
    acts = [algorithm.policy(learner) for learner in (free, dear)]
    means = [act(obs, jax.random.key(0))[2].mode() for act in acts]
    assert np.mean(means[1]) < np.mean(means[0])


def batch_of(action, mean, advantage):
    """Samples of a policy with unit variance."""
    action, mean = (jnp.asarray(x)[:, None] for x in (action, mean))
    dist = DiagonalGaussian(mean, jnp.zeros_like(mean))
    log_prob = -0.5 * (action - mean)[:, 0] ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    return recipes.Batch(0 * mean, action, log_prob, dist, jnp.asarray(advantage), targets={})


def moved(batch, shift):
    old: Any = batch.dist
    return DiagonalGaussian(old.mean + jnp.asarray(shift)[:, None], old.log_std)


def test_focops_by_hand_leaves_out_states_beyond_its_bound():
    """KL = shift²/2: 0.005 and 0.045 with η = 0.02; ratio at action 1, mean 0 -> 0.1: e^0.095."""
    settings = focops.FOCOPS(temperature=1.5, state_kl=0.02)
    batch = batch_of([1.0, 1.0], [0.0, 0.0], [3.0, 5.0])

    def loss(shift):
        return focops.projection(settings, moved(batch, shift), batch)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.array([0.1, 0.3]))
    ratio = np.exp(-0.5 * 0.9**2 + 0.5)
    np.testing.assert_allclose(value, (0.005 - ratio * 3.0 / 1.5) / 2, rtol=1e-5)
    # d/dshift [shift²/2 - ratio A / 1.5] = shift - ratio 0.9 A / 1.5, halved by the mean
    np.testing.assert_allclose(gradient, [(0.1 - ratio * 0.9 * 2) / 2, 0.0], rtol=1e-5)
    assert metrics["policy/near_share"] == 0.5


def test_focops_measures_divergence_from_the_new_policy_to_the_old():
    """A new σ of 2: KL(new | old) = 2 - 0.5 - log 2 = 0.807, the other way round 0.318."""
    settings = focops.FOCOPS(state_kl=0.5)
    batch = batch_of([1.0], [0.0], [0.0])
    wide = DiagonalGaussian(jnp.zeros((1, 1)), jnp.full((1, 1), jnp.log(2.0)))
    _, metrics = focops.projection(settings, wide, batch)
    assert metrics["policy/near_share"] == 0


def test_cup_projection_by_hand():
    """KL + price ρ A_c with the shift 0.1: 0.005 + 2 e^0.095 0.5, and for action -1 e^-0.105."""
    batch = batch_of([1.0, -1.0], [0.0, 0.0], [0.5, -0.25])
    loss = cup.projection(moved(batch, [0.1, 0.1]), batch, price=2.0)
    expected = 0.005 + 2.0 * (np.exp(0.095) * 0.5 - np.exp(-0.105) * 0.25) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_p3o_penalty_by_hand():
    """Ratios e^0.375 = 1.45 and e^-0.625 = 0.535 at shift 0.5, clip 0.2.

    The dear action (A_c = 0.5) counts in full, for the clip at 1.2 would make it look cheaper; the
    rarer cheap one (A_c = -0.25) is not believed to be less rare than it is, as the clip at 0.8
    would: the larger cost of the two counts.
    """
    settings = p3o.P3O(penalty_coefficient=20.0, clip=0.2)
    batch = batch_of([1.0, -1.0], [0.0, 0.0], [0.0, 0.0])
    samples = batch._replace(extra=jnp.array([0.5, -0.25]))
    dist = moved(batch, [0.5, 0.5])
    change = (np.exp(0.375) * 0.5 - np.exp(-0.625) * 0.25) / 2
    over = p3o.penalty(settings, dist, samples, 1.0)
    np.testing.assert_allclose(over, 20.0 * (change + 1.0), rtol=1e-5)
    assert p3o.penalty(settings, dist, samples, -5.0) == 0


def test_penalised_advantage_by_hand():
    advantage = surrogate.penalised(jnp.array([1.0, -2.0]), jnp.array([0.5, 1.0]), 3.0)
    np.testing.assert_allclose(advantage, [-0.125, -1.25])  # (1 - 1.5) / 4, (-2 - 3) / 4


def test_cost_advantages_are_centred_in_their_own_unit():
    np.testing.assert_allclose(surrogate.centre(jnp.array([1.0, 2.0, 6.0])), [-2.0, -1.0, 3.0])


@pytest.mark.parametrize("name", ["ppo", "focops", "cup", "p3o", "ppo_simmer", "smpo-ppo"])
@pytest.mark.usefixtures("quick_compilation")
def test_no_update_goes_beyond_the_bound_however_large_the_steps(name):
    """Steps of Adam of 0.3 with a spread of e^-6: hundreds of nats in a pass, unless held back."""
    _, metrics = toy.two_iterations(name, learning_rate=0.3, initial_log_std=-6.0)
    target = registry.hyperparameters(name).target_kl
    for group in ("policy", "projection"):
        kl = np.asarray(metrics.get(f"{group}/kl", 0.0))
        assert np.all(kl <= recipes.FARTHEST * target)
    assert np.all(np.asarray(metrics["policy/kl"]) > 1e-3 * target)  # it has moved, though


@pytest.mark.parametrize("name", ["rcpo", "cpo"])
@pytest.mark.usefixtures("quick_compilation")
def test_no_natural_step_goes_beyond_the_bound_near_determinism(name):
    _, metrics = toy.two_iterations(name, initial_log_std=-9.0)
    target = registry.hyperparameters(name).target_kl
    assert np.all(np.asarray(metrics["policy/kl"]) <= recipes.FARTHEST * target)


@pytest.mark.usefixtures("quick_compilation")
def test_a_bonus_on_entropy_widens_the_policy_to_the_bound_and_no_further():
    metrics = toy.two_iterations(
        "ppo",
        learning_rate=2.0,
        entropy_coefficient=10.0,
        target_kl=float("inf"),
        learning_rate_decay=False,
    )[1]
    np.testing.assert_allclose(metrics["policy/std"][-1], np.exp(2.0), rtol=1e-6)
