"""The Car on the floor: its step is the same whatever other Cars are stepped with it."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose
from precision import double_precision

from smpo_envs.safety_gym import car
from smpo_envs.safety_gym.car import Car

NUMBER = 2 * car._CHUNK + 7


def thrown(rng):
    """Cars that tumble about, some of which need many more of Newton's steps than others."""
    turn = rng.normal(size=(NUMBER, 4)) * [0, 0.15, 0.15, 1] + [1, 0, 0, 0]
    ball = rng.normal(size=(NUMBER, 4))
    offset = rng.uniform(-1, 1, (NUMBER, 3)) * [1, 1, 0.015] + [0, 0, 0.1]
    rates = [
        rng.normal(size=(NUMBER, n)) * size for n, size in ((3, 0.5), (3, 3), (2, 20), (3, 20))
    ]
    linear, spin, wheels, ball_spin = rates
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (turn, ball)]
    parts = np.zeros((NUMBER, 2)), offset, units[0], linear, spin, wheels, units[1], ball_spin
    return Car(*map(jnp.asarray, parts))


def test_a_car_moves_among_many_as_it_does_alone():
    rng = np.random.default_rng(0)
    with double_precision():
        cars = thrown(rng)
        action = jnp.asarray(rng.uniform(-1, 1, (NUMBER, 2)))
        together = jax.jit(jax.vmap(Car.simulate_free))(cars, action)
        alone = jax.jit(lambda *given: jax.lax.map(lambda one: one[0].simulate_free(one[1]), given))
        expected = alone(cars, action)
        for mine, other in zip(*map(jax.tree.leaves, (together, expected)), strict=True):
            assert_allclose(mine, other, rtol=1e-12, atol=1e-12 * max(1, np.abs(other).max()))
