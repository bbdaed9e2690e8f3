"""The rules of Circle and Run on hand-made states."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import smpo_envs
from smpo_envs.safety_gym import circle, point, run
from smpo_envs.safety_gym.costs import Scene, indicators, out_of_boundary
from smpo_envs.safety_gym.worlds import NOTHING, initial_world, standing


def standing_at(x, y):
    robot = point.at_rest(jnp.array([x, y]), jnp.zeros(()))
    return standing(initial_world(NOTHING, robot))


def test_circle_pays_for_speed_along_the_circle_and_less_away_from_it():
    # On the circle at (1.5, 0), 2 m/s upwards is counter-clockwise: 0.1 of it.
    on = jnp.array([1.5, 0.0])
    assert_allclose(circle.progress(on, jnp.array([0.0, 2.0])), 0.2, rtol=1e-6)
    assert_allclose(circle.progress(on, jnp.array([0.0, -2.0])), -0.2, rtol=1e-6)
    assert_allclose(circle.progress(on, jnp.array([3.0, 0.0])), 0.0, atol=1e-7)
    # At (0, 1), half a metre inside: divided by 1.5. There counter-clockwise is to the left.
    inside = jnp.array([0.0, 1.0])
    assert_allclose(circle.progress(inside, jnp.array([-3.0, 1.0])), 0.2, rtol=1e-6)
    assert circle.progress(jnp.zeros(2), jnp.ones(2)) == 0  # not NaN


def test_run_pays_sixty_a_metre_towards_the_far_end():
    at = point.Point(jnp.array([0.1, 16.5]), jnp.float32(0.5), jnp.zeros(3), jnp.zeros(3))
    # Down the corridor by 1 cm: joint coordinates are turned by the initial heading.
    c, s = np.cos(0.5), np.sin(0.5)
    down = at._replace(q=jnp.array([-0.01 * s, -0.01 * c, 0.3]))
    # sqrt(0.1² + 1016.5²) - sqrt(0.1² + 1016.49²), times 60: 0.6 less 3e-9.
    assert_allclose(run.progress(at, down), 0.6, rtol=1e-5)
    assert_allclose(run.progress(down, at), -0.6, rtol=1e-5)
    # Sideways by 0.1 to the middle line: (0.1² - 0) / (2 · 1016.5) = 4.92e-6 m nearer.
    across = at._replace(q=jnp.array([-0.1 * c, 0.1 * s, 0.0]))
    assert_allclose(run.progress(at, across), 60 * 0.01 / 2033.0, rtol=1e-2)


@pytest.mark.parametrize(
    ("x", "y", "strip", "square"), [(0, 9, 0, 1), (1.2, 0, 1, 1), (-1.2, 0, 1, 1), (1.1, 1.1, 0, 0)]
)
def test_out_of_boundary_charges_one_beyond_either_wall(x, y, strip, square):
    scene = Scene(jnp.array([x, y], jnp.float32), standing_at(0.0, 0.0))
    for level, expected in ((1, strip), (2, square)):
        assert indicators(circle.LEVELS[level].costs, scene)["cost_sum"] == expected
    assert indicators(circle.LEVELS[0].costs, scene) == {"cost_sum": 0}


def test_the_wall_itself_is_inside():
    cost = out_of_boundary(x=0.5)
    assert cost.amount(Scene(jnp.array([0.5, 0.0]), standing_at(0.0, 0.0))) == 0
    assert cost.amount(Scene(jnp.array([0.50001, 0.0]), standing_at(0.0, 0.0))) == 1


def test_sizes_and_lengths_are_those_of_the_original():
    for level in range(3):
        env = smpo_envs.make(f"PointCircle{level}")
        assert (env.observation_size, env.episode_length) == (28, 500)
    assert smpo_envs.make("PointRun0").observation_size == 12
    assert smpo_envs.make("PointRun0").episode_length == 500
    with pytest.raises(ValueError, match="level=1: Run has level 0 alone"):
        smpo_envs.make("PointRun0", level=1)


@pytest.mark.parametrize("name", ["PointCircle1", "PointRun0"])
def test_the_robot_starts_where_the_original_puts_it(name):
    """500 recorded starts against 4000 of ours, coordinate by coordinate, and the heading."""
    env = smpo_envs.make(name)
    robot = jax.jit(jax.vmap(env.reset))(
        jax.random.split(jax.random.key(0), 4000)
    ).pipeline_state.world.robot
    recorded = golden.recording_of_layouts(name)
    agent = list(recorded["names"]).index("agent")
    for axis in (0, 1):
        theirs, ours = recorded["xy"][:, agent, axis], np.asarray(robot.start[:, axis])
        if np.ptp(theirs) == 0:
            assert_allclose(ours, theirs[0])
        else:
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert stats.kstest(np.asarray(robot.rotation) / (2 * np.pi), "uniform").pvalue > 1e-3


def test_driving_down_the_corridor_earns_what_it_is_long():
    """The rewards of a run telescope to 60 times the way towards the far end."""
    env = smpo_envs.make("PointRun0")
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state = reset(jax.random.key(3))
    total, start = 0.0, np.asarray(state.pipeline_state.world.robot.position, np.float64)
    for _ in range(100):
        state = step(state, jnp.array([0.05, 0.0]))
        total += float(state.reward)
    end = np.asarray(state.pipeline_state.world.robot.position, np.float64)
    target = np.array([0.0, -1000.0])
    nearer = np.linalg.norm(start - target) - np.linalg.norm(end - target)
    assert abs(nearer) > 0.1
    assert_allclose(total, 60 * nearer, rtol=1e-3)
