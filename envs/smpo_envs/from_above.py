"""A task seen by a camera above the robot: pictures for observations, drawn in JAX.

The camera moves and turns with the robot, so that what is ahead is up, as a lidar's first ray is
straight ahead. Each kind of thing has a channel of its own; the robot, which is always in the
middle, has none. One picture shows no motion. So the last channel holds what the robot senses of
itself, the entries of the task's own observation before its lidars, as bands from top to bottom:
together they say what the lidars and sensors say, only finer. The picture before would say less: in
a step of 0.02 s nothing moves by as much as a pixel.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.adapters import as_value
from smpo_envs.contract import whole
from smpo_envs.drawing import ROBOT, Drawing, Look
from smpo_envs.safe_env import Environment, SafeEnv, State

WALLS = "walls"  # the channel of a drawing's lines
SENSORS = "sensors"  # the channel of bands


class Camera(NamedTuple):
    """What a picture shows.

    Attributes:
        pixels: on each side.
        half_width: of the square that is shown, m; 3 is as far as the lidars see.
    """

    pixels: int = 64
    half_width: float = 3.0

    @property
    def pixel(self) -> float:
        """What a pixel is wide, m."""
        return 2 * self.half_width / self.pixels

    @property
    def ahead(self) -> Float[np.ndarray, "H 1"]:
        """How far ahead of the robot each row's middle is, m; the first row is the farthest."""
        return (self.half_width - self.pixel * (np.arange(self.pixels) + 0.5))[:, None]

    @property
    def left(self) -> Float[np.ndarray, "1 W"]:
        """How far to its left each column's middle is, m."""
        return self.ahead.T


class Inner(NamedTuple):
    """What a task that is seen from above carries from step to step.

    Attributes:
        pipeline_state: the task's own.
        obs: the task's own.
    """

    pipeline_state: Any
    obs: Float[Array, " O"]


DEFAULT = Camera()


def from_above(env: SafeEnv, camera: Camera = DEFAULT) -> Environment:
    """The task with pictures `[H, W, C]` for observations, as vectors of their entries.

    What is in a channel is between 0 and 1: the share of the pixel that things of that kind cover.
    Sensors are as the task gives them. `observation_shape` is `[H, W, C]`, and
    `channels(env.drawing)` of the task says what they are. Networks that take pictures must be
    given to the methods (see `smpo_jax.networks.Networks`).

    Args:
        env: a task that has a `drawing`, for instance `smpo_envs.make("PointGoal1")`.
        camera: what is shown.

    Raises:
        ValueError: the task has no drawing, or the camera no pixels or no width.
    """
    pixels = whole("pixels", camera.pixels)
    if not 0 < camera.half_width < np.inf:
        raise ValueError(f"half_width={camera.half_width!r} must be a number of metres above 0")
    task = as_value(env)
    drawing = task.drawing
    if drawing is None:
        raise ValueError(
            f"{type(env).__name__} has no drawing, so it cannot be seen from above: give a task "
            "that has one (see smpo_envs.safe_env.Environment), as smpo_envs.make('PointGoal1')"
        )
    shape = (pixels, pixels, len(channels(drawing)))

    def shown(state: State) -> State:
        poses = drawing.poses(state.pipeline_state)
        picture = draw(drawing, camera, poses, state.obs[: drawing.sensors])
        return state.replace(
            pipeline_state=Inner(state.pipeline_state, state.obs), obs=picture.reshape(-1)
        )

    def reset(key: PRNGKeyArray) -> State:
        return shown(task.reset(key))

    def step(state: State, action: Float[Array, " A"]) -> State:
        inner: Inner = state.pipeline_state
        own = state.replace(pipeline_state=inner.pipeline_state, obs=inner.obs)
        return shown(task.step(own, action))

    return dataclasses.replace(
        task,
        reset=reset,
        step=step,
        observation_size=int(np.prod(shape)),
        observation_shape=shape,
        observation_names=(),
        readings=(),
        drawing=drawing._replace(
            poses=lambda inner: drawing.poses(inner.pipeline_state), sensors=0, lidars=()
        ),
    )


def channels(drawing: Drawing) -> tuple[str, ...]:
    """What the channels of a task's pictures are, in order."""
    walls = (WALLS,) if drawing.walls else ()
    return (*drawing.looks, *walls, *((SENSORS,) if drawing.sensors else ()))


