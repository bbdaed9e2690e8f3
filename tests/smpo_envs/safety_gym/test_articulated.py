"""The solver for robots of several bodies, against the energy that it is to minimise."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerator import shaped_for_an_accelerator
from precision import double_precision
from scipy.optimize import minimize

from smpo_envs.compilation import one_kernel
from smpo_envs.safety_gym import articulated, car_touches
from smpo_envs.safety_gym.articulated import Contacts, Slots, System
from smpo_envs.safety_gym.collision import Touch

BATCH = 3
# The unknowns of two bodies, which have contacts with what stands fast and with each other.
FIRST, SECOND = (0, 4), (4, 7)
SIZE = 7


def contacts(rng, unknowns, slots, in_use):
    n = sum(end - begin for begin, end in unknowns)
    stiffness = rng.uniform(0.5, 2, (slots, BATCH))
    stiffness[in_use:] = 0
    rows, bias = rng.normal(size=(slots, 6, n, BATCH)), rng.normal(size=(slots, 6, BATCH))
    return Contacts(unknowns, Slots(rows, bias, stiffness), in_use)


@pytest.fixture
def system():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(BATCH, SIZE, SIZE))
    mass: Any = np.moveaxis(root @ root.swapaxes(1, 2) + np.eye(SIZE), 0, -1)
    every = [
        contacts(rng, (FIRST,), 4, 4),
        contacts(rng, (SECOND,), 3, 2),
        contacts(rng, (FIRST, SECOND), 5, 3),
    ]
    return System(mass, every)


def energy(system, member, y):
    value = y @ system.mass[..., member] @ y / 2
    for unknowns, slots, _ in system.contacts:
        rows, bias, stiffness = (x[..., member] for x in slots)
        there = np.concatenate([y[begin:end] for begin, end in unknowns])
        n, *others = np.moveaxis(rows @ there + bias, 1, 0)
        short = [np.minimum(0, n + sign * g) ** 2 for g in others for sign in (1, -1)]
        value += (stiffness * np.sum(short, axis=0)).sum() / 2
    return value


def solve(system, start, *, whole):
    numbers = [(at.unknowns, at.number) for at in system.contacts]

    def newton(mass, slots, start):
        every = [Contacts(u, s, n) for (u, n), s in zip(numbers, slots, strict=True)]
        return articulated.newton(System(mass, every), start)

    slots = [jax.tree.map(jnp.asarray, at.slots) for at in system.contacts]
    args = (jnp.asarray(system.mass), slots, start)
    return jax.jit(partial(one_kernel, newton, pays=whole))(*args)


@pytest.mark.parametrize("whole", [True, False])
def test_newton_finds_the_least_energy(system, whole):
    with double_precision():
        start = jnp.ones((SIZE, BATCH))
        found = np.asarray(solve(system, start, whole=whole))
    for member in range(BATCH):
        least = minimize(partial(energy, system, member), np.zeros(SIZE), tol=1e-12)
        assert energy(system, member, found[:, member]) <= least.fun + 1e-9
        assert np.allclose(found[:, member], least.x, atol=1e-4)


def test_an_accelerator_that_takes_all_slots_at_once_finds_the_same(system):
    start = jnp.zeros((SIZE, BATCH))
    in_turn = solve(system, start, whole=False)
    with shaped_for_an_accelerator():
        at_once = solve(system, start, whole=False)
    assert jnp.allclose(in_turn, at_once, rtol=1e-4, atol=1e-5)


def test_the_deepest_touches_are_chosen_and_come_first():
    rng = np.random.default_rng(0)
    parts = list(car_touches.Part)
    numbers = {parts[0]: 9, parts[1]: 1, parts[3]: 2}
    distances = {part: rng.normal(size=(n, BATCH)) for part, n in numbers.items()}
    distances[parts[0]][3] = distances[parts[0]][1]  # the first one of two that are as deep
    every = {}
    for part, distance in distances.items():
        normal = rng.normal(size=(3, *distance.shape))
        every[part] = Touch(*map(jnp.asarray, (normal, normal + 1, distance)))
    found = car_touches.deepest(every, 5)
    normals = np.concatenate([every[part].normal for part in numbers], axis=1)
    depth = np.concatenate([np.asarray(every[part].distance) for part in numbers])
    whose = np.repeat([int(part) for part in numbers], list(numbers.values()))
    for member in range(BATCH):
        order = np.argsort(depth[:, member], kind="stable")[:5]
        assert np.array_equal(found.distance[:, member], depth[order, member])
        assert np.array_equal(found.normal[:, :, member], normals[:, order, member].T)
        assert np.array_equal(np.argmax(found.part[:, :, member], axis=1), whose[order])


def test_a_touch_that_is_no_number_does_not_disturb_the_others():
    distance = jnp.array([-0.1, jnp.nan, -0.3])[:, None]
    normal = jnp.arange(9.0).reshape(3, 3, 1)
    found = car_touches.deepest({car_touches.Part.BODY: Touch(normal, normal, distance)}, 3)
    assert jnp.array_equal(found.distance[:, 0], jnp.array([-0.3, -0.1, 1.0]))
    assert jnp.array_equal(found.normal[:2, :, 0], normal[:, (2, 0), 0].T)
