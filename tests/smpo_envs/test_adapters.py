"""Environments of other contracts behind ours."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
from smpo_envs.adapters import as_safe_env
from smpo_envs.brax_tasks import VELOCITY_TASKS
from smpo_envs.from_brax import from_brax, velocity_cost
from smpo_envs.from_gymnax import from_gymnax
from smpo_envs.safe_env import kind

ZERO = jnp.zeros(())


class Playground(NamedTuple):
    """A state as mujoco_playground's: `data`, no `pipeline_state`; its cost is in `metrics`."""

    data: Any
    obs: Any
    reward: Any
    done: Any
    metrics: dict
    info: dict


class Sled:
    """Moves by the action; some of what it returns has other types after a step."""

    action_size = 1

    def __init__(self, info=(), metrics=("cost",), obs=lambda x: x[None]):
        self.info, self.metrics, self.obs = info, metrics, obs

    def reset(self, key):
        x = jax.random.uniform(key)
        metrics = dict.fromkeys(self.metrics, ZERO)
        return Playground(
            x, self.obs(x), ZERO, ZERO, metrics, {"n": 0, **dict.fromkeys(self.info, 0.0)}
        )

    def step(self, state, action):
        x = state.data + action[0]
        state.metrics.update({name: jnp.abs(x) for name in self.metrics})  # in place, as brax does
        info = {**state.info, "n": state.info["n"] + 1}
        return state._replace(data=x, obs=self.obs(x), reward=x, done=x > 3.0, info=info)


def test_brax_contract_with_a_cost_in_metrics():
    env = as_safe_env(Sled())
    assert (env.observation_size, env.action_size, env.episode_length) == (1, 1, 1000)
    assert "1000 steps" in smpo_envs.check_env(env)
    state = env.reset(jax.random.key(0))
    after = env.step(state, jnp.array([7.0]))  # clipped
    np.testing.assert_allclose(after.pipeline_state.data, state.pipeline_state.data + 1.0)
    assert after.info["cost"] == after.pipeline_state.data and state.info["cost"] == 0
    assert state.metrics["cost"] == 0  # not written to
    many = smpo_envs.VectorEnv(as_safe_env(Sled(), episode_length=4), 8)
    first = many.reset(jax.random.key(0))
    last, seen = jax.lax.scan(many.step, first, jnp.zeros((9, 8, 1)))
    assert last.steps.max() < 4 and seen.truncated.sum() > 8


@pytest.mark.parametrize(
    ("env", "options", "expected"),
    [
        (Sled(metrics=()), {}, r"no cost in info or metrics; .*there are info.n"),
        (
            Sled(),
            {"cost": "metrics.speed"},
            "there is no such value; there are info.n, metrics.cost",
        ),
        (Sled(info=("first_obs",)), {}, "resets or cuts episodes by itself .*'first_obs'"),
        (Sled(info=("truncation",)), {}, "resets or cuts episodes by itself"),
        (Sled(obs=lambda x: x), {}, r"obs: expected a vector, got shape \[\]"),
        (Sled(obs=lambda x: {}), {}, "obs: expected a vector, got a dict with nothing in it"),
    ],
)
def test_what_brax_contract_does_not_fit_is_told(env, options, expected):
    with pytest.raises(ValueError, match=expected):
        from_brax(env, **options)


def test_brax_contract_with_several_observations():
    env = from_brax(Sled(obs=lambda x: {"state": jnp.stack([x, 2 * x]), "privileged": x}))
    assert env.observation_names == ("privileged[]", "state[2]") and env.observation_size == 3
    state = env.reset(jax.random.key(0))
    x = state.pipeline_state.data
    np.testing.assert_allclose(state.obs, [x, x, 2 * x], rtol=1e-6)
    smpo_envs.check_env(env)


def test_velocity_costs_above_the_threshold_only():
    class Moving(NamedTuple):
        metrics: dict

    state = Moving(
        {"x_velocity": jnp.array([-3.0, 1.9, 2.1, 1.9]), "y_velocity": jnp.array([0, 0, 0, 1.0])}
    )
    np.testing.assert_array_equal(velocity_cost(2.0, planar=False)(state), [0, 0, 1, 0])
    np.testing.assert_array_equal(velocity_cost(2.0, planar=True)(state), [1, 0, 1, 1])


def test_thresholds_are_those_of_the_real_package():
    spec = importlib.util.find_spec("safety_gymnasium")  # which need not be importable
    if spec is None or spec.origin is None:
        pytest.skip("needs the real package")
    folder = Path(spec.origin).parent / "tasks/safe_velocity"
    files = {"halfcheetah": "half_cheetah"}
    for name, limit in VELOCITY_TASKS.items():
        text = (folder / f"safety_{files.get(name, name)}_velocity_v1.py").read_text()
        assert f"_velocity_threshold = {limit.threshold}\n" in text


class Params(NamedTuple):
    max_steps_in_episode: int = 5
    goal: float = 2.0


class Box(NamedTuple):
    low: float
    high: float
    shape: tuple


class Clock:
    """Counts; its `done` is of the time limit too, as gymnax 0.0.x has it."""

    default_params = Params()
    space: Any = Box(-4.0, 0.0, (1,))

    def action_space(self, params):
        return self.space

    def reset_env(self, key, params):
        return jnp.zeros(1), (jnp.float32(0), 0)

    def step_env(self, key, state, action, params):
        x, time = state[0] + action[0], state[1] + 1
        done = (time >= params.max_steps_in_episode) | (x >= params.goal)
        return x[None], (x, time), x, done, {"cost": jnp.abs(action[0])}


