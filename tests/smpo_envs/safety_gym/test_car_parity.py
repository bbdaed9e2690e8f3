"""The Car on the bare floor against recordings of the real package, from its own states.

Row 0 of a recording is left out: there the wheels touch the floor at a distance of exactly 0, and
the last bits decide which of them do (specification, section 3.2).
"""

import contextlib
from functools import lru_cache, partial

import car_recorded
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import ROUNDED_AS_FOR_USERS, double_precision

from smpo_envs.safe_env import State
from smpo_envs.safety_gym import circle, goal, run, task
from smpo_envs.safety_gym.agents import CAR
from smpo_envs.safety_gym.arena import Arena
from smpo_envs.safety_gym.goal import GoalState
from smpo_envs.safety_gym.worlds import NOTHING, initial_world, standing

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECORDINGS = golden.names("CarGoal0*") + golden.names("CarCircle*") + golden.names("CarRun0*")
POSE = ("start", "offset", "quaternion", "ball")
ACCELEROMETER, GOAL_LIDAR = slice(0, 3), slice(24, 40)


class Played:
    """The functions of a task, e.g. `CarGoal0`."""

    def __init__(self, name):
        what = name.removeprefix("Car")
        level = int(what[-1])
        if what.startswith("Goal"):
            place = goal.LEVELS[level]
            self.step = partial(task.step, goal.TASK, place)
            self.observe = lambda state, motion: task.observe(goal.TASK, place, state, motion)
            self.state = self._goal
        elif what.startswith("Circle"):
            self.step = partial(circle.step, circle.LEVELS[level])
            self.observe = lambda state, motion: circle.observe(motion)
            self.state = lambda world, _: circle.CircleState(world)
        else:
            self.step = run.step
            self.observe = lambda state, motion: run.observe(motion)
            self.state = lambda world, _: run.RunState(world)

    def at(self, car, place):
        """What `step` takes; only the pipeline state matters to it."""
        zero = jnp.zeros(())
        state = self.state(initial_world(NOTHING, car), place)
        return State(pipeline_state=state, obs=zero, reward=zero, done=zero)

    @staticmethod
    def _goal(world, place):
        around = Arena(world, {})
        return GoalState(around, place, goal.distances(around, place), jax.random.key(0))


@lru_cache
def recording(name):
    return golden.recording(name)


def goals(r):
    """Where the goal is, or something without meaning."""
    places = r.get("goal_pos", np.zeros((len(r["qpos"]), 3)))
    return jnp.asarray(places[:, :2], jnp.result_type(float))


def robot_of(state):
    return getattr(state, "arena", state).world.robot


def task_of(name):
    """The task that a recording is of."""
    return name.split("_")[0]


@lru_cache
def compiled_steps(task_name, double):
    """One step from each of many states; all recordings of a task share the program."""
    played = Played(task_name)

    def step(car, place, action):
        after = played.step(played.at(car, place), action)
        return after.replace(pipeline_state=robot_of(after.pipeline_state))

    # In a step of CarCircle2 round-off decides where the solver stops, by 1.5e-4 m.
    options = None if double else ROUNDED_AS_FOR_USERS
    return jax.jit(jax.vmap(step), compiler_options=options)


@lru_cache
def one_step_each(name, double):
    """One step from every recorded state but the first, with the recorded action."""
    with double_precision() if double else contextlib.nullcontext():
        r = recording(name)
        given = jax.tree.map(lambda x: x[1:-1], (car_recorded.cars(r), goals(r)))
        action = jnp.asarray(r["action"][1:], jnp.result_type(float))
        return jax.tree.map(np.asarray, compiled_steps(task_of(name), double)(*given, action))


def errors(seen, expected, r):
    """Absolute differences of observations, without the lidar of a goal drawn by each side."""
    error = np.abs(np.asarray(seen) - expected)
    if "goal_pos" in r:
        met = r["goal_met"][-len(error) :]
        error[np.ix_(met, np.arange(error.shape[1])[GOAL_LIDAR])] = 0
    return error


