"""What Python refuses in one line, and what cannot be refused beforehand but must show."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import smpo_envs
import smpo_jax as sx
from smpo_envs.safe_env import Environment, State
from smpo_jax.algorithms import registry
from smpo_jax.augmentation import augment
from smpo_jax.experiment.run.recorder import first_fault
from smpo_jax.training import host, loop

ZERO = jnp.zeros(())
WITH_ACCOUNT = sorted(name for name, entry in registry.ALGORITHMS.items() if entry.augmentation)


@pytest.mark.parametrize(
    "override, message",
    [
        ({"rollout_length": 0}, "rollout_length=0 must be an int, 1 or more"),
        ({"rollout_length": 2.5}, "rollout_length=2.5 must be an int"),
        ({"total_iterations": -1}, "total_iterations=-1 must be an int"),
        ({"cost_limit": -1.0}, "cost_limit=-1.0 must be 0 or more"),
        ({"cost_limit": np.float32("nan")}, "cost_limit=.*nan.* must be 0 or more"),
        ({"cost_limit": jnp.asarray(-2.0)}, "cost_limit=.*-2.* must be 0 or more"),
        ({"cost_limit": "25"}, "cost_limit='25' must be 0 or more"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(override, message):
    _, spec = toy.problem()
    with pytest.raises(ValueError, match=message):
        toy.small("ppo", spec._replace(**override))


def test_a_spec_that_cannot_be_is_refused_where_it_is_made_and_where_it_is_used():
    env, spec = toy.problem()
    with pytest.raises(ValueError, match="rollout_length=0 must be an int, 1 or more"):
        sx.make_spec(env, rollout_length=0, total_iterations=5)
    with pytest.raises(ValueError, match=r"cost_limit=-1\.0 must be 0 or more"):
        sx.make_spec(env, rollout_length=10, total_iterations=5, cost_limit=-1.0)
    algorithm = toy.small("ppo", spec)
    with pytest.raises(ValueError, match="cost_limit=nan must be 0 or more"):
        sx.train(algorithm, env, spec._replace(cost_limit=float("nan")), jax.random.key(0), 1)


def test_numbers_of_numpy_and_an_infinite_limit_are_numbers():
    four: Any = np.int64(4)
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), four)
    assert type(env.num_envs) is int and env.num_envs == 4
    _, spec = toy.problem()
    numbers: dict[str, Any] = {"rollout_length": np.int32(10), "total_iterations": np.asarray(5)}
    toy.small("ppo", spec._replace(cost_limit=np.inf, **numbers))  # refuses nothing


@pytest.mark.parametrize("num_envs", [0, 2.5, float("nan"), "many"])
def test_numbers_of_environments_that_cannot_be_are_refused(num_envs):
    with pytest.raises(ValueError, match=r"num_envs=.* must be a whole number, 1 or more"):
        smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), num_envs)


@pytest.mark.parametrize("length", [0, -1, 2.5])
def test_an_episode_of_no_steps_is_refused(length):
    env = smpo_envs.make("ProbeFollow", episode_length=length)
    with pytest.raises(ValueError, match=f"episode_length={length} must be a whole number"):
        smpo_envs.VectorEnv(env, 4)


@pytest.mark.parametrize("name", WITH_ACCOUNT)
def test_a_method_without_its_account_is_refused_and_told_how_to_have_it(name):
    bare = smpo_envs.make("ProbeFollow")
    env = smpo_envs.VectorEnv(bare, 4)
    spec = sx.make_spec(env, rollout_length=10, total_iterations=5)
    algorithm = toy.small(name, spec)
    for meet in (
        lambda: sx.train(algorithm, env, spec, jax.random.key(0), 1),
        lambda: loop.init(algorithm, env, jax.random.key(0)),
        lambda: loop.chunk(algorithm, env, spec, 1),
        lambda: sx.make_evaluator(algorithm, env, 4),
    ):
        with pytest.raises(ValueError, match=r"account of cost.*sx\.augment\(env, NAME"):
            meet()

    kept = smpo_envs.VectorEnv(sx.augment(bare, name, cost_limit=25.0), 4)
    spec = sx.make_spec(kept, rollout_length=10, total_iterations=5)
    loop.iteration(toy.small(name, spec), kept, spec)  # refuses nothing


def test_another_methods_account_is_not_its_own():
    single = sx.augment(smpo_envs.make("ProbeFollow"), "ppo_early_terminated", cost_limit=25.0)
    env = smpo_envs.VectorEnv(single, 4)
    spec = sx.make_spec(env, rollout_length=10, total_iterations=5)
    with pytest.raises(ValueError, match="account of cost"):
        loop.iteration(toy.small("ppo_saute", spec), env, spec)


def test_outside_jax_a_method_without_its_account_is_refused_too():
    env: Any = object()  # nothing of it is used
    _, spec = toy.problem("ppo_saute", num_envs=2)
    with pytest.raises(ValueError, match="account of cost"):
        host.make_collector(toy.small("ppo_saute", spec), env, 10)


def test_an_environment_without_anything_to_add_is_itself():
    env = smpo_envs.make("ProbeFollow")
    assert sx.augment(env, "ppo") is env
    settings = registry.hyperparameters("ppo_saute")
    extra = registry.augmentation("ppo_saute", settings, 25.0)
    assert augment(env, extra).observation_size == sx.augment(env, "ppo_saute").observation_size


def broken(field, value=jnp.nan):
    """Gives a value that must not be in one field, in the third step of every episode of ten."""

    def reset(key):
        del key
        return State(ZERO, jnp.ones(1), ZERO, ZERO, info={"cost": ZERO})

    def step(state, action):
        t = state.pipeline_state + 1
        bad = jnp.where(t == 3, value, 0.0)
        values = {"obs": jnp.ones(1), "reward": action[0], "cost": ZERO, "done": ZERO}
        values[field] = values[field] + bad
        info = {"cost": values.pop("cost")}
        return state.replace(pipeline_state=t, info=info, **values)

    return Environment(reset, step, 1, 1, 10)


@pytest.mark.parametrize(
    "field, metric",
    [
        ("obs", "rollout/largest_observation"),
        ("reward", "rollout/reward"),
        ("cost", "rollout/cost"),
        ("done", "rollout/terminated"),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_a_field_that_is_nan_is_what_is_named(field, metric):
    env = smpo_envs.VectorEnv(broken(field), 4)
    spec = sx.make_spec(env, rollout_length=10, total_iterations=5)
    algorithm = toy.small("ppo", spec)
    state = loop.init(algorithm, env, jax.random.key(0))
    _, row = loop.chunk(algorithm, env, spec, 1)(state)
    assert first_fault({name: float(values[0]) for name, values in row.items()}) == metric


@pytest.mark.parametrize("field, value", [("cost", -0.5), ("done", jnp.nan)])
@pytest.mark.usefixtures("quick_compilation")
def test_training_on_costs_below_0_or_nan_is_refused(field, value):
    env = smpo_envs.VectorEnv(broken(field, value), 4)
    spec = sx.make_spec(env, rollout_length=10, total_iterations=5)
    with pytest.raises(ValueError, match=r"iteration 1: rollout/\w+ is nan: the environment gives"):
        sx.train(toy.small("ppo_lag", spec), env, spec, jax.random.key(0), 2)


def test_an_evaluation_of_nan_ends_and_has_no_figures():
    env = smpo_envs.VectorEnv(broken("done"), 2, stagger=False)
    episodes = sx.evaluate(lambda obs, key: jnp.ones((2, 1)), env, jax.random.key(0), 4)
    assert np.all(np.isnan(episodes.return_))
    with pytest.raises(ValueError, match="episodes=0 must be at least 1"):
        sx.evaluate(lambda obs, key: jnp.ones((2, 1)), env, jax.random.key(0), 0)


NO_EPISODE = {"episode/count": 0.0, "episode/return": np.nan, "rollout/reward": 1.0}


@pytest.mark.parametrize(
    "row, cause",
    [
        ({"learner/norm": np.nan, "policy/kl": np.inf, "value/loss": np.nan}, "value/loss"),
        ({"learner/norm": np.inf, "policy/kl": np.nan}, "policy/kl"),
        ({"learner/norm": np.inf, "my/own": np.nan, "policy/kl": np.nan}, "my/own"),
        ({"learner/norm": np.nan}, "learner/norm"),
        ({"episode/count": 2.0, "policy/kl": np.nan}, "episode/return"),
        ({"episode/count": np.nan, "policy/kl": np.nan}, "episode/count"),
    ],
)
def test_what_diverged_first_is_named_first(row, cause):
    """Rows come sorted by name, as JAX sorts them."""
    assert first_fault(dict(sorted({**NO_EPISODE, **row}.items()))) == cause