def test_gymnax_style_keeps_the_true_successor_and_tells_truncation_apart():
    env = as_safe_env(Clock())
    assert (env.observation_size, env.action_size, env.episode_length) == (1, 1, 5)
    many = smpo_envs.VectorEnv(env, 2, stagger=False)
    state = many.reset(jax.random.key(0))
    _, seen = jax.lax.scan(many.step, state, jnp.full((6, 2, 1), -0.5))  # -3 of [-4, 0]
    np.testing.assert_array_equal(seen.next_obs[:, 0, 0], [-3, -6, -9, -12, -15, -3])
    np.testing.assert_array_equal(seen.truncated[:, 0], [0, 0, 0, 0, 1, 0])
    assert not seen.terminated.any()
    np.testing.assert_array_equal(seen.cost, 3.0)


def test_gymnax_style_terminates_and_takes_parameters_and_a_limit():
    class Up(Clock):
        space = Box(0.0, 1.0, (1,))

    env = as_safe_env((Up(), Params(goal=3.0)), episode_length=10)
    assert env.episode_length == 10
    many = smpo_envs.VectorEnv(env, 1, stagger=False)
    _, seen = jax.lax.scan(many.step, many.reset(jax.random.key(0)), jnp.full((4, 1, 1), 3.0))
    np.testing.assert_array_equal(seen.terminated[:, 0], [0, 0, 1, 0])


class Discrete(NamedTuple):
    n: int
    shape: tuple = ()


def test_gymnax_style_takes_the_index_of_a_choice():
    class Steps(Clock):
        space: Any = Discrete(3)

        def step_env(self, key, state, action, params):
            assert action.shape == () and action.dtype == jnp.int32
            x = state[0] + jnp.array([0.0, 1.0, 5.0])[action]
            return x[None], (x, state[1] + 1), x, False, {"cost": jnp.float32(action)}

    env = as_safe_env((Steps(), Params()))
    assert kind(env).discrete and env.action_size == 3
    many = smpo_envs.VectorEnv(env, 2, stagger=False)
    assert many.discrete
    _, seen = many.step(many.reset(jax.random.key(0)), jnp.eye(3)[1:])
    np.testing.assert_array_equal(seen.reward, [1.0, 5.0])
    np.testing.assert_array_equal(seen.cost, [1.0, 2.0])
    smpo_envs.check_env(env)


def test_what_gymnax_style_does_not_fit_is_told():
    class Sets(NamedTuple):
        spaces: tuple = ()

    class Steps(Clock):
        space: Any = Sets()

    with pytest.raises(ValueError, match="its actions are Sets; only vectors"):
        from_gymnax(Steps())
    with pytest.raises(ValueError, match=r"info\['harm'\] is missing; info has cost"):
        smpo_envs.VectorEnv(from_gymnax(Clock(), cost="info.harm"), 1)
    with pytest.raises(ValueError, match=r"expected info.NAME"):
        from_gymnax(Clock(), cost="harm")


def test_real_gymnax():
    gymnax = pytest.importorskip("gymnax", reason="needs gymnax")
    env = from_gymnax(*gymnax.make("Pendulum-v1"), cost=lambda info: ZERO)
    assert "is cut after 200 steps" in smpo_envs.check_env(env)
    env = from_gymnax(*gymnax.make("CartPole-v1"), cost=lambda info: ZERO)
    assert env.discrete and env.action_size == 2
    smpo_envs.check_env(env)


class Gymnasium:
    observation_space = action_space = "Box"


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (None, "NoneType is no environment, it has no reset"),
        (3, "int is no environment"),
        (Sled, "Sled is a class: give an object of it"),
        (smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), 2), "is many environments: give one"),
        (Gymnasium(), "looks like an environment of Gymnasium's"),
    ],
)
def test_what_is_no_environment_is_told(thing, expected):
    with pytest.raises(ValueError, match=expected):
        as_safe_env(thing)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VELOCITY_TASKS)
def test_every_locomotion_task_of_brax_costs_where_it_is_too_fast(name):
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    env = smpo_envs.make(f"brax:{name}", velocity_threshold=-100.0)
    assert "1 a step, 100% of them above 0" in smpo_envs.check_env(env, steps=20)


@pytest.mark.filterwarnings("ignore")
def test_brax_by_name():
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    for name, expected in {
        "brax:antt": "did you mean brax:ant",
        "brax:fast": "no cost in info or metrics",
        "brax:reacher": "no cost in info or metrics; say where it is",
    }.items():
        with pytest.raises(ValueError, match=expected):
            smpo_envs.make(name)
    with pytest.raises(ValueError, match="backend"):
        smpo_envs.make("brax:ant", backend="steam")
    with pytest.raises(ValueError, match="those with a cost of velocity are ant"):
        smpo_envs.make("brax:reacher", velocity_threshold=1.0)
    env = smpo_envs.make("brax:hopper", backend="spring", episode_length=30)
    assert env.episode_length == 30
    smpo_envs.VectorEnv(env, 2)


def test_brax_costs_are_named_by_where_they_are():
    env = from_brax(Sled(info=("heat",)), episode_length=9, cost="metrics.cost, info.heat")
    assert env.cost_names == ("cost", "heat")
    batch = smpo_envs.VectorEnv(as_safe_env(env, episode_length=5), 2)  # keeps the names
    assert batch.cost_names == ("cost", "heat") and batch.episode_length == 5
    _, seen = batch.step(batch.reset(jax.random.key(0)), jnp.zeros((2, 1)))
    assert set(seen.cost) == {"cost", "heat"} and seen.cost["cost"].shape == (2,)
    with pytest.raises(ValueError, match="there is no such value"):
        from_brax(Sled(), cost="metrics.cost,info.heat")
