import functools
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_envs
import smpo_jax as sx
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.training import loop
from smpo_jax.training.devices import make_mesh
from smpo_jax.training.rollout import collect
from smpo_jax.types import Algorithm, LearnerState

pytestmark = pytest.mark.usefixtures("quick_compilation")


def echo(spec):
    """A method that acts by the observation, learns nothing, and reports what it was given."""

    def init(key):
        del key
        return LearnerState({"w": jnp.ones(())}, (), (), (), jnp.zeros((), jnp.int32))

    def policy(learner):
        def act(obs, key):
            del key
            dist = DiagonalGaussian(obs * learner.params["w"], jnp.zeros_like(obs))
            return dist.mean, jnp.zeros(obs.shape[0]), dist

        return act

    def update(learner, rollout, key):
        del key
        t = rollout.transition
        metrics = {"seen/reward": jnp.mean(t.reward), "seen/cost": jnp.mean(t.cost)}
        return learner.replace(iteration=learner.iteration + 1), metrics

    return Algorithm(init, policy, update)


def test_an_iteration_rolls_out_counts_episodes_and_steps():
    env, spec = toy.problem(num_envs=4, rollout_length=10, stagger=False)
    algorithm = echo(spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    state, metrics = jax.jit(loop.iteration(algorithm, env, spec))(state)
    # `follow`: the action equals the signal, so each of 10 steps earns 1.
    assert metrics["episode/count"] == 4
    assert metrics["episode/length"] == 10
    np.testing.assert_allclose(metrics["episode/return"], 10.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["episode/cost"], 10 * metrics["seen/cost"], rtol=1e-5)
    assert state.learner.iteration == 1
    assert metrics["learner/norm"] == 1


def test_episodes_go_on_across_iterations():
    env, spec = toy.problem(num_envs=2, rollout_length=4, stagger=False)
    algorithm = echo(spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    _, metrics = loop.chunk(algorithm, env, spec, 5)(state)
    np.testing.assert_array_equal(metrics["episode/count"], [0, 0, 2, 0, 2])  # after 10, 20 steps
    assert np.isnan(metrics["episode/return"][0])
    np.testing.assert_allclose(metrics["episode/return"][2], 10.0, rtol=1e-6)


SLOW = [
    pytest.param(algo, marks=pytest.mark.slow) for algo in ("ppo", "trpo_saute", "focops", "cup")
]


@pytest.mark.parametrize("algo", ["ppo_lag", "cpo", "smpo", *SLOW])
def test_devices_that_make_updates_together_change_no_more_than_rounding(algo):
    """Against one device whose minibatches are drawn from the same shards."""
    ends = []
    for devices in (1, 2):
        env, spec = toy.problem(algo, num_envs=4, rollout_length=8, shards=2)
        algorithm, mesh = toy.small(algo, spec), make_mesh(devices, 4)
        state = loop.init(algorithm, env, jax.random.key(0), mesh)
        iteration = jax.jit(loop.iteration(algorithm, env, spec, mesh)).lower(state).compile()
        for _ in range(3):  # which is an error unless the state comes out where it went in
            state, metrics = iteration(state)
        ends.append((state, metrics))
    after = ends[1][0]
    for leaf in (after.env_state.obs, after.tracker.cost):
        assert [piece.data.shape[0] for piece in leaf.addressable_shards] == [2, 2]
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(after.learner))
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(data(x), data(y), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_seeds_side_by_side_are_shared_by_devices():
    ends = []
    for devices in (1, 2):
        env, spec = toy.problem("smpo", num_envs=4, rollout_length=8, shards=2)
        algorithm, mesh = toy.small("smpo", spec), make_mesh(devices, 4)
        keys = jax.random.split(jax.random.key(0), 2)
        train = jax.vmap(lambda key: loop.train(algorithm, env, spec, key, 2, mesh))  # noqa: B023
        ends.append(jax.jit(train)(keys))
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(data(x), data(y), rtol=1e-3, atol=1e-5)


def test_a_mesh_that_cannot_share_the_shards_is_refused():
    env, spec = toy.problem(num_envs=4)
    with pytest.raises(ValueError, match=r"2 devices .* shards=1.*make_spec\(\.\.\., shards=2\)"):
        loop.iteration(echo(spec), env, spec, make_mesh(2, 4))
    with pytest.raises(ValueError, match="shards=3 must divide num_envs=4"):
        toy.problem(num_envs=4, shards=3)
    _, spec = toy.problem(num_envs=4, rollout_length=6, shards=4)
    with pytest.raises(ValueError, match=r"24 is not divisible by minibatches=4 × devices=4"):
        toy.small("ppo", spec, minibatches=4)


def test_a_donated_chunk_equals_its_iterations():
    env, spec = toy.problem(num_envs=2, rollout_length=4)
    algorithm = toy.small("ppo", spec)
    one = jax.jit(loop.iteration(algorithm, env, spec))
    state, singles = loop.init(algorithm, env, jax.random.key(0)), []
    for _ in range(3):
        state, metrics = one(state)
        singles.append(metrics)
    start = loop.init(algorithm, env, jax.random.key(0))
    together, metrics = loop.chunk(algorithm, env, spec, 3)(start)
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(data(x), data(y))
    for name, values in metrics.items():
        np.testing.assert_array_equal(values, jnp.stack([m[name] for m in singles]))


def data(x):
    return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_a_broken_parameter_shows_in_the_metrics():
    env, spec = toy.problem()
    algorithm = echo(spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    broken = state.replace(learner=state.learner.replace(params={"w": jnp.array(jnp.nan)}))
    _, metrics = loop.iteration(algorithm, env, spec)(broken)
    assert np.isnan(metrics["learner/norm"])


def test_a_rollout_keeps_the_true_successor_at_the_end_of_an_episode():
    env, spec = toy.problem(num_envs=3, rollout_length=12, stagger=False)
    algorithm = echo(spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    policy = algorithm.policy(state.learner)
    _, t = collect(policy, env, state.env_state, jax.random.key(1), spec.rollout_length)
    assert t.obs.shape == t.next_obs.shape == (12, 3, 1) and t.reward.shape == (12, 3)
    np.testing.assert_array_equal(t.truncated[:, 0], np.arange(12) == 9)
    within = np.arange(11) != 9
    np.testing.assert_array_equal(t.next_obs[:-1][within], t.obs[1:][within])
    assert np.all(t.next_obs[9] != t.obs[10])  # the next episode has another signal


def test_a_spec_of_other_environments_is_refused():
    env, spec = toy.problem(num_envs=4)
    algorithm = echo(spec)
    with pytest.raises(ValueError, match="spec says num_envs=8, the environments have 4"):
        loop.iteration(algorithm, env, spec._replace(num_envs=8))


def test_importing_the_package_loads_no_jax_and_knows_its_names():
    code = "import sys, smpo_jax; 'train' in dir(smpo_jax) or 1/0; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_many_runs_in_one_program_equal_each_alone():
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), 4)
    spec = loop.make_spec(env, rollout_length=10, total_iterations=3)
    build = functools.partial(sx.make, "ppo", spec, minibatches=2, hidden=(8,))
    rates = np.array([1e-4, 1e-2, 1e-3])
    states, metrics = loop.train_many(
        build, env, spec, jax.random.key(0), 3, {"learning_rate": rates}
    )
    assert metrics["episode/return"].shape == (3, 3)
    for i, (own_key, rate) in enumerate(
        zip(jax.random.split(jax.random.key(0), 3), rates, strict=True)
    ):
        state, _ = jax.jit(
            lambda key, rate=rate: loop.train(build(learning_rate=float(rate)), env, spec, key, 3)
        )(own_key)
        ours = jax.tree.map(lambda leaf, i=i: leaf[i], states.learner.params)
        # one program is rounded otherwise than another
        chex.assert_trees_all_close(ours, state.learner.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"epsilon": [0.1], "discount": [0.9, 0.8]}])
def test_many_runs_of_no_number_are_refused(settings):
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), 4)
    spec = loop.make_spec(env, rollout_length=10, total_iterations=3)
    build = functools.partial(sx.make, "ppo", spec)
    with pytest.raises(ValueError, match="settings must be of one length"):
        loop.train_many(build, env, spec, jax.random.key(0), 3, settings)