def spread(r, of):
    """By how much versions of the simulator differ in each step, three times.

    Mostly 0; where they stop before the solution is exact, it is more.
    """
    versions = [r[f"spread_{version}_agent_{of}"][1:] for version in ("mj337", "mj400")]
    return 3 * np.maximum(*versions)[:, None]


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_double_precision(name):
    r, ours = recording(name), one_step_each(name, True)
    poses, rates = np.maximum(1e-9, spread(r, "qpos")), np.maximum(1e-9, spread(r, "qvel"))
    with double_precision():
        theirs = jax.tree.map(lambda x: np.asarray(x[2:]), car_recorded.cars(r))
    for of, mine, recorded in zip(theirs._fields, ours.pipeline_state, theirs, strict=True):
        allowed = poses if of in POSE else rates
        assert np.all(np.abs(mine - recorded) < allowed), of
    error = errors(ours.obs, r["obs"][2:], r)
    # The damping of contacts turns an error of the rates into one of the acceleration.
    assert np.all(error[:, ACCELEROMETER] < 200 * rates)
    assert np.all(error[:, 3:] < rates)
    assert np.all(np.abs(ours.reward - r["reward"][1:]) < np.maximum(1e-9, 60 * poses[:, 0]))
    assert np.mean(np.max(error[:, 3:], axis=1) < 1e-9) > 0.99


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_single_precision(name):
    r, ours = recording(name), one_step_each(name, False)
    theirs = jax.tree.map(lambda x: np.asarray(x[2:]), car_recorded.cars(r))
    for of, mine, recorded in zip(theirs._fields, ours.pipeline_state, theirs, strict=True):
        if of in POSE:
            assert_allclose(mine, recorded, rtol=0, atol=5e-6, err_msg=of)
    error = errors(ours.obs, r["obs"][2:], r)
    assert np.median(np.max(error, axis=1)) < 5e-4 and np.max(error[:, 3:]) < 1e-3
    assert_allclose(ours.reward, r["reward"][1:], rtol=0, atol=1e-4 if "Run" in name else 1e-5)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_charges_and_meets_goals_as_recorded(name, double):
    r, ours = recording(name), one_step_each(name, double)
    assert_array_equal(ours.info["cost"], r["cost"][1:])
    charged = {key for key in r if key.startswith("cost_")}
    assert set(ours.metrics) - {"goal_met"} == charged
    for key in charged:
        assert_array_equal(ours.metrics[key], r[key][1:], err_msg=key)
    if "goal_pos" in r:
        assert_array_equal(ours.metrics["goal_met"], r["goal_met"][1:])
    assert not np.any(ours.done)


@pytest.mark.parametrize("name", RECORDINGS)
def test_observation_of_every_recorded_state(name):
    # But for the accelerometer, which needs forces that are not recorded.
    played, r = Played(task_of(name)), recording(name)
    with double_precision():

        def observe(car, place):
            state = played.at(car, place).pipeline_state
            world = initial_world(NOTHING, car)
            return played.observe(state, standing(world))

        obs = jax.jit(jax.vmap(observe))(car_recorded.cars(r), goals(r))
    # Quaternions are recorded to 5e-13, and the ball turns at up to 20 rad/s.
    assert_allclose(obs[:, 3:], r["obs"][:, 3:], rtol=0, atol=5e-11)


@lru_cache
def compiled_rollout(task_name):
    played = Played(task_name)

    def follow(car, inputs):
        place, action = inputs
        after = played.step(played.at(car, place), action)
        car = robot_of(after.pipeline_state)
        return car, (car, after.obs, after.reward, after.info["cost"])

    return jax.jit(partial(jax.lax.scan, follow))


@pytest.mark.parametrize("name", RECORDINGS)
def test_whole_trajectory_in_double_precision(name):
    # Two versions of the simulator stay within 3e-12 of each other, the third within 1e-7 to 1e-2.
    r = recording(name)
    with double_precision():
        first = jax.tree.map(lambda x: x[1], car_recorded.cars(r))
        inputs = goals(r)[1:-1], jnp.asarray(r["action"][1:])
        _, (cars, obs, reward, cost) = compiled_rollout(task_of(name))(first, inputs)
        theirs = jax.tree.map(lambda x: np.asarray(x[2:]), car_recorded.cars(r))
    for of in ("offset", "quaternion", "ball"):
        assert_allclose(getattr(cars, of), getattr(theirs, of), rtol=0, atol=1e-8, err_msg=of)
    assert np.max(errors(obs, r["obs"][2:], r)[:, 3:]) < 1e-6
    assert_allclose(reward, r["reward"][1:], rtol=0, atol=1e-8)
    assert_array_equal(cost, r["cost"][1:])


def test_the_recordings_have_goals_and_both_sides_of_the_walls():
    assert sum(recording(name).get("goal_met", np.zeros(1)).sum() for name in RECORDINGS) >= 4
    for task_name in ("Circle1", "Circle2", "Run0"):
        charged = [recording(name)["cost"].mean() for name in RECORDINGS if task_name in name]
        assert any(0 < share < 1 for share in charged)


def test_masses_are_those_of_the_compiled_model():
    # Specification, section 3.2: masses of body, wheels and ball, and moments of inertia.
    from smpo_envs.safety_gym.car_body import MASSES

    total = 0.0239 + 2 * 0.00196349540849362 + 0.00261799387799149
    assert_allclose(MASSES.total, total, rtol=1e-12)
    assert_allclose([MASSES.wheel, MASSES.ball], [2.45436926061703e-6, 2.61799387799149e-6])


def test_a_car_that_nobody_drives_stays_where_it_is():
    car = CAR.at_rest(jnp.zeros(2), jnp.float32(0.3))
    still, _ = jax.jit(
        lambda car: jax.lax.scan(
            lambda c, _: (c.simulate_free(jnp.zeros(2))[0], None), car, length=50
        )
    )(car)
    assert np.max(np.abs(still.position)) < 1e-3
    assert_allclose(still.height, 0.099886, atol=2e-5)
