"""An island: a robot among a few boxes, in world axes and with the batch last."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, boxes
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Post


class Spring(NamedTuple):
    """What holds gremlins: where their springs would have them, in each physics step."""

    target: Float[Array, "T 3 K B"]
    quaternion: Float[Array, "4 K B"]


class Island(NamedTuple):
    """The robot in world axes (but about its start), and `K` boxes."""

    robot: Any  # its coordinates, fields [B]
    position: Float[Array, "3 K B"]
    quaternion: Float[Array, "4 K B"]
    velocity: Float[Array, "3 K B"]
    spin: Float[Array, "3 K B"]  # angular velocity, body axes


class Surroundings(NamedTuple):
    """What bounds an island and does not move with it.

    Attributes:
        body: what the boxes are; None where there are none.
        post: the shape of the things that stand fast.
        near_robot: those that the robot may touch, relative to its start.
        near_boxes: those that each box may touch.
        spring: what holds the boxes, if anything does.
    """

    body: Body | None
    post: Post
    near_robot: Float[Array, "2 F B"]
    near_boxes: Float[Array, "2 G K B"]
    spring: Spring | None


def rotated(quaternion: Float[Array, "4 *s"], rotation: Float[Array, "3 *s"]) -> jax.Array:
    """A unit quaternion after a small rotation given in body axes (its length is the angle)."""
    square = batched.dot(rotation, rotation) / 4
    c = 1 - square * (1 / 2 - square * (1 / 24 - square / 720))
    s = (1 - square * (1 / 6 - square * (1 / 120 - square / 5040))) / 2
    w, v = quaternion[0], quaternion[1:]
    r = s * rotation
    new = jnp.concatenate([(w * c - batched.dot(v, r))[None], w * r + c * v + batched.cross(v, r)])
    return new * jax.lax.rsqrt((new * new).sum(0))


def gather(
    robot: Any, start: Float[Array, "B 2"], some: boxes.FreeBoxes, chosen: Int[Array, "B K"]
) -> Island:
    """The island of some boxes, which have the batch in front.

    Positions are relative to where the robot started, which keeps them small and exact.

    Args:
        robot: its coordinates, batch last.
        start: where it started.
        some: the boxes.
        chosen: which of them.
    """
    picked = [batch_last(take(x, chosen)) for x in some]
    picked[0] = picked[0].at[:2].add(-start.T[:, None])
    return Island(robot, *picked)


def take(x: Float[Array, "B V n"], chosen: Int[Array, "B K"]) -> Float[Array, "B K n"]:
    """The chosen ones of each member of the batch."""
    return jnp.take_along_axis(x, chosen[..., None], axis=1)


def batch_last(x: Float[Array, "B K n"]) -> Float[Array, "n K B"]:
    """Components first, batch last."""
    return x.swapaxes(0, 2)


def scatter(
    begin: Island, end: Island, all_boxes: boxes.FreeBoxes, chosen: Int[Array, "B K"]
) -> boxes.FreeBoxes:
    """Boxes with what happened on the island from `begin`, which `gather` made, to `end`.

    Changes are added, so that what stood still is the same to the last bit.
    """

    def add(old, before, after):
        change = (after - before).swapaxes(0, 2)
        return old.at[jnp.arange(old.shape[0])[:, None], chosen].add(change)

    return boxes.FreeBoxes(*map(add, all_boxes, begin[1:], end[1:]))
