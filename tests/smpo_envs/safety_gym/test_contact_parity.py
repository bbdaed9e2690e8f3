"""Button and Push against recordings of the real package, one step from each of its states."""

import contextlib
from functools import lru_cache

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

from smpo_envs.safety_gym.worlds import box_positions

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECORDINGS = [*golden.names("PointButton*"), *golden.names("PointPush*")]
# At reset a gremlin stands on the floor to the last bit, and round-off decides whether its corners
# feel it as it is pulled away: not two versions of the simulator agree on this one step.
UNDECIDED = 0
# Steps in contact that are not the recorded ones to round-off. In those of Push the robot is at a
# pillar, for which the simulator searches to 1e-6 m, and the last bits decide where it ends.
OTHERS = {
    "PointButton2_ou_s0": 3,
    "PointPush1_ou_s0": 8,
    "PointPush1_seek_s103": 2,
    "PointPush2_ou_s0": 8,
    "PointPush2_seek_s104": 57,
}
# Of these, such as differ by more than 3 times what versions of the simulator do: one in which the
# robot turns at the push box, by 1.6 mm.
FAR = {"PointPush2_seek_s104": 1}


@lru_cache
def one_step_each(name, double):
    """(ours, recording): what one step from every recorded state leads to."""
    r = golden.recording(name)
    played = recorded.task_of(r).TASK
    with double_precision() if double else contextlib.nullcontext():
        states = jax.tree.map(lambda x: x[:-1], recorded.states(r))
        action = jnp.asarray(r["action"], jnp.result_type(float))
        out = recorded.compiled_step(played, recorded.level_of(r))(states, action)
        keyless = out.pipeline_state._replace(key=None)
        return jax.tree.map(np.asarray, out.replace(pipeline_state=keyless)), r


def still_free(r):
    """Steps in which the robot touches nothing, and the box nothing but the floor."""
    free = ~r["agent_contact_in_step"]
    free[UNDECIDED] = False
    if "Push" in r["meta"]["task"]:
        names = list(map(str, r["layout_names"]))
        pillars = r["layout_xy"][[n.startswith("pillar") for n in names]]
        gaps = np.linalg.norm(pillars[None] - r["qpos"][:-1, None, 3:5], axis=-1)
        free &= np.all(gaps > 0.64, axis=1)
    return free


def undisputed(r):
    """Steps in which versions of the simulator agree on where boxes end to 1e-9 m.

    They don't where the push box rocks on the floor: the recording's solver stops at 1e-6.
    """
    return np.maximum(r["spread_mj337_object_pos"], r["spread_mj400_object_pos"]) < 1e-9


def few_on_the_move(r):
    """Steps in which no box has to wait (see `Body.together`)."""
    with double_precision():
        velocity = np.asarray(recorded.arenas(r).world.boxes.velocity[:-1])
    moving = np.sum(np.any(velocity != 0, axis=-1), axis=-1)
    body = recorded.level_of(r).solids.body
    assert body is not None
    return moving <= body.most_at_once


def position_errors(ours, r):
    """Largest absolute differences per transition: robot's q, its v, positions of boxes."""
    world = ours.pipeline_state.arena.world
    with double_precision():
        positions = jax.vmap(box_positions)(world)
    theirs = r["qpos"][1:, 3:].reshape(300, -1, 7)[..., :3]
    return (
        np.abs(world.robot.q - r["qpos"][1:, :3]).max(1),
        np.abs(world.robot.v - r["qvel"][1:, :3]).max(1),
        np.abs(np.asarray(positions) - theirs).max((1, 2)),
    )


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_in_double_precision_agrees_where_nothing_is_touched(name):
    ours, r = one_step_each(name, True)
    free = still_free(r) & undisputed(r)
    assert free.sum() > 50
    assert_allclose(ours.obs[free], r["obs"][1:][free], rtol=0, atol=1e-9)
    assert_allclose(ours.reward[free], r["reward"][free], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RECORDINGS)
def test_contact_steps_are_those_recorded(name):
    ours, r = one_step_each(name, True)
    touched = r["agent_contact_in_step"].copy()
    touched[UNDECIDED] = False
    q, v, box = position_errors(ours, r)
    others = np.flatnonzero(touched & ((q > 1e-9) | (v > 1e-6) | (box > 1e-8)))
    assert len(others) <= OTHERS.get(name, 0), others
    # The recording's own solver stops at 1e-6 for the push box (README of the recordings).
    bounds = ((q, "agent_qpos", 1e-6), (v, "agent_qvel", 5e-5), (box, "object_pos", 5e-6))
    far = np.zeros(300, bool)
    for error, key, least in bounds:
        spread = np.maximum(r[f"spread_mj337_{key}"], r[f"spread_mj400_{key}"])
        far[others] |= error[others] > 3 * spread[others] + least
    assert far.sum() <= FAR.get(name, 0), np.flatnonzero(far)


@pytest.mark.parametrize("name", RECORDINGS)
def test_one_step_charges_and_meets_goals_as_recorded(name):
    for double in (True, False):
        ours, r = one_step_each(name, double)
        assert_array_equal(ours.metrics["goal_met"], r["goal_met"])
        for key in (key for key in r if key.startswith("cost_")):
            # Absent while the button timer runs.
            assert_array_equal(ours.metrics[key], np.nan_to_num(r[key]), f"{double} {key}")


@pytest.mark.parametrize("name", RECORDINGS)
def test_single_precision_is_close(name):
    ours, r = one_step_each(name, False)
    q, _, box = position_errors(ours, r)
    free = still_free(r) & few_on_the_move(r)
    assert np.max(q[free]) < 2e-5 and np.max(box[free]) < 2e-5
    touched = r["agent_contact_in_step"]
    if touched.any():
        assert np.median(q[touched]) < 2e-3  # a third of what versions differ by at worst


def test_the_recordings_have_presses_pushes_and_hits():
    touched = {
        n.rstrip("0123456789obj")
        for r in RECORDINGS
        for n in golden.recording(r)["meta"]["touched"]
    }
    assert touched >= {"gremlin", "button", "pillar", "push_box"}
    assert sum(golden.recording(r)["goal_met"].sum() for r in RECORDINGS) >= 4
