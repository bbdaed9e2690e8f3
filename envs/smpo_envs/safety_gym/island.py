"""An island: the robot among a few boxes, in world axes and with the batch last."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, boxes
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Post


class Spring(NamedTuple):
    """What holds gremlins: where their springs would have them, in each physics step."""

    target: Float[Array, "11 3 K B"]
    quaternion: Float[Array, "4 K B"]


class Island(NamedTuple):
    """The robot in world axes (but about its start), and `K` boxes."""

    point: robot.Coordinates  # fields [B]
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


def gather(point: robot.Point, some: boxes.FreeBoxes, chosen: Int[Array, "B K"]) -> Island:
    """The island of some boxes; leaves of the arguments have the batch in front.

    Positions are relative to where the robot started, which keeps them small and exact.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    angle = point.rotation + point.q[:, 2]
    x, y = _rotate(point.q, c, s)
    vx, vy = _rotate(point.v, c, s)
    picked = [batch_last(take(x, chosen)) for x in some]
    picked[0] = picked[0].at[:2].add(-point.start.T[:, None])
    return Island(
        robot.Coordinates(x, y, angle, vx, vy, point.v[:, 2], jnp.cos(angle), jnp.sin(angle)),
        *picked,
    )


def take(x: Float[Array, "B V n"], chosen: Int[Array, "B K"]) -> Float[Array, "B K n"]:
    """The chosen ones of each member of the batch."""
    return jnp.take_along_axis(x, chosen[..., None], axis=1)


def batch_last(x: Float[Array, "B K n"]) -> Float[Array, "n K B"]:
    """Components first, batch last."""
    return x.swapaxes(0, 2)


def scatter(
    begin: Island,
    end: Island,
    point: robot.Point,
    all_boxes: boxes.FreeBoxes,
    chosen: Int[Array, "B K"],
) -> tuple[robot.Point, boxes.FreeBoxes]:
    """Robot and boxes with what happened on the island from `begin`, which `gather` made, to `end`.

    Changes are added, so that what stood still is the same to the last bit.
    """
    c, s = jnp.cos(point.rotation), jnp.sin(point.rotation)
    change = jax.tree.map(jnp.subtract, end, begin)
    p = change.point
    q = jnp.stack([*_rotate(jnp.stack([p.x, p.y], -1), c, -s), p.angle], axis=-1)
    v = jnp.stack([*_rotate(jnp.stack([p.vx, p.vy], -1), c, -s), p.w], axis=-1)

    def add(old, new):
        return old.at[jnp.arange(old.shape[0])[:, None], chosen].add(new.swapaxes(0, 2))

    changes = (change.position, change.quaternion, change.velocity, change.spin)
    moved = point._replace(q=point.q + q, v=point.v + v)
    return moved, boxes.FreeBoxes(*map(add, all_boxes, changes))


def in_start_frame(point: robot.Point, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """The robot's acceleration along its joints, from world axes."""
    x, y = _rotate(acceleration, jnp.cos(point.rotation), -jnp.sin(point.rotation))
    return jnp.stack([x, y, acceleration[:, 2]], axis=-1)


def _rotate(vector: Float[Array, "B n"], cos: jax.Array, sin: jax.Array) -> tuple:
    x, y = vector[:, 0], vector[:, 1]
    return cos * x - sin * y, sin * x + cos * y
