"""Circle and Run against recordings of the real package, from its own states.

Nothing but the robot moves there, so all that separates the two is round-off, which the turn servo
magnifies (specification, section 11; see `test_goal_parity`).
"""

import contextlib
from functools import lru_cache, partial

import golden
import jax
import jax.numpy as jnp
import numpy as np
import point_open
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.safe_env import State
from smpo_envs.safety_gym import circle, run
from smpo_envs.safety_gym.costs import Scene, indicators

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECORDINGS = golden.names("PointCircle*") + golden.names("PointRun*")


class Task:
    """The functions of a task, e.g. `PointRun0`."""

    def __init__(self, name):
        if "Circle" in name:
            level = circle.LEVELS[int(name[-1])]
            self.state, self.costs, self.observe = circle.CircleState, level.costs, circle.observe
            self.reset, self.step = partial(circle.reset, level), partial(circle.step, level)
        else:
            self.state, self.costs, self.observe = run.RunState, run.COSTS, run.observe
            self.reset, self.step = run.reset, run.step

    def at(self, world):
        """What `step` takes; only the pipeline state matters to it."""
        zero = jnp.zeros(())
        return State(pipeline_state=self.state(world), obs=zero, reward=zero, done=zero)


@lru_cache
def recording(name):
    return golden.recording(name)


task_called = lru_cache(Task)  # one of each, which shares what is compiled


def task_of(name):
    """The task that a recording is of."""
    return task_called(name.split("_")[0])


@lru_cache
def compiled_steps(task):
    """One step from each of many states; all recordings of a task share the program."""
    return jax.jit(jax.vmap(lambda world, action: task.step(task.at(world), action)))


@lru_cache
def one_step_each(name, double):
    """One step from every recorded state with the recorded action."""
    with double_precision() if double else contextlib.nullcontext():
        r = recording(name)
        worlds = jax.tree.map(lambda x: x[:-1], point_open.worlds(r))
        action = jnp.asarray(r["action"], jnp.result_type(float))
        return jax.tree.map(np.asarray, compiled_steps(task_of(name))(worlds, action))


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_double_precision(name):
    r, ours = recording(name), one_step_each(name, True)
    assert_allclose(ours.obs, r["obs"][1:], rtol=0, atol=1e-9)
    assert_allclose(ours.reward, r["reward"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_single_precision(name):
    r, ours = recording(name), one_step_each(name, False)
    error = np.abs(ours.obs - r["obs"][1:])
    # As in `test_goal_parity`: the rates are those of a servo that magnifies round-off.
    assert np.median(np.max(error, axis=1)) < 5e-5
    assert np.max(error[:, 9:]) < 5e-5 and np.max(error) < 0.5
    # Run pays 60 per metre, and coordinates of 8 to 16 m are known to 1e-6. Circle pays 0.1 per
    # m/s, and velocities are good to 9e-5 at worst (specification, section 11).
    assert_allclose(ours.reward, r["reward"], rtol=0, atol=1e-4 if "Run" in name else 1e-5)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_charges_as_recorded(name, double):
    r, ours = recording(name), one_step_each(name, double)
    assert_array_equal(ours.info["cost"], r["cost"])
    recorded = {key for key in r if key.startswith("cost_")}
    assert set(ours.metrics) == recorded
    for key in recorded:
        assert_array_equal(ours.metrics[key], r[key], err_msg=key)
    assert not np.any(ours.done)


def test_the_recordings_include_both_sides_of_the_walls():
    charged = {name: recording(name)["cost"].mean() for name in RECORDINGS}
    assert any(0 < share < 1 for name, share in charged.items() if "Circle1" in name)
    assert any(0 < share < 1 for name, share in charged.items() if "Circle2" in name)
    assert any(0 < share < 1 for name, share in charged.items() if "Run0" in name)


@pytest.mark.parametrize("name", RECORDINGS)
def test_observation_and_costs_of_every_recorded_state(name):
    task, r = task_of(name), recording(name)
    with double_precision():
        motions = jax.vmap(point_open.motion)(point_open.worlds(r))
        obs = jax.jit(jax.vmap(task.observe))(motions)
        assert_allclose(obs[:, 3:], r["obs"][:, 3:], rtol=0, atol=2e-11)

        positions = jax.vmap(lambda robot: robot.position)(motions.world.robot)
        assert_allclose(positions, r["agent_pos"][:, :2], rtol=0, atol=1e-12)
        charged = jax.vmap(partial(indicators, task.costs))(Scene(positions, motions))
        assert_array_equal(charged["cost_sum"][1:], r["cost"])


@pytest.mark.parametrize("name", [name for name in RECORDINGS if "_bang_" in name])
def test_whole_trajectory_in_double_precision(name):
    task, r = task_of(name), recording(name)
    with double_precision():
        world = jax.tree.map(lambda x: x[0], point_open.worlds(r))
        first = task.reset(jax.random.key(0)).replace(pipeline_state=task.state(world))

        def follow(state, action):
            after = task.step(state, action)
            return after, (after.obs, after.reward, after.info["cost"])

        _, (obs, reward, cost) = jax.jit(partial(jax.lax.scan, follow))(
            first, jnp.asarray(r["action"])
        )
        assert_allclose(obs, r["obs"][1:], rtol=0, atol=1e-6)
        assert_allclose(reward, r["reward"], rtol=0, atol=1e-6)
        assert_array_equal(cost, r["cost"])
