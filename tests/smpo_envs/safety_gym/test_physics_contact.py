"""Robot and vases in contact, against single steps of the real package and against mechanics."""

import contextlib
from functools import lru_cache, partial

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.safety_gym import boxes, broadphase, collision, dynamics, island, physics, point
from smpo_envs.safety_gym.point_dynamics import PointMechanics
from smpo_envs.safety_gym.worlds import Solids, World, initial_world

pytestmark = pytest.mark.usefixtures("quick_compilation")

AMONG_VASES = Solids(boxes.VASE)
WITH_CONTACT = [
    "PointGoal1_ou_s8",
    "PointGoal1_seek_s104",
    "PointGoal2_ou_s0",
    "PointGoal2_seek_s106",
]
EQUILIBRIUM = 0.09995638  # height at which the contact law holds a standing vase, as recorded


@lru_cache
def compiled():
    return jax.jit(jax.vmap(partial(physics.simulate, AMONG_VASES)))


@lru_cache
def replayed(name, double):
    """Every recorded transition from its recorded state: (ours, recording)."""
    r = golden.recording(name)
    with double_precision() if double else contextlib.nullcontext():
        worlds = jax.tree.map(lambda x: x[:-1], recorded.arenas(r).world)
        motion = compiled()(worlds, jnp.asarray(r["action"], jnp.result_type(float)))
        return jax.tree.map(np.asarray, motion), r


def errors(name, double):
    """Largest absolute differences per transition: robot's q, its v, vases' positions."""
    motion, r = replayed(name, double)
    vases = r["qpos"][1:, 3:].reshape(300, -1, 7)
    return (
        np.abs(motion.world.robot.q - r["qpos"][1:, :3]).max(1),
        np.abs(motion.world.robot.v - r["qvel"][1:, :3]).max(1),
        np.abs(motion.world.boxes.position - vases[..., :3]).max((1, 2)),
    )


@pytest.mark.parametrize("name", WITH_CONTACT)
def test_contact_steps_are_those_recorded(name):
    q, v, objects = errors(name, double=True)
    _, r = replayed(name, True)
    touched = r["agent_contact_in_step"]
    assert touched.sum() >= 7
    assert np.all(q[touched] < 1e-9) and np.all(v[touched] < 1e-9)
    assert np.all(objects[touched] < 1e-9)


@pytest.mark.parametrize("name", WITH_CONTACT)
def test_vases_slide_tilt_and_settle_as_recorded(name):
    # Not touched by the robot any more, a vase slides, hops and rocks until it stands: its
    # contacts with the floor alone, which all versions agree on. Standing vases may differ by
    # what is left when we put them to rest.
    _, r = replayed(name, True)
    speed = np.abs(r["qvel"][:, 3:]).reshape(301, -1, 6)[..., :3].max((1, 2))
    sliding = ~r["agent_contact_in_step"] & (speed[:-1] > 1e-3)
    assert sliding.sum() > 10
    _, _, objects = errors(name, double=True)
    assert np.max(objects[sliding]) < 2e-6
    assert np.median(objects[sliding]) < 1e-11


@pytest.mark.parametrize("name", WITH_CONTACT)
def test_contacts_and_moving_vases_are_charged_as_recorded(name):
    motion, r = replayed(name, True)
    recorded = r["touch_points"].sum(1) > 0
    assert_array_equal(motion.box_contacts.sum(1) > 0, recorded)
    ours = np.linalg.norm(motion.world.boxes.velocity, axis=-1) >= 1e-4
    theirs = np.linalg.norm(r["qvel"][1:, 3:].reshape(300, -1, 6)[..., :3], axis=-1) >= 1e-4
    assert np.mean(ours.any(1) == theirs.any(1)) >= 0.99


@pytest.mark.parametrize("name", WITH_CONTACT)
def test_single_precision_contact_is_close(name):
    q, _, objects = errors(name, double=False)
    _, r = replayed(name, False)
    touched = r["agent_contact_in_step"]
    assert np.median(q[touched]) < 1e-5
    assert np.median(objects[touched]) < 1e-4
    assert max(q[touched].max(), objects[touched].max()) < 2e-2  # the spread of the versions


def far_robot(vases):
    dtype = vases.position.dtype
    start = point.Point(jnp.full(2, 50.0, dtype), jnp.zeros((), dtype), jnp.zeros(3), jnp.zeros(3))
    start = jax.tree.map(lambda x: x.astype(dtype), start)
    return World(start, vases, jnp.zeros((0, 2), dtype))


