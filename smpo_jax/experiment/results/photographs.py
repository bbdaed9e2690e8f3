"""Films of episodes outside JAX, as the package of the environment shows them."""

import contextlib
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from smpo_envs.host import WorkerError
from smpo_jax.core.constraints import each
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.problem import augmentation, host_workers
from smpo_jax.experiment.results import film
from smpo_jax.experiment.results.film import Episode
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.training.host import augment_host

Picture = UInt8[np.ndarray, "H W 3"]


class Photographs:
    """A photograph of every nth step of one episode; `show` puts the one of a step up.

    Attributes:
        moving: what `show` changes.
        handles: none; nothing has to be explained.
    """

    def __init__(self, pictures: list[Picture], every: int, axes: Axes, title: str) -> None:
        self.pictures, self.every = pictures, every
        axes.set_axis_off()
        self.image = axes.imshow(pictures[0])
        axes.set_title(title, loc="left", fontsize="small")
        self.clock = axes.set_title("", loc="right", fontsize="small")
        self.moving: list[Artist] = [self.image, self.clock]
        self.handles: list[Line2D] = []

    def show(self, step: int) -> None:
        """The photograph of a step."""
        self.clock.set_text(f"step {step}")
        # Of the end there is none: the environment has begun the next episode.
        self.image.set_data(self.pictures[min(step // self.every, len(self.pictures) - 1)])


def play(
    policy: TrainedPolicy, seed: int, episodes: int, *, deterministic: bool, speed: float
) -> Iterator[Episode]:
    """Plays one episode after another and photographs it, at so many times the world's speed.

    Raises:
        UserError: it cannot be drawn here.
    """
    workers = host_workers(policy.config, 1, films=True)
    env = augment_host(workers, augmentation(policy.config))
    act = jax.jit(policy.acting(deterministic=deterministic))
    key = jax.random.key(seed)
    with contextlib.closing(workers):
        try:
            obs = env.reset(seed)
            every = film.stride(speed, workers.step_seconds())
            for _ in range(episodes):
                pictures, rewards, is_over = [], [0.0], False
                costs = each(lambda _: [0.0], policy.spec.cost_limit)
                while not is_over:
                    if (len(rewards) - 1) % every == 0:
                        pictures.append(workers.picture())
                    own, key = jax.random.split(key)
                    env.send(0, np.asarray(act(jnp.asarray(obs, float), own)))
                    obs, step = env.receive(0)
                    rewards.append(float(step.reward[0]))
                    each(lambda own, cost: own.append(float(cost[0])), costs, step.cost)
                    is_over = bool(step.terminated[0] or step.truncated[0])
                view = partial(Photographs, pictures, every)
                yield Episode(view, np.cumsum(rewards), each(np.cumsum, costs), every)
        except WorkerError as error:
            raise UserError(f"env: {one_line(error)}") from error
