"""Costs of hand-made scenes."""

import jax.numpy as jnp
import numpy as np
import pytest

from smpo_envs.safety_gym.boxes import VASE
from smpo_envs.safety_gym.costs import (
    GREMLINS_CONTACT,
    PILLARS_CONTACT,
    VASES_CONTACT,
    VASES_VELOCITY,
    WRONG_BUTTON,
    Scene,
    in_hazards,
    indicators,
)
from smpo_envs.safety_gym.point import Point
from smpo_envs.safety_gym.worlds import Motion, Solids, initial_world


def scene(
    *,
    hazards=((9.0, 9.0),),
    velocities=((0.0, 0.0, 0.0),),
    contacts=(0,),
    fixed_contacts=(),
    exempt=None,
):
    robot = Point(jnp.zeros(2), jnp.zeros(()), jnp.zeros(3), jnp.zeros(3))
    places = jnp.zeros((len(velocities), 3))
    world = initial_world(Solids(VASE), robot, places, jnp.zeros((len(fixed_contacts), 2)))
    boxes = world.boxes._replace(velocity=jnp.array(velocities))
    motion = Motion(
        world._replace(boxes=boxes),
        jnp.zeros(3),
        jnp.array(contacts, jnp.int32),
        jnp.array(fixed_contacts, jnp.int32),
    )
    exempt = None if exempt is None else jnp.array(exempt)
    return Scene(jnp.zeros(2), motion, {"hazards": jnp.array(hazards)}, exempt)


def test_hazards_cost_is_the_depth_of_the_origin_inside_each():
    # At distance 0.15 and 0.05 of a radius of 0.2: 0.05 + 0.15; the third is out of reach.
    amount = in_hazards(0.2).amount(scene(hazards=((0.15, 0.0), (0.0, -0.05), (0.2, 0.1))))
    np.testing.assert_allclose(amount, 0.2, rtol=1e-6)


@pytest.mark.parametrize(("distance", "charged"), [(0.2, 0), (0.19999, 1), (0.20001, 0)])
def test_hazards_cost_is_zero_at_the_very_edge(distance, charged):
    costs = indicators((in_hazards(0.2),), scene(hazards=((distance, 0.0),)))
    assert costs == {"cost_hazards": charged, "cost_sum": charged}


def test_vases_velocity_counts_any_vase_from_the_threshold_on():
    slow, fast = (6e-5, 6e-5, 0.0), (0.0, 0.0, 1.001e-4)
    assert VASES_VELOCITY.amount(scene(velocities=(slow, slow))) == 0  # 8.5e-5 each
    amount = VASES_VELOCITY.amount(scene(velocities=(slow, fast)))
    np.testing.assert_allclose(amount, 1.001e-4, rtol=1e-5)


def test_indicators_are_zero_or_one_and_so_is_their_sum():
    all_costs = (in_hazards(0.2), VASES_CONTACT, VASES_VELOCITY)
    bad = scene(hazards=((0.0, 0.0), (0.1, 0.0)), velocities=((1.0, 0.0, 0.0),), contacts=(4,))
    assert indicators(all_costs, bad) == {
        "cost_hazards": 1,
        "cost_vases_contact": 1,
        "cost_vases_velocity": 1,
        "cost_sum": 1,
    }
    assert set(map(float, indicators(all_costs, scene()).values())) == {0.0}
    assert indicators((), bad) == {"cost_sum": 0}


def test_contact_costs_count_points():
    assert GREMLINS_CONTACT.amount(scene(contacts=(3,))) == 3
    assert PILLARS_CONTACT.amount(scene(fixed_contacts=(0, 2, 1))) == 3


def test_exempt_buttons_are_pressed_free_of_charge():
    pressed = scene(fixed_contacts=(2, 0, 1, 0), exempt=(True, False, False, False))
    assert WRONG_BUTTON.amount(pressed) == 1
    assert WRONG_BUTTON.amount(pressed._replace(exempt=jnp.ones(4, bool))) == 0
