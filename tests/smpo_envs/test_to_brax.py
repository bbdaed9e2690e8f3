"""Our tasks behind brax's interface, used by brax's own trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs

pytest.importorskip("brax", reason="needs the extra 'brax'")
pytestmark = pytest.mark.filterwarnings("ignore")  # brax's own


def test_adapter_shows_the_same_environment():
    from brax.envs.base import Env

    from smpo_envs import to_brax

    env = smpo_envs.make("PointGoal1")
    adapted = to_brax(env)
    assert isinstance(adapted, Env)
    assert (adapted.observation_size, adapted.action_size) == (60, 2)

    def step_once(env, key):
        return env.step(env.reset(key), jnp.array([1.0, -1.0]))

    @jax.jit
    def both(key):
        # brax hands out raw keys.
        return step_once(env, key), step_once(adapted, jax.random.key_data(key))

    ours, theirs = both(jax.random.key(0))
    np.testing.assert_array_equal(ours.obs, theirs.obs)
    assert theirs.info["cost"] == ours.info["cost"]
    assert theirs.metrics["cost"] == ours.info["cost"]
    assert set(theirs.metrics) == {"cost", "cost_hazards", "cost_sum", "goal_met"}


def test_several_costs_are_logged_by_their_names():
    env = smpo_envs.to_brax(smpo_envs.make("ProbeSpending"))
    state = env.step(env.reset(jax.random.key(0)), jnp.array([0.25, 0.5]))
    assert state.metrics == {"first": 0.25, "second": 0.5, "cost_sum": 0.75}


def test_what_wrappers_note_outlives_steps_of_an_environment_that_knows_nothing_of_it():
    from brax.envs import training

    zero = jnp.zeros(())
    # Its steps make a new `info`, as many do.
    mine = smpo_envs.Environment(
        lambda key: smpo_envs.State((), jnp.ones(1), zero, zero, info={"cost": zero}),
        lambda state, action: smpo_envs.State(
            (), state.obs, zero, zero, info={"cost": jnp.abs(action[0])}
        ),
        observation_size=1,
        action_size=1,
        episode_length=100,
    )
    env = training.wrap(smpo_envs.to_brax(mine), episode_length=3)

    @jax.jit
    def play(keys):
        def step(state, _):
            state = env.step(state, jnp.full((2, 1), 0.5))
            return state, (state.info["truncation"], state.info["episode_metrics"]["cost"])

        return jax.lax.scan(step, env.reset(keys), length=6)[1]

    truncation, cost = play(jax.random.split(jax.random.PRNGKey(0), 2))
    np.testing.assert_array_equal(truncation[:, 0], [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(cost[:, 0], [0.5, 1.0, 1.5, 0.5, 1.0, 1.5])


def test_brax_ppo_trains_on_our_task():
    from brax.training.agents.ppo import train as ppo

    from smpo_envs import to_brax

    seen = {}
    ppo.train(
        environment=to_brax(smpo_envs.make("PointCircle1")),  # the quickest to compile with a cost
        num_timesteps=64,
        episode_length=16,
        num_envs=4,
        batch_size=4,
        num_minibatches=1,
        unroll_length=8,
        num_updates_per_batch=1,
        num_evals=2,
        num_eval_envs=4,
        progress_fn=lambda steps, metrics: seen.update({steps: metrics}),
    )
    last = seen[max(seen)]
    assert max(seen) >= 64
    assert np.isfinite(last["eval/episode_reward"])
    assert last["eval/episode_cost"] == last["eval/episode_cost_sum"] >= 0
