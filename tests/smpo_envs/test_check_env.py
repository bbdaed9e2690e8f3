"""Environments that break the contract in the usual ways, and what they are told."""

import jax
import jax.numpy as jnp
import pytest

import smpo_envs
from smpo_envs.contract import check_shapes
from smpo_envs.safe_env import Environment, State

ZERO = jnp.zeros(())


def task(
    obs=lambda key: jax.random.uniform(key, (3,)),
    cost=lambda a: jnp.abs(a[0]),
    reward=lambda a: a[0],
    done=lambda: ZERO,
    size=3,
    name="cost",
):
    """Observations are random, and the state is the key for the next one."""

    def reset(key):
        obs_key, key = jax.random.split(key)
        start = jax.tree.map(jnp.zeros_like, cost(jnp.zeros(2)))
        return State(key, obs(obs_key), ZERO, ZERO, info={name: start})

    def step(state, action):
        obs_key, key = jax.random.split(state.pipeline_state)
        return state.replace(
            pipeline_state=key,
            obs=obs(obs_key),
            reward=reward(action),
            done=done(),
            info={name: cost(action)},
        )

    return Environment(reset, step, size, 2, 10)


BROKEN = {
    "costs in a table": (
        {"cost": lambda a: jnp.stack([a, a])},
        r"reset: info\['cost'\]: expected a float scalar, 0 or more, or .*, got float32\[2, 2\]",
    ),
    "several costs by name": (
        {"cost": lambda a: {"speed": a[0], "force": a[1]}},
        r"info\['cost'\]: expected a float scalar, 0 or more, or a float vector .*, got a dict",
    ),
    "no cost": ({"name": "costs"}, r"info\['cost'\] is missing; info has 'costs'"),
    "image": (
        {"obs": lambda key: jnp.ones((8, 8, 1)), "size": 64},
        r"obs: expected a float vector of observation_size=64, got float32\[8, 8, 1\]",
    ),
    "observation by name": ({"obs": lambda key: {"x": jnp.ones(3)}}, "obs: expected .* got a dict"),
    "another size": ({"size": 4}, r"observation_size=4, got float32\[3\]"),
    "true and false": (
        {"done": lambda: jnp.zeros((), bool)},
        r"step: done: expected a float scalar, 0 or 1, got bool\[\]",
    ),
    "whole rewards": (
        {"reward": lambda a: jnp.int32(1)},
        r"step: reward: expected a float scalar, got int32\[\]",
    ),
    "a reward of one entry": ({"reward": lambda a: a[:1]}, r"step: reward: .* got float32\[1\]"),
    "an action as an index": (
        {"reward": lambda a: jnp.arange(3.0)[a[0]]},
        r"step\(state, action \[2\]\) failed: TypeError",
    ),
}


@pytest.mark.parametrize("changes, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_contract_is_told_where_the_environment_enters(changes, message):
    with pytest.raises(ValueError, match=message):
        smpo_envs.VectorEnv(task(**changes), 8)


def test_a_step_must_return_what_a_reset_does():
    def step(state, action):
        return state.replace(info={**state.info, "extra": ZERO})

    broken = Environment(task().reset, step, 3, 2, 10)
    with pytest.raises(ValueError, match=r"state\.info\['extra'\]: only step has it"):
        check_shapes(broken)


def test_a_sound_environment_passes_and_is_told_how_cost_counts():
    said = smpo_envs.check_env(task())
    assert "plain sum of info['cost']" in said and "up to and with the last" in said
    assert "cut after 10 steps" in said


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cost": lambda a: -jnp.abs(a[0])}, r"info\['cost'\] is -0.* costs must be 0 or more"),
        ({"cost": lambda a: 1.0 / (0.0 * a[0])}, r"info\['cost'\] is not finite after step 1"),
        ({"reward": lambda a: jnp.log(-1.0 + 0.0 * a[0])}, "reward is not finite after step 1"),
    ],
)
def test_wrong_values_are_found_by_playing(changes, message):
    with pytest.raises(ValueError, match=message):
        smpo_envs.check_env(task(**changes))


def test_discrete_actions_are_played_as_one_hot_vectors():
    """Costs are negative for anything else."""

    def step(state, action):
        is_one_hot = (action.max() == 1) & (action.sum() == 1) & (action.min() == 0)
        return state.replace(reward=action[0], info={"cost": jnp.where(is_one_hot, 0.5, -1.0)})

    env = Environment(task().reset, step, 3, 4, 10, discrete=True)
    with pytest.warns(UserWarning, match="observations never change"):
        assert "0.5 a step" in smpo_envs.check_env(env)
    with pytest.raises(ValueError, match="discrete=4 must be True or False; action_size is"):
        check_shapes(Environment(task().reset, task().step, 3, 2, 10, discrete=4))  # type: ignore


def test_a_key_used_twice_is_found():
    def reset(key):
        obs = jax.random.uniform(key, (3,)) + jax.random.uniform(key, (3,))
        return State((), obs, ZERO, ZERO, info={"cost": ZERO})

    def step(state, action):
        return state.replace(reward=action[0])

    with pytest.raises(ValueError, match="a key is used twice"):
        smpo_envs.check_env(Environment(reset, step, 3, 2, 10))


def test_episodes_that_all_begin_alike_are_warned_of():
    with (
        pytest.warns(UserWarning, match="same state for different keys"),
        pytest.warns(UserWarning, match="observations never change"),
    ):
        smpo_envs.check_env(smpo_envs.make("ProbeTradeoff"))


def test_the_cost_of_an_episode_ends_with_its_last_step():
    """Three steps of cost 1, 2, 4 that terminate: 7, whether or not the next one begins at once."""

    def reset(key):
        return State((ZERO, key), ZERO[None], ZERO, ZERO, info={"cost": ZERO})

    def step(state, action):
        t, key = state.pipeline_state
        return state.replace(
            pipeline_state=(t + 1, key),
            obs=(t + 1)[None],
            reward=0.0 * action[0],
            done=jnp.asarray(t == 2, float),
            info={"cost": 2.0**t},
        )

    from smpo_jax.training.evaluation import evaluate

    for length in (3, 10):  # cut by the time limit at the same step, or terminated before it
        env = smpo_envs.VectorEnv(Environment(reset, step, 1, 1, length), 2, stagger=False)
        played = evaluate(lambda obs, key: jnp.zeros((2, 1)), env, jax.random.key(0), 4)
        assert (played.cost == 7).all() and (played.length == 3).all()