def rolled(world, steps):
    """The world after some steps without a command, and on the way."""

    def step(world, _):
        motion = physics.simulate(AMONG_VASES, world, jnp.zeros(2))
        return motion.world, motion.world.boxes

    return jax.jit(lambda w: jax.lax.scan(step, w, length=steps))(world)


def test_disturbed_vase_settles_at_the_height_that_the_contact_law_holds():
    with double_precision():
        vases = boxes.at_rest(boxes.VASE, jnp.zeros((1, 2)), jnp.zeros(1))
        vases = vases._replace(velocity=jnp.array([[0.0, 0.0, -0.01]]))
        end, _ = rolled(far_robot(vases), 60)
        assert_allclose(end.boxes.position[0], [0, 0, EQUILIBRIUM], atol=1e-6)
        assert_array_equal(end.boxes.velocity, 0)  # put to rest exactly


def test_sliding_vase_is_stopped_by_friction():
    with double_precision():
        vases = boxes.at_rest(boxes.VASE, jnp.zeros((1, 2)), jnp.zeros(1))
        vases = vases._replace(velocity=jnp.array([[0.5, 0.0, 0.0]]))
        end, _ = rolled(far_robot(vases), 60)
        # Coulomb friction with coefficient 1: v²/2g = 12.7 mm; rocking and hopping lengthen it.
        assert 0.012 < end.boxes.position[0, 0] < 0.03
        assert_allclose(end.boxes.position[0, 1], 0, atol=1e-3)


def test_vases_at_rest_far_from_the_robot_stay_bit_for_bit():
    vases = boxes.at_rest(boxes.VASE, jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([0.3, 2.0]))
    end, _ = rolled(far_robot(vases), 20)
    jax.tree.map(assert_array_equal, end.boxes, vases)


