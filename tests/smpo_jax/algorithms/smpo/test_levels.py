"""Several cost limits in one run: each is measured by itself, and one policy keeps them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from modulated import spec_of

import smpo_envs
import smpo_jax as sx
from smpo_envs import probes
from smpo_jax.algorithms import registry
from smpo_jax.algorithms.smpo import SMPO, SMPOLimits, levels
from smpo_jax.core import episodes, surrogate
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.training import tracking
from smpo_jax.types import Transition

LIMITS = (25.0, 10.0, 50.0)  # the run's own first
LENGTH, STEPS, ENVS = 5, 32, 6


def rollout():
    """Episodes of at most 5 steps, each under a limit of its own; the first ones began unseen."""
    rng = np.random.default_rng(0)
    age = rng.integers(0, LENGTH, ENVS)
    limit = np.zeros((STEPS, ENVS))
    terminated, truncated = (np.zeros((STEPS, ENVS)) for _ in range(2))
    own = rng.choice(LIMITS, ENVS)
    for t in range(STEPS):
        limit[t] = own
        age += 1
        terminated[t] = rng.random(ENVS) < 0.1
        truncated[t] = (age == LENGTH) * (1 - terminated[t])
        over = (terminated[t] + truncated[t]) > 0
        age[over], own = 0, np.where(over, rng.choice(LIMITS, ENVS), own)
    reward, cost = rng.normal(size=(STEPS, ENVS)), rng.random((STEPS, ENVS))
    obs = jnp.asarray(np.stack([rng.normal(size=limit.shape), np.log1p(limit)], axis=-1))
    none = jnp.zeros((STEPS, ENVS))
    blank = none[..., None]
    t = Transition(
        obs, blank, none, DiagonalGaussian(blank, blank), jnp.asarray(reward), jnp.asarray(cost),
        jnp.asarray(terminated), jnp.asarray(truncated), obs,
    )  # fmt: skip
    spec = sx.Spec(2, 1, ENVS, STEPS, episode_length=LENGTH, total_iterations=10)
    tracker = episodes.start(ENVS, jnp.asarray(np.random.default_rng(0).integers(0, LENGTH, ENVS)))
    return limit, spec, tracker, t


def whole_episodes(limit, t):
    """(limit, cost) of each episode that was seen from its beginning, or terminated: in NumPy."""
    cost, terminated, truncated = (np.asarray(x) for x in (t.cost, t.terminated, t.truncated))
    for env in range(ENVS):
        total, length = 0.0, 0
        for step in range(STEPS):
            total, length = total + cost[step, env], length + 1
            if terminated[step, env] or truncated[step, env]:
                if terminated[step, env] or length == LENGTH:
                    yield limit[step, env], total
                total, length = 0.0, 0


def test_each_limit_has_the_episodes_that_were_under_it():
    limit, spec, tracker, t = rollout()
    _, found = tracking.track(spec, tracker, t)
    stats = levels.several(LIMITS, LENGTH).finished(found)
    expected = list(whole_episodes(limit, t))
    for i, own in enumerate(LIMITS):
        costs = [cost for under, cost in expected if under == own]
        assert stats.count[i] == len(costs) > 5
        np.testing.assert_allclose(stats.cost[i], np.mean(costs), rtol=1e-5)


def test_a_limit_without_episodes_is_not_measured():
    _, spec, tracker, t = rollout()
    _, found = tracking.track(spec, tracker, t)
    stats = levels.several((*LIMITS, 70.0), LENGTH).finished(found)
    assert stats.count[3] == 0 and np.isnan(stats.cost[3])
    assert np.all(np.isfinite(stats.cost[:3]))


def test_advantages_are_standardised_among_steps_under_the_same_limit():
    limit, spec, tracker, t = rollout()
    _, found = tracking.track(spec, tracker, t)
    x = t.reward * (1.0 + limit) + limit
    standard = np.asarray(surrogate.standardise(x, levels.several(LIMITS, LENGTH).mean(found)))
    for own in LIMITS:
        some = np.asarray(x)[limit == own]
        np.testing.assert_allclose(
            standard[limit == own], (some - some.mean()) / some.std(), rtol=1e-4, atol=1e-5
        )


def stats_of(cost, count):
    return sx.EpisodeStats(cost, cost, length=cost, over_limit=cost, count=count)


def test_each_limit_has_the_threshold_that_it_would_have_alone():
    """Ten epochs with episodes of costs 60, 8 and nothing: as three thresholds of one limit."""
    settings = SMPOLimits(epoch_steps=4.0, warmup_epochs=0.0)
    several = levels.several(LIMITS, LENGTH)
    rule = several.threshold(lambda limit: settings.threshold(spec_of(limit)))
    state = rule.init()
    alone = [settings.threshold(spec_of(limit)) for limit in LIMITS]
    states = [one.init() for one in alone]
    costs, counts = (60.0, 8.0, np.nan), (3.0, 2.0, 0.0)
    for epoch in range(10):
        stats = stats_of(jnp.asarray(costs), jnp.asarray(counts))
        state, d = rule.update(state, stats, epoch)
        for i, one in enumerate(alone):
            own = stats_of(jnp.asarray(costs[i]), jnp.asarray(counts[i]))
            states[i], expected = one.update(states[i], own, epoch)
            np.testing.assert_allclose(d[i], expected, rtol=1e-6)
    assert d[0] < 200.0 < 400.0 == d[2]  # tightened; as it was


@pytest.mark.usefixtures("quick_compilation")
def test_with_one_limit_it_is_smpo():
    """All episodes under the run's own: sums over them and means over all are the same."""
    env = smpo_envs.VectorEnv(
        sx.augment(smpo_envs.make("ProbeFollow"), "smpo-limits", cost_limit=1.0, other_limits=[1]),
        8,
    )
    spec = sx.make_spec(env, rollout_length=10, total_iterations=20, cost_limit=1.0)
    same = {"episode_window": 33.0, "threshold_minimum": 1.0}
    found = []
    for name, own in (("smpo", same), ("smpo-limits", same | {"other_limits": [1.0]})):
        algorithm = toy.small(name, spec, **own)
        state = sx.init(algorithm._replace(account_size=1), env, jax.random.key(0))
        state, metrics = sx.chunk(algorithm, env, spec, 6)(state)
        found.append((state.learner.params, metrics))
    (params, metrics), (other, other_metrics) = found
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), params, other)
    assert metrics.keys() == other_metrics.keys()
    assert float(metrics["smpo/threshold"][-1]) != float(metrics["smpo/threshold"][0])
    for name in ("smpo/threshold", "smpo/cost_return", "episode/cost", "episode/count"):
        np.testing.assert_allclose(metrics[name], other_metrics[name], rtol=1e-3, err_msg=name)