def draw(
    drawing: Drawing,
    camera: Camera,
    poses: Mapping[str, Float[Array, "K 3"]],
    sensors: Float[Array, " S"],
) -> Float[Array, "H W C"]:
    """A state as the camera sees it.

    Args:
        drawing: how the task looks; its own `half_width` and `follows` are for people.
        camera: what is shown.
        poses: what `drawing.poses` gives: x, y and heading (m, rad) of each kind and the robot.
        sensors: what the last channel shows; none if there are none.
    """
    robot = poses[ROBOT][0]
    layers = [
        _cover(look, camera, _in_frame(robot, jnp.asarray(poses[kind])))
        for kind, look in drawing.looks.items()
    ]
    if drawing.walls:
        ends = jnp.asarray(drawing.walls).reshape(-1, 2, 2)
        layers.append(_lines(camera, ends, robot))
    if len(sensors):
        layers.append(_bands(camera, sensors))
    return jnp.stack(layers, axis=-1)


def _in_frame(robot: Float[Array, " 3"], poses: Float[Array, "K 3"]) -> Float[Array, "K 3"]:
    """Metres ahead of the robot, metres to its left, and heading relative to its own."""
    c, s = jnp.cos(robot[2]), jnp.sin(robot[2])
    x, y, heading = (poses - robot[None]).T
    return jnp.stack([c * x + s * y, c * y - s * x, heading], axis=-1)


def _cover(look: Look, camera: Camera, places: Float[Array, "K 3"]) -> Float[Array, "H W"]:
    """The share of each pixel that things of a kind cover, where they are in the robot's frame.

    All are of one size, so the nearest one covers most, and one root does for all.
    """
    if not len(places):
        return jnp.zeros((camera.pixels, camera.pixels))
    distance = DISTANCES[look.shape](camera, places, look.size)
    return jnp.clip(0.5 - jnp.min(distance, axis=0) / camera.pixel, 0.0, 1.0)


def _squared(camera: Camera, places: Float[Array, "K 3"]) -> Float[Array, "K H W"]:
    """Of the pixels' middles from the things' middles, m²; a sum of a column and a row of each."""
    ahead, left = camera.ahead[None] - places[:, :1, None], camera.left[None] - places[:, 1:2, None]
    return jnp.asarray(ahead**2 + left**2)


def _from_disc(camera: Camera, places: Float[Array, "K 3"], size: float) -> Float[Array, "1 H W"]:
    return jnp.sqrt(jnp.min(_squared(camera, places), axis=0, keepdims=True)) - size


def _from_ring(camera: Camera, places: Float[Array, "K 3"], size: float) -> Float[Array, "K H W"]:
    """Of a line that is a pixel wide."""
    return jnp.abs(jnp.sqrt(_squared(camera, places)) - size) - camera.pixel / 2


def _from_square(camera: Camera, places: Float[Array, "K 3"], size: float) -> Float[Array, "K H W"]:
    ahead, left = camera.ahead[None] - places[:, :1, None], camera.left[None] - places[:, 1:2, None]
    c, s = jnp.cos(places[:, 2])[:, None, None], jnp.sin(places[:, 2])[:, None, None]
    return jnp.maximum(jnp.abs(c * ahead + s * left), jnp.abs(c * left - s * ahead)) - size


# From the rim of each, or of the nearest, to the pixels' middles, m; below 0 within.
DISTANCES: dict[str, Callable[[Camera, Float[Array, "K 3"], float], Float[Array, "K H W"]]] = {
    "disc": _from_disc,
    "ring": _from_ring,
    "square": _from_square,
}


def _lines(
    camera: Camera, ends: Float[Array, "K 2 2"], robot: Float[Array, " 3"]
) -> Float[Array, "H W"]:
    """Lines a pixel wide between ends that are given in the world."""
    flat = jnp.pad(ends.reshape(-1, 2), ((0, 0), (0, 1)))
    start, end = jnp.moveaxis(_in_frame(robot, flat)[:, :2].reshape(-1, 2, 2), 1, 0)
    grid = jnp.broadcast_arrays(camera.ahead, camera.left)
    to_pixel = jnp.stack(grid, axis=-1)[None] - start[:, None, None]
    along = (end - start)[:, None, None]
    share = jnp.sum(to_pixel * along, axis=-1) / jnp.sum(along**2, axis=-1)
    nearest = jnp.clip(share, 0.0, 1.0)[..., None] * along
    distance = jnp.linalg.norm(to_pixel - nearest, axis=-1) - camera.pixel / 2
    return jnp.clip(0.5 - jnp.min(distance, axis=0) / camera.pixel, 0.0, 1.0)


def _bands(camera: Camera, numbers: Float[Array, " S"]) -> Float[Array, "H W"]:
    """Rows that show a number each, the same number of rows for each but for rounding."""
    of = np.arange(camera.pixels) * len(numbers) // camera.pixels
    return jnp.broadcast_to(numbers[of][:, None], (camera.pixels, camera.pixels))
