"""Costs of hand-made scenes."""

import jax.numpy as jnp
import numpy as np
import pytest

from smpo_envs.safety_gym.boxes import at_rest
from smpo_envs.safety_gym.costs import VASES_CONTACT, VASES_VELOCITY, Scene, in_hazards, indicators
from smpo_envs.safety_gym.physics import Motion, World
from smpo_envs.safety_gym.point import Point


def scene(*, hazards=((9.0, 9.0),), velocities=((0.0, 0.0, 0.0),), contacts=(0,)):
    vases = at_rest(jnp.zeros((len(velocities), 2)), jnp.zeros(len(velocities)))
    vases = vases._replace(velocity=jnp.array(velocities))
    robot = Point(jnp.zeros(2), jnp.zeros(()), jnp.zeros(3), jnp.zeros(3))
    motion = Motion(World(robot, vases), jnp.zeros(3), jnp.array(contacts, jnp.int32))
    return Scene(jnp.zeros(2), motion, jnp.array(hazards))


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
