"""The push box, gremlins on their springs, and the shortcuts past the contact solver."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.safety_gym import (
    boxes,
    collision,
    gremlins,
    physics,
    point,
    point_touches,
    push,
    task,
    touches,
)
from smpo_envs.safety_gym.agents import CAR, POINT
from smpo_envs.safety_gym.broadphase import Priority, Ranking
from smpo_envs.safety_gym.worlds import Solids, World, initial_world, standing

pytestmark = pytest.mark.usefixtures("quick_compilation")


def rotations(rng, number, tilt):
    """Rotation matrices about the vertical, then by up to `tilt` about another axis; [3, 3, n]."""
    yaw, lean = rng.uniform(0, 2 * np.pi, number), rng.uniform(-tilt, tilt, number)
    c, s, zero, one = np.cos(yaw), np.sin(yaw), np.zeros(number), np.ones(number)
    about_z = np.array([[c, -s, zero], [s, c, zero], [zero, zero, one]])
    c, s = np.cos(lean), np.sin(lean)
    about_x = np.array([[one, zero, zero], [zero, c, -s], [zero, s, c]])
    return np.einsum("ijn,jkn->ikn", about_z, about_x)


def test_the_two_corners_that_are_looked_at_are_the_nearest_ones():
    rng = np.random.default_rng(0)
    corners, number = boxes.PUSH_BOX.corners, 200
    assert corners is not None
    axes, position = rotations(rng, number, 0.1), rng.normal(size=(3, number))
    where = position + rng.uniform(-0.6, 0.6, (3, number)) * [[1], [1], [0]]
    every = touches._all_corners(corners, jnp.asarray(position), jnp.asarray(axes)).center
    two = touches.nearest_corners(corners, *map(jnp.asarray, (position, axes, where))).center
    distances = np.linalg.norm(every - where[:, None], axis=0)
    chosen = np.linalg.norm(two - where[:, None], axis=0)
    assert every.shape == (3, 4, number) and two.shape == (3, 2, number)
    assert_allclose(np.sort(chosen, axis=0), np.sort(distances, axis=0)[:2], atol=0.02)


@pytest.mark.parametrize("number", [1, 2, 3, 8, 33])
def test_normals_of_boxes_are_unit_vectors_in_batches_of_any_size(number):
    rng = np.random.default_rng(number)
    first, second = (
        collision.Box(
            jnp.asarray(rng.normal(size=(3, number)), jnp.float32),
            jnp.asarray(rotations(rng, number, tilt), jnp.float32),
        )
        for tilt in (0.0, 0.01)
    )

    @jax.jit
    def touch(first, second):
        return collision.box_and_box(
            first, point_touches.ARROW, second, collision.Half.square(0.1, 0.2)
        )

    seen = touch(first, second)
    assert_allclose(np.linalg.norm(seen.normal, axis=0), 1, atol=1e-5)
    assert np.all(np.isfinite(seen.point))


def test_the_deepest_way_out_is_taken_from_inside_a_box():
    # 0.05 from the face at +x, 0.12 from that at +y, 0.2 from top and bottom.
    box = collision.Box(jnp.zeros((3, 1)), jnp.eye(3)[:, :, None])
    center = jnp.array([[0.15], [0.08], [0.0]])
    touch = collision.sphere_and_box(center, 0.1, box, collision.Half.square(0.2, 0.2))
    assert_allclose(touch.normal[:, 0, 0], [-1, 0, 0], atol=1e-7)  # from the sphere to the box
    assert_allclose(touch.distance[0, 0], -0.05 - 0.1, rtol=1e-6)


def test_a_sphere_touches_a_cylinder_at_its_side_and_at_its_end():
    # Axis x, radius 0.05, 0.05 long; spheres of radius 0.1 beside it, before its end, at its rim.
    centers = jnp.array([[0.01, 0.14, 0.0], [0.12, 0.0, 0.01], [0.065, 0.0, 0.08]]).T
    cylinder = collision.Cylinder(jnp.zeros((3, 1)), jnp.array([[1.0], [0.0], [0.0]]))
    size = collision.Round(0.05, 0.025)
    touch = collision.sphere_and_cylinder(centers, 0.1, cylinder, size)
    assert_allclose(touch.distance[0], [0.14 - 0.15, 0.12 - 0.125, 0.05 - 0.1], atol=1e-6)
    expected = [[0, -1, 0], [-1, 0, 0], [-0.8, 0, -0.6]]
    assert_allclose(touch.normal[:, 0].T, expected, atol=1e-6)


def test_a_wheel_touches_a_box_with_its_tread_with_its_end_and_not_at_all():
    # Axis x, radius 0.05, 0.05 long; boxes of half size 0.1 beside it, before its end, above.
    places = jnp.array([[0.013, 0.148, 0.017], [0.122, 0.011, 0.007], [0.0, 0.12, 0.2]]).T
    box = collision.Box(places, jnp.broadcast_to(jnp.eye(3)[:, :, None], (3, 3, 3)))
    wheel = collision.Cylinder(jnp.zeros((3, 1)), jnp.array([[1.0], [0.0], [0.0]]))
    half, size = collision.Half(0.1, 0.1, 0.1), collision.Round(0.05, 0.025)
    touch = collision.cylinder_and_box(wheel, size, box, half)
    assert_allclose(touch.distance[0, :2], [-0.002, -0.003], atol=1e-6)
    assert touch.distance[0, 2] > 0
    # The third box's lower edge is at (0.02, 0.1) from the axis.
    apart = collision.cylinder_apart_from_box(wheel, size, box, half)
    assert_allclose(apart, [-0.002, -0.003, np.hypot(0.02, 0.1) - 0.05], atol=1e-6)
    # As MuJoCo 2.3.3 has it: not quite midway between the surfaces, at 0.048 and 0.05 and at 0.022
    # and 0.025, and the normal of the tread 9e-4 aslant.
    assert_allclose(touch.normal[:, 0, :2].T, [[0, 1, 0], [1, 0, 0]], atol=1e-3)
    assert_allclose(touch.point[:2, 0, 0], [0.0026, 0.049333], atol=1e-5)
    assert_allclose(touch.point[0, 0, 1], 0.0244, atol=1e-5)


def near_a_standing_vase(number):
    """Robots in many states, each with a vase at rest about where it will be in a moment."""
    rng = np.random.default_rng(5)
    angle, gap = rng.uniform(0, 2 * np.pi, number), rng.uniform(0.18, 0.4, number)
    places = np.stack([gap * np.cos(angle), gap * np.sin(angle), rng.uniform(0, 6, number)], -1)
    robots = point.Point(
        jnp.zeros((number, 2)),
        jnp.asarray(rng.uniform(0, 6, number), jnp.float32),
        jnp.zeros((number, 3)),
        jnp.asarray(rng.uniform(-1, 1, (number, 3)) * [1, 1, 3], jnp.float32),
    )
    vases = jax.vmap(partial(boxes.at_rest, boxes.VASE))(
        jnp.asarray(places[:, None, :2], jnp.float32), jnp.asarray(places[:, None, 2], jnp.float32)
    )
    world = World(robots, vases, jnp.zeros((number, 0, 2)))
    return world, jnp.asarray(rng.uniform(-1, 1, (number, 2)), jnp.float32)


def test_looking_ahead_skips_the_solver_only_where_it_would_change_nothing():
    solids = Solids(boxes.VASE)
    world, action = near_a_standing_vase(512)
    ranking = Ranking(jnp.full((512, 1), int(Priority.IN_REACH)), jnp.full((512, 1), 0.5))
    free = jax.jit(jax.vmap(lambda w, a: w.robot.simulate_free(a)[0]))(world, action)
    meets = jax.jit(partial(physics._look_ahead, solids, 1))(
        jnp.zeros(512, bool), world, action, ranking, free
    )
    untouched = jax.vmap(standing)(world)
    solved = jax.jit(partial(physics._simulate_contacts, solids, 1))(
        untouched, world, action, ranking
    )
    pushed = np.abs(solved.world.boxes.position - world.boxes.position)[:, 0, :2].max(1)
    apart = np.abs(solved.world.robot.q - free.q).max(1)
    meets = np.asarray(meets)
    assert 100 < meets.sum() < 412
    assert np.max(apart[~meets]) < 1e-5 and np.max(pushed[~meets]) < 1e-5
    assert not np.any(np.asarray(solved.box_contacts)[~meets])
    assert np.mean(pushed[meets] > 1e-4) > 0.9  # the others are just grazed


def test_a_pushed_gremlin_returns_to_the_common_motion():
    with double_precision():
        world = initial_world(
            Solids(gremlins.GREMLIN),
            point.at_rest(jnp.full(2, 30.0), jnp.zeros(())),
            places=jnp.array([[0.0, 0.0, 0.3], [2.0, 0.0, 1.0]]),
        )
        shifted = world.boxes._replace(
            position=world.boxes.position.at[0, 0].add(0.1),
            velocity=world.boxes.velocity.at[0, 0].add(-1e-3),
        )
        step = jax.jit(partial(physics.simulate, Solids(gremlins.GREMLIN)))
        motion = standing(world._replace(boxes=shifted))
        beside = []
        for _ in range(60):
            motion = step(motion.world, jnp.zeros(2))
            beside.append(np.asarray(motion.world.boxes.position - world.boxes.position))
        beside = np.array(beside)
        assert_array_equal(beside[:, 1], 0)  # the untouched one never leaves it
        # a = d (k d e - b v) with d = 0.95, from the simulator's solref (0.02, 1.5), by hand.
        e, v, expected = 0.1, -1e-3, []
        for _ in range(60):
            for _ in range(10):
                k, b = 1 / (0.95 * 0.02 * 1.5) ** 2, 2 / (0.95 * 0.02)
                v += 0.002 * 0.95 * (-k * 0.95 * e - b * v)
                e += 0.002 * v
            expected.append(e)
        assert_allclose(beside[:, 0, 0], expected, atol=1e-4)
        assert abs(beside[-1, 0, 0]) < 1e-4 < abs(beside[2, 0, 0])


def test_the_car_is_given_the_small_push_box_on_any_level():
    small = boxes.SMALL_PUSH_BOX
    for agent, body in ((CAR, small), (POINT, boxes.PUSH_BOX)):
        drawing = task.environment(push.TASK, push.LEVELS[1], agent).drawing
        assert drawing and drawing.looks["push_box"].size == body.outline
    assert_allclose(small.outline, 0.1875)  # 1.5 a, a = 0.125