def test_pushed_vase_pushes_the_next():
    with double_precision():
        vases = boxes.at_rest(boxes.VASE, jnp.array([[0.0, 0.0], [0.205, 0.0]]), jnp.zeros(2))
        vases = vases._replace(velocity=jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        end, on_the_way = rolled(far_robot(vases), 40)
        first, second = end.boxes.position[:, 0]
        assert second > 0.21 and first > 0.0
        gap = on_the_way.position[:, 1, 0] - on_the_way.position[:, 0, 0]
        assert np.min(gap) > 0.19  # never inside each other by more than a centimetre


def test_of_four_vases_those_that_the_robot_only_brushes_wait():
    """Backwards at 1.5 m/s (3 cm in a step) between three vases into the corner of a fourth."""
    robot = point.at_rest(jnp.zeros(2), jnp.array(np.pi))._replace(v=jnp.array([-1.5, 0, 0]))
    brushed = [[0.0, 0.2005, 0.0], [0.0, -0.2005, 0.0], [-0.2015, 0.1515, 0.0]]
    corner = 0.1 * np.sqrt(2)
    ahead = [0.1 + corner + 0.013, 0.0, np.pi / 4]  # the farthest of them
    for places in ([*brushed, ahead], [ahead, *brushed]):
        world = initial_world(AMONG_VASES, robot, jnp.array(places))
        motion = jax.jit(partial(physics.simulate, AMONG_VASES))(world, jnp.zeros(2))
        vase = motion.world.boxes.position[places.index(ahead), 0]
        assert vase > ahead[0] + 0.005
        gap = vase - motion.world.robot.position[0] - corner - 0.1
        assert gap > -0.01  # m


def test_three_vases_pushed_at_once_all_give_way():
    """Backwards at 1.3 m/s into the corners of three that stand around that side of the robot."""
    robot = point.at_rest(jnp.zeros(2), jnp.array(np.pi))._replace(v=jnp.array([-1.3, 0, 0]))
    corner = 0.1 * np.sqrt(2)
    away = 0.1 + corner + 0.005
    places = [[away * np.cos(a), away * np.sin(a), a + np.pi / 4] for a in (-1.0, 0.0, 1.0)]
    world = initial_world(AMONG_VASES, robot, jnp.array([[5.0, 5.0, 0.0], *places]))
    motion = jax.jit(partial(physics.simulate, AMONG_VASES))(world, jnp.zeros(2))
    moved = motion.world.boxes.position[1:, :2] - jnp.array(places)[:, :2]
    assert np.all(np.linalg.norm(moved, axis=1) > 0.003)
    sphere = motion.world.robot.position
    to_robot = motion.world.boxes.position[1:, :2] - sphere
    assert np.all(np.linalg.norm(to_robot, axis=1) > 0.1 + corner - 0.01)


@pytest.mark.slow  # the contract of tasks with vases holds a batch against one alone, too
def test_batch_equals_one_by_one():
    _, r = replayed("PointGoal2_ou_s0", True)
    with double_precision():
        worlds = jax.tree.map(lambda x: x[260:300], recorded.arenas(r).world)
        action = jnp.asarray(r["action"][260:300])
        together = compiled()(worlds, action)
        one = jax.jit(partial(physics.simulate, AMONG_VASES))
        for k in (7, 9, 20, 37):
            alone = one(jax.tree.map(lambda x, k=k: x[k], worlds), action[k])
            jax.tree.map(
                lambda a, b, k=k: assert_allclose(a, b[k], rtol=0, atol=1e-10), alone, together
            )


@pytest.mark.slow
def test_random_driving_among_many_vases_never_explodes():
    import smpo_envs

    env = smpo_envs.VectorEnv(smpo_envs.make("PointGoal2"), 256)

    def step(carry, _):
        state, key = carry
        action_key, key = jax.random.split(key)
        turn, drive = jax.random.uniform(action_key, (2, 256, 1), minval=-1.0)
        state, seen = env.step(state, jnp.concatenate([jnp.abs(drive), 0.3 * turn], axis=1))
        vases = state.env.pipeline_state.arena.world.boxes
        worst = jnp.stack(
            [
                vases.position[..., 2].max(),
                -vases.position[..., 2].min(),
                jnp.abs(vases.velocity).max(),
            ]
        )
        return (state, key), (worst, jnp.isfinite(seen.next_obs).all())

    reset_key, key = jax.random.split(jax.random.key(0))
    run = jax.jit(lambda c: jax.lax.scan(step, c, length=4000))
    _, (worst, finite) = run((env.reset(reset_key), key))
    top, bottom, speed = np.max(worst, axis=0)
    assert np.all(finite)
    assert top < 0.4 and bottom < -0.05 and speed < 20.0


def test_a_vase_thought_out_of_reach_is_never_touched():
    # Robots of all speeds around a standing vase: those that `simulate` moves on their own are
    # moved among contacts, too, and nothing happens.
    number, mechanics = 1024, PointMechanics()
    place, heading, speed, turn, spin, act = jax.random.split(jax.random.key(0), 6)
    uniform = lambda key, shape, reach: jax.random.uniform(key, shape, minval=-reach, maxval=reach)  # noqa: E731
    velocity = uniform(speed, (number, 2), 1.5)
    world = World(
        point.Point(
            start=uniform(place, (number, 2), 0.5),
            rotation=uniform(heading, (number,), np.pi),
            q=jnp.zeros((number, 3)),
            v=jnp.concatenate([velocity, uniform(spin, (number, 1), 4.0)], axis=1),
        ),
        jax.vmap(partial(boxes.at_rest, boxes.VASE))(
            jnp.zeros((number, 1, 2)), uniform(turn, (number, 1), np.pi)
        ),
        jnp.zeros((number, 0, 2)),
    )
    action = uniform(act, (number, 2), 1.0)
    alone, _ = jax.vmap(lambda robot, a: robot.simulate_free(a))(world.robot, action)
    in_reach = jax.vmap(
        lambda world, alone: broadphase.in_reach_boxes(
            boxes.VASE, broadphase.Sweep.of(mechanics.outline, world.robot, alone), world, None
        )
    )(world, alone)[:, 0]
    chosen = jnp.zeros((number, 1), int)
    nothing = jnp.zeros((2, 0, number))
    surroundings = island.Surroundings(
        boxes.VASE, collision.Post(0.0), nothing, nothing[:, :, None], None
    )
    moved = jax.jit(
        lambda world, action: dynamics.simulate_contacts(
            mechanics,
            surroundings,
            island.gather(mechanics.gather(world.robot), world.robot.start, world.boxes, chosen),
            action,
        )
    )(world, action)
    pushed = jnp.max(jnp.abs(moved.end.velocity[:2, 0]), axis=0) > 1e-6
    assert not np.any(pushed & ~in_reach) and not np.any((moved.touching[:, 0] > 0) & ~in_reach)
    # And it would be noticed: most of those in reach are pushed.
    assert np.sum(pushed) > 0.5 * np.sum(in_reach) > 50
