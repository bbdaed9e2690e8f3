"""States of the Car from recordings of the real package."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from smpo_envs.safety_gym.car import Car

QPOS, QVEL = 13, 11  # how many of the recorded coordinates and rates are the Car's


def rotation_matrices(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def cars(recording: dict) -> Car:
    """The robot after reset and after each step, leaves `[T + 1, ...]`, in the default float."""
    q, v = recording["qpos"][:, :QPOS], recording["qvel"][:, :QVEL]
    start = np.broadcast_to(recording["layout_xy"][0], (len(q), 2))
    # Recorded along the axes of the ball, held along those of the body.
    ball_spin = np.einsum("tij,tj->ti", rotation_matrices(q[:, 9:]), v[:, 8:])
    exact: Any = {
        "start": start,
        "offset": q[:, :3] - np.pad(start, ((0, 0), (0, 1))),
        "quaternion": q[:, 3:7],
        "linear": v[:, :3],
        "spin": v[:, 3:6],
        "wheels": v[:, 6:8],
        "ball": q[:, 9:],
        "ball_spin": ball_spin,
    }
    return Car(**{of: jnp.asarray(x, jnp.result_type(float)) for of, x in exact.items()})
