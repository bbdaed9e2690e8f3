"""Contacts against those that MuJoCo 2.3.3 finds (see `record_contacts`)."""

from functools import partial

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double_precision

from smpo_envs.safety_gym.collision import (
    Box,
    Cylinder,
    Half,
    Round,
    box_and_box,
    cylinder_and_box,
    cylinder_apart_from_box,
)

CUBE, WHEEL = Half(0.1, 0.1, 0.1), Round(0.05, 0.025)
ARROW, BODY = Half(0.05, 0.05, 0.05), Half(0.1, 0.1, 0.05)
BOXES = {
    "arrow_vase": ARROW,
    "arrow_gremlin": ARROW,
    "body_vase": BODY,
    "body_gremlin": BODY,
    "bumper_vase": Half(0.1, 0.01, 0.05),
}


def recorded(kind, dtype=jnp.float64):
    """Positions and rotations of both bodies, batch last; their contacts as recorded."""
    with np.load(golden.DATA / "contacts.npz") as file:
        position, rotation = file[f"{kind}_position"], file[f"{kind}_rotation"]
        contacts = file[f"{kind}_contacts"]
    bodies = [
        (
            jnp.asarray(position[:, i].T, dtype),
            jnp.asarray(np.moveaxis(rotation[:, i], 0, -1), dtype),
        )
        for i in (0, 1)
    ]
    return bodies, contacts


def in_order(contacts):
    """Contacts of one pair by where they are."""
    return contacts[np.lexsort(np.round(contacts[:, 4:].T, 6))]


def is_same(touch, theirs, i, tolerance):
    """Whether all contacts of a place are those recorded."""
    distance, normal, point = (
        np.asarray(x)[..., i] for x in (touch.distance, touch.normal, touch.point)
    )
    ours = np.concatenate([distance[:, None], normal.T, point.T], axis=1)[distance <= 0]
    theirs = theirs[~np.isnan(theirs[:, 0])]
    if len(ours) != len(theirs):
        return False
    return np.allclose(in_order(ours), in_order(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_touch_at_the_points_that_the_simulator_finds(kind):
    with double_precision():
        ((at, turn), (beside, other)), theirs = recorded(kind)
        pair = Box(at, turn), BOXES[kind], Box(beside, other), CUBE
        touch = jax.jit(partial(box_and_box, hovers="gremlin" in kind))(*pair)
    touches = ~np.isnan(theirs[:, 0, 0])
    np.testing.assert_array_equal(np.any(np.asarray(touch.distance) <= 0, axis=0), touches)
    assert 40 < touches.sum() < 90
    assert all(is_same(touch, theirs[i], i, 1e-8) for i in np.flatnonzero(touches))


@pytest.mark.parametrize(("first", "half"), [("arrow", ARROW), ("body", BODY)])
def test_what_is_deep_below_a_gremlin_pushes_it_up_as_in_the_simulator(first, half):
    with double_precision():
        ((at, turn), (beside, other)), theirs = recorded(f"{first}_under_gremlin")
        pair = Box(at, turn), half, Box(beside, other), CUBE
        touch = jax.jit(partial(box_and_box, hovers=True))(*pair)
    assert np.sum(theirs[:, 0, 3] > 0.99) > 80
    normal, deepest = np.asarray(touch.normal[:, 0]), np.asarray(touch.distance).min(0)
    np.testing.assert_allclose(normal.T, theirs[:, 0, 1:4], rtol=0, atol=1e-8)
    error = np.abs(deepest - np.nanmin(theirs[:, :, 0], axis=1))
    of_faces = deepest > -0.03  # half of what overlaps; of edges the whole, at other corners
    assert of_faces.sum() > 40 and error[of_faces].max() < 1e-8 and error.max() < 4e-3


def wheel_and_box(kind, dtype):
    ((center, turn), (beside, other)), theirs = recorded(kind, dtype)
    pair = Cylinder(center, turn[:, 2]), WHEEL, Box(beside, other), CUBE
    return jax.jit(cylinder_and_box)(*pair), cylinder_apart_from_box(*pair), theirs


@pytest.mark.parametrize(("kind", "others"), [("wheel_vase", 2), ("wheel_gremlin", 6)])
def test_a_wheel_touches_a_box_where_the_simulator_finds_it(kind, others):
    with double_precision():
        touch, apart, theirs = wheel_and_box(kind, jnp.float64)
    touches = ~np.isnan(theirs[:, 0, 0])
    assert 10 < touches.sum() < 90
    np.testing.assert_array_equal(np.asarray(touch.distance[0]) <= 0, touches)
    assert (
        np.all(np.asarray(apart)[touches] <= 0) and np.mean(np.asarray(apart)[~touches] > 0) > 0.5
    )
    # Where the way out is along an edge or a corner the last bits decide where its search ends.
    same = np.array([is_same(touch, theirs[i], i, 1e-8) for i in np.flatnonzero(touches)])
    assert np.sum(~same) <= others
    error = np.abs(np.asarray(touch.distance[0]) - theirs[:, 0, 0])[touches]
    assert error.max() < 5e-4  # m


def test_a_wheel_touches_as_much_in_single_precision():
    for kind in ("wheel_vase", "wheel_gremlin"):
        touch, _, theirs = wheel_and_box(kind, jnp.float32)
        touches = ~np.isnan(theirs[:, 0, 0])
        np.testing.assert_array_equal(np.asarray(touch.distance[0]) <= 0, touches)
        error = np.abs(np.asarray(touch.distance[0]) - theirs[:, 0, 0])[touches]
        assert np.quantile(error, 0.9) < 1e-4 and error.max() < 5e-3  # m
