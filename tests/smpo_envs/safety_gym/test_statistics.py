"""Whole episodes against the statistics of the real package, in single precision.

Reference: Safety-Gymnasium 1.0.0 with MuJoCo 2.3.3, mean and standard error over whole
episodes (specification, section 12). Costs have heavy tails: few episodes make most of them.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs

# Of the random policy, whose actions are uniform and fresh at each step. Level 1 over 160
# episodes where they were recorded, else over 40, as level 2, but for the cost of Push.
RANDOM = {
    "PointGoal1": {
        "reward": (-0.087, 0.059),
        "cost": (41.2, 8.1),
        "goal_met": (0.050, 0.019),
    },
    "PointGoal2": {
        "reward": (-0.366, 0.124),
        "cost": (45.3, 11.2),
        "cost_hazards": (13.6, 7.2),
        "cost_vases_contact": (4.5, 1.3),
        "cost_vases_velocity": (31.7, 9.0),
    },
    "PointButton1": {
        "reward": (-0.270, 0.145),
        "cost": (84.3, 24.1),
        "goal_met": (0.075, 0.042),
        "cost_buttons": (1.0, 0.5),
        "cost_gremlins": (25.4, 4.6),
        "cost_hazards": (60.2, 24.1),
    },
    "PointPush1": {
        "reward": (-0.272, 0.107),
        # Over 600 episodes of our own: 40 hold so few of the one in ten that costs anything (up to
        # 800) that the specification's 5.7 ± 3.3 is no standard error to rely on. Of 40 native
        # episodes, 13 % are more than three of their own from the mean.
        "cost": (18.6, 3.0),
        "cost_hazards": (18.6, 3.0),
    },
    "PointCircle1": {
        "reward": (-0.032, 0.231),
        "cost": (27.7, 12.3),
        "cost_out_of_boundary": (27.7, 12.3),
    },
    "CarCircle1": {  # over 20 episodes
        "reward": (-0.045, 0.344),
        "cost": (106.0, 26.1),
    },
    # What follows are recordings of our own, not in the specification: 40 episodes each, reset with
    # seeds 1000 to 1039, actions from np.random.default_rng(seed).uniform(-1, 1, 2).
    "CarGoal1": {
        "reward": (-1.658, 0.234),
        "cost": (37.95, 9.58),
        "goal_met": (0.150, 0.057),
    },
    "CarGoal2": {
        "reward": (-1.293, 0.309),
        "cost": (88.1, 14.8),
        "goal_met": (0.125, 0.053),
        "cost_hazards": (38.5, 10.1),
        "cost_vases_contact": (10.7, 3.0),
        "cost_vases_velocity": (49.9, 12.0),
    },
    "CarButton1": {
        "reward": (-1.302, 0.296),
        "cost": (82.9, 14.6),
        "goal_met": (0.225, 0.126),
        "cost_buttons": (8.0, 2.4),
        "cost_gremlins": (47.6, 9.7),
        "cost_hazards": (28.6, 10.7),
    },
    "CarPush1": {
        "reward": (-1.688, 0.215),
        "cost": (15.7, 8.1),
        "cost_hazards": (15.7, 8.1),
    },
}
# Root mean square of the readings of each episode: a sharper test of the dynamics.
READINGS = {
    "Point": {"accelerometer x": 0, "accelerometer y": 1, "velocimeter x": 3, "gyro z": 8},
    "Car": {
        f"{sensor} {axis}": 3 * i + j
        for i, sensor in enumerate(("accelerometer", "velocimeter", "gyro"))
        for j, axis in enumerate("xyz")
    },
}
RANDOM_READINGS = {
    "PointGoal1": [(2.7622, 0.0017), (8.9220, 0.0251), (0.1996, 0.0038), (1.7337, 0.0041)],
    "PointGoal2": [(2.7622, 0.0017), (8.9034, 0.0285), (0.1995, 0.0038), (1.7334, 0.0040)],
    "PointButton1": [(2.8030, 0.0191), (8.9051, 0.0281), (0.2028, 0.0044), (1.7339, 0.0040)],
    "PointPush1": [(2.7653, 0.0027), (8.8966, 0.0232), (0.1984, 0.0038), (1.7321, 0.0040)],
    "PointCircle1": [(2.7612, 0.0025), (8.9289, 0.0398), (0.1979, 0.0057), (1.7306, 0.0064)],
    "CarCircle1": [
        *((2.3919, 0.0302), (4.3623, 0.0419), (10.8772, 0.0370)),
        *((0.0405, 0.0006), (0.1988, 0.0025), (0.0490, 0.0006)),
        *((0.4657, 0.0072), (0.6522, 0.0080), (0.9004, 0.0050)),
    ],
    "CarGoal1": [
        *((2.4245, 0.0138), (4.4087, 0.0201), (10.8268, 0.0209)),
        *((0.0405, 0.0002), (0.1968, 0.0020), (0.0496, 0.0002)),
        *((0.4732, 0.0031), (0.6394, 0.0031), (0.9023, 0.0036)),
    ],
    "CarGoal2": [
        *((2.4237, 0.0147), (4.4160, 0.0179), (10.8385, 0.0249)),
        *((0.0408, 0.0003), (0.1968, 0.0017), (0.0497, 0.0002)),
        *((0.4748, 0.0023), (0.6500, 0.0030), (0.9039, 0.0033)),
    ],
    "CarButton1": [
        *((2.4520, 0.0164), (4.4858, 0.0295), (10.8298, 0.0234)),
        *((0.0420, 0.0005), (0.1936, 0.0020), (0.0495, 0.0003)),
        *((0.4717, 0.0026), (0.6430, 0.0029), (0.9012, 0.0046)),
    ],
    "CarPush1": [
        *((2.4408, 0.0143), (4.4146, 0.0163), (10.8660, 0.0187)),
        *((0.0408, 0.0003), (0.1955, 0.0018), (0.0499, 0.0002)),
        *((0.4752, 0.0023), (0.6438, 0.0030), (0.9007, 0.0037)),
    ],
}


class Episodes(NamedTuple):
    """Sums over each of `E` episodes, and root mean squares of the 12 sensors."""

    totals: dict[str, np.ndarray]
    readings: np.ndarray


@lru_cache
def compiled_episodes(name, number):
    env = smpo_envs.make(name)

    def summands(state):
        return {**state.metrics, "reward": state.reward, "cost": state.info["cost"]}

    def play(key, scale):
        reset_key, action_key = jax.random.split(key)
        state = jax.vmap(env.reset)(jax.random.split(reset_key, number))

        def step(carry, key):
            state, totals, squares = carry
            action = scale * jax.random.uniform(key, (number, 2), minval=-1.0)
            state = jax.vmap(env.step)(state, action)
            totals = jax.tree.map(jnp.add, totals, summands(state))
            return (state, totals, squares + state.obs[:, :12] ** 2), None

        start = (state, summands(state), jnp.zeros((number, 12)))
        keys = jax.random.split(action_key, env.episode_length)
        (_, totals, squares), _ = jax.lax.scan(step, start, keys)
        return totals, jnp.sqrt(squares / env.episode_length)

    return jax.jit(play)


def episodes(name, number, scale=1.0):
    return Episodes(
        *jax.tree.map(np.asarray, compiled_episodes(name, number)(jax.random.key(0), scale))
    )


def standard_errors_apart(values, reference):
    """Of the mean of our values from a reference (mean, standard error)."""
    mean, error = reference
    ours = values.std() / np.sqrt(len(values))
    return abs(values.mean() - mean) / np.hypot(ours, error)


# Quick ones are without contact or with vases alone; more of each are asked before a release.
QUICK = ("PointGoal1", "PointCircle1", "CarCircle1")
MANY = {"Point": 4096, "Car": 1024}


def agent_of(name):
    return next(agent for agent in READINGS if name.startswith(agent))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, 128) for name in QUICK),
        *(pytest.param(name, MANY[agent_of(name)], marks=pytest.mark.slow) for name in RANDOM),
    ],
)
def test_random_policy_has_the_statistics_of_the_original(name, number):
    ours = episodes(name, number)
    for quantity, reference in RANDOM[name].items():
        apart = standard_errors_apart(ours.totals[quantity].astype(np.float64), reference)
        assert apart < 3, (quantity, ours.totals[quantity].mean(), reference)
    columns = READINGS[agent_of(name)]
    for (quantity, column), reference in zip(columns.items(), RANDOM_READINGS[name], strict=True):
        apart = standard_errors_apart(ours.readings[:, column].astype(np.float64), reference)
        assert apart < 3, (quantity, ours.readings[:, column].mean(), reference)
    if "accelerometer z" not in columns:  # a robot that stays level
        np.testing.assert_allclose(ours.readings[:, 2], 9.81, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        *("PointGoal1", "PointCircle1"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("PointGoal2", "PointButton1")),
    ],
)
def test_zero_policy_stays_still_free_of_cost(name):
    ours = episodes(name, 128, scale=0.0)
    # The first distance is rounded in another compiled function than the second: once.
    assert np.max(np.abs(ours.totals.pop("reward"))) < 1e-6
    for quantity, total in ours.totals.items():
        assert not np.any(total), quantity


@pytest.mark.slow
def test_zero_policy_sees_pillars_push_away_boxes_that_start_inside_them():
    ours = episodes("PointPush1", 128, scale=0.0)
    assert standard_errors_apart(ours.totals["reward"].astype(np.float64), (-0.009, 0.009)) < 3
    assert np.any(ours.totals["reward"] != 0) and not np.any(ours.totals["cost"])


@pytest.mark.parametrize(
    "name",
    ["CarGoal0", *(pytest.param(x, marks=pytest.mark.slow) for x in ("CarGoal2", "CarButton1"))],
)
def test_zero_policy_leaves_the_car_where_it_is_free_of_cost(name):
    ours = episodes(name, 128, scale=0.0)
    # It settles onto the floor first.
    assert np.max(np.abs(ours.totals["reward"])) < 5e-4
    assert not np.any(ours.totals["cost"])
