"""States of the tasks in which nothing but the Point moves, from recordings of the real package."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from smpo_envs.safety_gym.point import Point
from smpo_envs.safety_gym.worlds import NOTHING, Motion, World, initial_world, standing


def worlds(recording: dict) -> World:
    """The world after reset and after each step, leaves `[T + 1, ...]`, in the default float."""
    rows = len(recording["qpos"])
    dtype = jnp.result_type(float)

    def constant(x):
        return jnp.broadcast_to(jnp.asarray(x, dtype), (rows, *np.shape(x)))

    agent = Point(
        start=constant(recording["layout_xy"][0]),
        rotation=constant(recording["layout_rot"][0]),
        q=jnp.asarray(recording["qpos"], dtype),
        v=jnp.asarray(recording["qvel"], dtype),
    )
    return jax.vmap(partial(initial_world, NOTHING))(agent)


def motion(world: World) -> Motion:
    """What led to a world, without the acceleration, which is not recorded."""
    return standing(world)._replace(acceleration=jnp.full(3, jnp.nan, world.robot.start.dtype))
