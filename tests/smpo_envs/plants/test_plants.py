"""The plants against numbers worked out by hand, and what their options do."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from precision import double_precision

import smpo_envs
from smpo_envs.plants import four_tanks, stirred_tank
from smpo_envs.plants.plant import pieces, scaled, unscaled, violation

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = ("StirredTank", "FourTanks")


def played(env, actions, seed=0):
    """The states after the reset and each action."""
    first = jax.jit(env.reset)(jax.random.key(seed))

    def step(state, action):
        after = env.step(state, action)
        return after, after

    _, after = jax.jit(partial(jax.lax.scan, step))(first, actions)
    return first, after


def ramp(env, steps=20):
    return jnp.linspace(-0.5, 0.5, steps)[:, None] * jnp.ones(env.action_size)


def test_stirred_tank_rests_at_the_published_operating_point():
    """Seborg et al.: 0.5 mol/L at 350 K, with the jacket at 300 K.

    There k = 7.2e10 exp(-25) = 0.99994 a minute, so that A comes in and reacts at 0.5 mol/(L min),
    and the heat of that, 5e4 * 0.5 / 239 = 104.6 K/min, is what the jacket takes: 5e4 * 50 / 23900.
    """
    with double_precision():
        args = (jnp.array([0.5, 350.0]), jnp.array([300.0]), jnp.array([350.0, 1.0]))
        rates = stirred_tank.rates(stirred_tank.Parameters(), *args)
        assert_allclose(rates, [0.0, 0.0], atol=0.01)
        assert_allclose(
            rates, np.array([1, -5e4 / 239]) * 0.5 * (1 - 7.2e10 * np.exp(-25)), rtol=1e-9
        )


def test_four_tanks_rest_at_johanssons_operating_point():
    """Table of the paper, minimum phase: levels to a tenth of a centimetre, flows in cm³/s."""
    laboratory = four_tanks.Parameters(
        981.0, 0.70, 0.60, 3.33, 3.35, 0.071, 0.057, 0.071, 0.057, 28.0, 32.0, 28.0, 32.0
    )
    levels, volts = jnp.array([12.4, 12.7, 1.8, 1.4]), jnp.array([3.0, 3.0])
    rates = four_tanks.rates(laboratory, levels, volts, jnp.zeros(0))
    throughput = np.array([0.071, 0.057, 0.071, 0.057]) * np.sqrt(2 * 981 * levels)
    flows = np.array([28.0, 32.0, 28.0, 32.0]) * rates
    assert_allclose(flows / throughput, 0.0, atol=0.06)


def test_four_tanks_rest_at_a_point_worked_out_by_hand():
    """Upwards from the outlets: h = (inflow / a)² / 2g, with the pumps at 5 V and 4 V."""
    p = four_tanks.Parameters()
    into_3, into_4 = 0.8 * 0.00095 * 4, 0.8 * 0.00085 * 5  # 3.04 and 3.4 L/s
    into_1, into_2 = into_3 + 0.2 * 0.00085 * 5, into_4 + 0.2 * 0.00095 * 4
    flows = np.array([into_1, into_2, into_3, into_4])
    levels = (flows / np.array([0.0035, 0.0030, 0.0020, 0.0025])) ** 2 / 19.62
    with double_precision():
        rates = four_tanks.rates(p, jnp.array(levels), jnp.array([5.0, 4.0]), jnp.zeros(0))
    assert_allclose(rates, 0.0, atol=1e-15)


def test_heat_runs_away_with_a_hot_jacket_and_not_with_a_cool_one():
    env = smpo_envs.make("StirredTank", fixed=True)
    for action, hottest in ((0.0, 326.0), (1.0, 500.0)):
        _, after = played(env, jnp.full((59, 1), action))
        temperature = np.array(after.pipeline_state.state[:, 1])
        assert np.isfinite(temperature).all() and temperature.max() < hottest
    assert temperature.max() > 400


def test_violation_is_in_kelvin_and_in_centimetres():
    tank, four = stirred_tank.PLANT, four_tanks.PLANT
    for kelvin, cost in ((320.0, 1.0), (321.0, 0.0), (325.0, 0.0), (329.5, 2.5)):
        assert_allclose(violation(tank, jnp.array([0.9, kelvin])), cost)
    assert_allclose(violation(four, jnp.array([0.26, 0.28, 0.6, 0.6])), 1.0 + 3.0, rtol=1e-5)
    assert violation(four, jnp.array([0.0, 0.25, 0.6, 0.6])) == 0


@pytest.mark.parametrize("name", NAMES)
def test_fixed_episodes_are_all_alike_and_others_are_not(name):
    fixed, drawn = smpo_envs.make(name, fixed=True), smpo_envs.make(name)
    for env, alike in ((fixed, True), (drawn, False)):
        one, two = map(jax.jit(env.reset), (jax.random.key(0), jax.random.key(1)))
        assert np.array_equal(one.obs, two.obs) == alike


def test_benchmark_holds_each_set_point_for_its_part():
    rows = stirred_tank.benchmark().set_points[:, 0]
    assert_allclose(rows, np.repeat([0.85, 0.9, 0.87], 20))
    rows = four_tanks.benchmark().set_points
    assert_allclose(rows, np.repeat([[0.5, 0.2], [0.1, 0.3]], 30, axis=0))
    assert_array_equal(pieces(jnp.arange(4.0), 59), np.repeat(np.arange(4.0), 15))


@pytest.mark.parametrize("name", NAMES)
def test_drawn_scenarios_can_be_followed(name):
    """Set points and feeds are within what is shown, and an input holds each of them."""
    module = stirred_tank if name == "StirredTank" else four_tanks
    plant = module.PLANT
    given = jax.jit(jax.vmap(lambda key: module.drawn(key)))(
        jax.random.split(jax.random.key(0), 200)
    )
    for quantities, values in ((plant.targets, given.set_points), (plant.states, given.start)):
        seen = scaled(quantities, values)
        assert np.all(np.abs(seen) <= 1.0)
    if name == "StirredTank":
        assert np.all(np.abs(given.disturbances[..., 0] - 350) <= 5)
        assert np.all(np.ptp(given.disturbances[..., 0], axis=1) > 0)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_has_an_inverse(name):
    plant = {"StirredTank": stirred_tank, "FourTanks": four_tanks}[name].PLANT
    values = jnp.linspace(-1.0, 1.0, len(plant.states))
    assert_allclose(scaled(plant.states, unscaled(plant.states, values)), values, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_can_be_others(name):
    usual = smpo_envs.make(name, fixed=True)
    other = {
        "StirredTank": smpo_envs.make("StirredTank", fixed=True, heat_transfer=45000.0),
        "FourTanks": smpo_envs.make("FourTanks", fixed=True, pump_1=0.0007),
    }[name]
    usual, other = (played(env, ramp(env))[1].obs for env in (usual, other))
    assert np.abs(usual - other).max() > 0.01


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"heat_transfr": 1.0}, "heat_transfr=1.0: no such option; parameters are flow, volume"),
        ({"flow": -1.0}, "flow=-1.0 must be a number above 0"),
        ({"spread": 1.0}, "spread=1.0: expected a share, 0 or more and below 1"),
        ({"noise": -0.1}, "noise=-0.1: expected a share, 0 or more and below 1"),
        ({"noise": "much"}, "noise='much': expected a share, 0 or more and below 1"),
        ({"delay": 1.5}, "delay=1.5: expected a whole number of steps, 0 to 100"),
        ({"delay": -1}, "delay=-1: expected a whole number of steps, 0 to 100"),
        ({"fixed": "perhaps"}, "fixed='perhaps' must be true or false"),
        ({"volume": float("inf")}, "volume=inf must be a number above 0"),
    ],
)
def test_options_that_are_none_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        smpo_envs.make("StirredTank", **option)


@pytest.mark.parametrize("option", [{"split_2": 1.1}, {"split_2": 0.9, "spread": 0.2}])
def test_more_than_all_of_a_flow_is_refused(option):
    with pytest.raises(ValueError, match=r"split_2=.* a share cannot be above 1"):
        smpo_envs.make("FourTanks", **option)
    smpo_envs.make("FourTanks", split_2=0.8, spread=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_spread_draws_the_uncertain_parameters_anew_for_each_episode(name):
    plant = {"StirredTank": stirred_tank, "FourTanks": four_tanks}[name].PLANT
    env = smpo_envs.make(name, spread=0.2)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.jit(jax.vmap(env.reset))(keys).pipeline_state.parameters
    for field, value in plant.parameters._asdict().items():
        ratio = np.array(getattr(drawn, field)) / value
        if field in plant.uncertain:
            assert ratio.min() < 0.82 and ratio.max() > 1.18
            assert ratio.min() >= 0.8 * (1 - 1e-6) and ratio.max() <= 1.2 * (1 + 1e-6)
        else:
            assert_allclose(ratio, 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_minus_the_error_or_bounded(name):
    usual, bounded = (smpo_envs.make(name, fixed=True, bounded=x) for x in (False, True))
    (_, one), (_, other) = (played(env, ramp(env)) for env in (usual, bounded))
    assert_array_equal(one.obs, other.obs)
    assert_array_equal(one.metrics["error"], -one.reward)
    assert_allclose(other.reward, 1 / (1 + one.metrics["error"]), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_in_what_is_read_and_not_in_the_plant(name):
    plant = {"StirredTank": stirred_tank, "FourTanks": four_tanks}[name].PLANT
    quiet, noisy = (smpo_envs.make(name, fixed=True, noise=x) for x in (0.0, 0.01))
    actions = jnp.zeros((59, quiet.action_size))
    (_, usual), (_, after) = played(quiet, actions), played(noisy, actions)
    assert_array_equal(usual.pipeline_state.state, after.pipeline_state.state)
    assert_array_equal(usual.reward, after.reward)
    assert_array_equal(usual.info["cost"], after.info["cost"])
    states = len(plant.states)
    assert_array_equal(usual.obs[:, states:], after.obs[:, states:])
    readings = jax.vmap(lambda x: unscaled(plant.states, x))(after.obs[:, :states])
    error = np.array(readings / usual.pipeline_state.state - 1)
    assert_allclose(error.std(), 0.01, rtol=0.2)
    assert np.unique(error.round(6)).size > 0.9 * error.size  # anew for each


@pytest.mark.parametrize("name", NAMES)
def test_a_delayed_input_arrives_as_it_was_given(name):
    prompt, late = (smpo_envs.make(name, fixed=True, delay=x) for x in (0, 2))
    actions = ramp(prompt)
    before = jnp.concatenate([jnp.zeros((2, prompt.action_size)), actions])
    (_, usual), (_, after) = played(prompt, before), played(late, before[2:])
    assert_allclose(usual.obs[:20], after.obs, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_actions_beyond_their_bounds_are_cut(name):
    env = smpo_envs.make(name, fixed=True)
    ones = jnp.ones((5, env.action_size))
    assert_array_equal(played(env, 7 * ones)[1].obs, played(env, ones)[1].obs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 30, 100])
def test_other_lengths_have_the_same_course(name, length):
    env = smpo_envs.make(name, fixed=True, episode_length=length)
    _, after = played(env, jnp.zeros((length, env.action_size)))
    assert env.episode_length == length
    assert np.isfinite(after.obs).all() and not after.done.any()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_check_env_wants(name):
    assert "59 steps" in smpo_envs.check_env(smpo_envs.make(name, spread=0.2, noise=0.01, delay=1))


@pytest.mark.parametrize("name", NAMES)
def test_readings_say_what_is_scaled(name):
    env: Any = smpo_envs.make(name)
    assert sum(reading.size for reading in env.readings) == env.observation_size
    assert any("to" in reading.name for reading in env.readings)
