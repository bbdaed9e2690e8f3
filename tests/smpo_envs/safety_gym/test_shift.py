"""Tasks whose hazards are more, larger or closer together."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import ROUNDED_AS_FOR_USERS

import smpo_envs
from smpo_envs import Shift
from smpo_envs.safety_gym import arena, button, costs, goal, layout, push, task
from smpo_envs.safety_gym.agents import POINT
from smpo_envs.safety_gym.shifts import shifted
from smpo_envs.shift import scheduled

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEYS = jax.random.split(jax.random.key(0), 8)


def hazards(shift, level=goal.LEVELS[1], most=None):
    level, full = shifted(level, shift, most)

    def sample(key):
        layout_key, rotation_key = jax.random.split(key)
        return arena.sample(POINT, level, layout_key, rotation_key, full)

    return jax.jit(jax.vmap(sample))(KEYS)


@pytest.mark.parametrize("most", [8, 14])
def test_task_of_its_own_shift_is_the_task_bit_for_bit(most):
    level, full = shifted(goal.LEVELS[1], Shift(), most)
    reset, step = partial(task.reset, goal.TASK), partial(task.step, goal.TASK)

    def episode(level, shift, key):
        def follow(state, key):
            action = jax.random.uniform(key, (2,), minval=-1.0)
            state = step(level, state, action)
            return state, (state.obs, state.reward, state.info["cost"])

        state = reset(level, key, shift)
        return jax.lax.scan(follow, state, jax.random.split(key, 300))[1]

    # Two programs: bits are equal where XLA makes fusions of the same operations.
    compiled = partial(jax.jit, compiler_options=ROUNDED_AS_FOR_USERS)
    ours = compiled(jax.vmap(partial(episode, level, full)))(KEYS)
    theirs = compiled(jax.vmap(partial(episode, goal.LEVELS[1], None)))(KEYS)
    jax.tree.map(assert_array_equal, ours, theirs)


def test_number_and_square_of_hazards_are_those_of_the_shift():
    markers = np.asarray(hazards(Shift(hazards=5.0, extent=0.9), most=14).markers["hazards"])
    assert markers.shape == (8, 14, 2)
    there = np.all(markers != layout.ABSENT, axis=2)
    assert_array_equal(there.sum(axis=1), 5)
    assert np.abs(markers[there]).max() < 0.9 - 0.18  # the keepout


def test_hazards_keep_their_distance_and_leave_room_for_what_comes_after_them():
    around = hazards(Shift(hazards=12), level=goal.LEVELS[2], most=16)
    xy = np.asarray(around.markers["hazards"])[:, :12]
    gap = np.linalg.norm(xy[:, :, None] - xy[:, None], axis=-1) + 9 * np.eye(12)
    assert gap.min() >= 2 * 0.18 - 1e-6
    vases = np.asarray(around.world.boxes.position)[..., :2]
    assert np.linalg.norm(xy[:, :, None] - vases[:, None], axis=-1).min() >= 0.18 + 0.15 - 1e-6


def test_size_decides_where_a_hazard_costs():
    # 0.25 m from the only hazard: outside of its own 0.2 m, within 0.3 m by 0.05 m
    cost = costs.in_hazards(0.2)
    motion: Any = None  # nothing has to move
    scene = costs.Scene(jnp.zeros(2), motion, {"hazards": jnp.array([[0.25, 0.0]])})
    assert cost.amount(scene) == 0
    larger = scene._replace(radii={"hazards": jnp.float32(0.3)})
    assert_allclose(cost.amount(larger), 0.05, rtol=1e-5)


def test_shifts_are_a_batch_of_one_program():
    level, _ = shifted(goal.LEVELS[1], Shift(), 12)

    def number(shift):
        around = arena.sample(POINT, level, KEYS[0], KEYS[1], shift)
        assert around.radii is not None
        return jnp.sum(around.markers["hazards"][:, 0] != layout.ABSENT), around.radii["hazards"]

    many = Shift(jnp.array([0.0, 3.4, 12.0]), jnp.array([0.1, 0.2, 0.3]), jnp.full(3, 1.5))
    counts, radii = jax.jit(jax.vmap(number))(many)
    assert_array_equal(counts, [0, 3, 12])
    assert_allclose(radii, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("module", [goal, button, push])
def test_every_level_with_hazards_can_be_shifted_and_the_others_say_so(module):
    for level in (1, 2):
        env = module.make(level=level, shift=Shift(size=0.3))
        plain = module.make(level=level)
        assert env.observation_size == plain.observation_size
        assert env.drawing.looks["hazards"].size == 0.3
        assert env.shift.size == 0.3 and env.shift.hazards >= 1
    with pytest.raises(ValueError, match="no hazards"):
        module.make(level=0, shift=Shift(size=0.3))


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (Shift(hazards=-1), "hazards=-1 must be between 0 and"),
        (Shift(size=0.0), "size=0 must be positive"),
        (Shift(extent=1.6), "extent=1.6 must be above 0.18"),
        (Shift(extent=0.1), "extent=0.1 must be above 0.18"),
        (Shift(hazards=60), "hazards=60 do not fit within extent=1.5"),
    ],
)
def test_shift_without_a_layout_is_refused(shift, words):
    with pytest.raises(ValueError, match=words):
        goal.make(level=1, shift=shift)


def test_schedule_is_linear_between_its_points_and_constant_beyond():
    points = {"hazards": ((100.0, 8.0), (300.0, 16.0)), "size": ((0.0, 0.3),)}
    at = [scheduled(points, steps) for steps in (0.0, 200.0, 1e6)]
    assert_allclose(np.array([x.hazards for x in at], float), [8, 12, 16])
    assert_allclose(np.array([x.size for x in at], float), 0.3, rtol=1e-6)
    assert at[0].extent is None


def test_registry_knows_which_tasks_have_hazards():
    for name, entry in smpo_envs.TASKS.items():
        task = name[:-1].removeprefix("Point").removeprefix("Car")
        level = getattr({"Goal": goal, "Button": button, "Push": push}.get(task), "LEVELS", None)
        own = level[int(name[-1])].seen if level else ()
        assert entry.has_hazards == ("hazards" in own), name