def test_episodes_of_training_are_under_all_limits_and_keep_theirs():
    env = sx.augment(smpo_envs.make("ProbeTradeoff"), "smpo-limits")
    batch = smpo_envs.VectorEnv(env, 512, stagger=False)
    state = batch.reset(jax.random.key(0))
    first = np.asarray(state.obs[:, -1])
    for limit in LIMITS:
        share = np.mean(np.isclose(first, np.log1p(limit), rtol=1e-5))
        assert abs(share - 1 / 3) < 0.08  # four standard errors
    step = jax.jit(batch.step)
    for _ in range(env.episode_length):
        state, seen = step(state, jnp.zeros((512, 1)))
        np.testing.assert_array_equal(seen.next_obs[:, -1], first)
    later = np.asarray(state.obs[:, -1])
    assert 0.5 < np.mean(later != first) < 0.8  # drawn anew: two thirds differ


def test_apart_from_training_all_are_under_the_runs_own():
    kept = registry.augmentation("smpo-limits", SMPOLimits(), 25.0)
    assert kept.limits == (25.0, 10.0, 50.0)
    assert kept.start == pytest.approx((np.log(26.0),))
    assert kept.apart_from_training().draw is None


def test_only_episodes_under_the_runs_own_limit_are_reported():
    limit, spec, tracker, t = rollout()
    env_spec = spec._replace(cost_limit=10.0)
    algorithm = sx.make("smpo-limits", env_spec, minibatches=2, cost_minibatches=2)
    lost = tracking.not_counted(algorithm, t)
    assert lost is not None
    _, found = tracking.track(env_spec, tracker, t, lost)
    costs = [cost for under, cost in whole_episodes(limit, t) if under == 10.0]
    assert found.episodes.count == len(costs)
    np.testing.assert_allclose(found.episodes.cost, np.mean(costs), rtol=1e-5)
    assert tracking.not_counted(sx.make("ppo", env_spec, minibatches=2), t) is None


def test_a_traced_limit_cannot_be_shown():
    env = smpo_envs.make("ProbeFollow")

    def run(limit):
        return sx.augment(env, "smpo-limits", cost_limit=limit).reset(jax.random.key(0)).obs

    with pytest.raises(ValueError, match="cost_limit is traced"):
        jax.vmap(run)(jnp.array([1.0, 2.0]))


@pytest.mark.parametrize("given", [(), (10.0, 10.0), (-1.0,), (np.inf,)])
def test_limits_that_cannot_be_are_refused(given):
    with pytest.raises(ValueError, match=r"other_limits=.* must be one or more different numbers"):
        SMPOLimits(other_limits=given)


def test_settings_are_those_of_smpo_but_for_what_limits_need():
    own, flagship = vars(SMPOLimits()), vars(SMPO())
    changed = {name for name in flagship if own[name] != flagship[name]}
    assert changed == {"episode_window"} and own.keys() - flagship.keys() == {"other_limits"}


@pytest.mark.slow
def test_one_policy_ends_at_the_optimum_under_each_limit():
    """Limits 2, 4 and 6, and 5, under which it has never been."""
    own = {"cost_limit": 4.0, "other_limits": (2.0, 6.0)}
    env = smpo_envs.VectorEnv(
        sx.augment(smpo_envs.make("ProbeDiminishing"), "smpo-limits", **own), 192
    )
    spec = sx.make_spec(env, rollout_length=20, total_iterations=400, cost_limit=4.0)
    algorithm = sx.make(
        "smpo-limits",
        spec,
        other_limits=(2.0, 6.0),
        learning_rate=3e-3,
        minibatches=4,
        target_kl=0.02,
        epoch_steps=3840.0,  # an iteration
        weight_temperature=16.0,
        shift_amount=0.5,
        critic_gradient_coefficient=4.0,
        threshold_minimum=0.1,
        threshold_feedback=0.5,
        target_epochs=50.0,
    )
    state, _ = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 400))(jax.random.key(0))
    for limit in (2.0, 4.0, 5.0, 6.0):
        told = sx.augment(
            smpo_envs.make("ProbeDiminishing"),
            "smpo-limits",
            cost_limit=limit,
            other_limits=[limit],
        )
        play = sx.make_evaluator(algorithm, smpo_envs.VectorEnv(told, 128), 512)
        played = play(state.learner, jax.random.key(1))
        cost = float(np.mean(played.cost))
        np.testing.assert_allclose(cost, limit, atol=0.5)
        np.testing.assert_allclose(
            np.mean(played.return_), probes.diminishing_optimum(cost), atol=0.3
        )
