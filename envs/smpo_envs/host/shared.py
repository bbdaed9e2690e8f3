"""Memory that the trainer and its workers share: one record for each environment."""

import mmap
import os
import tempfile

import numpy as np

from smpo_envs.host.single import Sizes


def record(sizes: Sizes) -> np.dtype:
    """What passes between an environment and the trainer; all of it 8 bytes wide.

    `seed`, `age` and `over` tell a worker how to begin an episode: the seed of the random stream,
    the steps that its clock has behind it already, and whether to begin one at all.
    """
    costs = len(sizes.cost_names)
    return np.dtype(
        [
            ("seed", np.uint64),
            ("age", np.int64),
            ("over", np.float64),
            ("action", np.float64, (sizes.action,)),
            ("obs", np.float64, (sizes.observation,)),
            ("next_obs", np.float64, (sizes.observation,)),
            ("reward", np.float64),
            ("cost", np.float64, (costs,) if costs > 1 else ()),
            ("terminated", np.float64),
            ("truncated", np.float64),
        ]
    )


def create(num_envs: int, sizes: Sizes) -> int:
    """A descriptor of memory for so many records. It has no name, so nothing of it can stay."""
    size = num_envs * record(sizes).itemsize
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("smpo_envs")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def attach(descriptor: int, num_envs: int, sizes: Sizes) -> np.ndarray:
    """The records `[N]`, as a view of the memory."""
    kind = record(sizes)
    return np.frombuffer(mmap.mmap(descriptor, num_envs * kind.itemsize), kind)
