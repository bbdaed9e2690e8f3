"""What the Car touches: the boxes of its body, its wheels and its ball, against everything."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import batched, car_body, collision, touches
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.collision import Box, Cylinder, Half, Post, Round, Touch
from smpo_envs.safety_gym.island import Island, Surroundings

_WHEEL = Round(car_body.WHEEL_RADIUS, car_body.WHEEL_HALF_WIDTH)
# A wheel as what stands upright beside it meets it: at the height of its axle.
_WHEEL_FROM_ABOVE = Half(_WHEEL.half_length, _WHEEL.radius, _WHEEL.radius)
_PARTS = tuple(car_body.PARTS.values())


class Pose(NamedTuple):
    """Where the Car's parts are.

    Attributes:
        origin: of the body.
        rotation: of the body; its columns are the body's axes.
        parts: the boxes of the body, one after the other along the second last axis.
        wheels: left and right one.
        ball: its centre.
    """

    origin: Float[Array, "3 B"]
    rotation: Float[Array, "3 3 B"]
    parts: Box
    wheels: Cylinder
    ball: Float[Array, "3 B"]


def pose_of(origin: Float[Array, "3 B"], rotation: Float[Array, "3 3 B"]) -> Pose:
    """Where the parts are that turn with the body."""

    def placed(places: list[car_body.Vector]) -> Float[Array, "3 n B"]:
        table = jnp.asarray(np.array(places), origin.dtype).T[:, :, None]
        return origin[:, None] + batched.apply(rotation[:, :, None], table)

    parts = placed([part.center for part in _PARTS])
    axle = rotation[:, 0][:, None]
    return Pose(
        origin,
        rotation,
        Box(parts, rotation[:, :, None]),
        Cylinder(placed(list(car_body.WHEELS)), axle),
        placed([car_body.BALL])[:, 0],
    )


class Part(Enum):
    """What of the Car can touch something."""

    BODY = "body"
    LEFT = "left"
    RIGHT = "right"
    BALL = "ball"


Touches = Mapping[Part, Touch]
_WHEELS = (Part.LEFT, Part.RIGHT)
# Of how many points at once each part may touch a box, and all things that stand fast. Deviation:
# of more, the deepest are felt.
_SLOTS = {Part.BODY: 8, Part.LEFT: 1, Part.RIGHT: 1, Part.BALL: 1}
_SLOTS_FIXED = {**_SLOTS, Part.BODY: 4}


def with_floor(pose: Pose) -> Touches:
    """The two lowest points of each wheel and that of the ball; normals lead to them; slots [n].

    Deviation: the body does not touch the floor: it would have to tip over.
    """
    axle = pose.rotation[:, 0]
    level = jnp.sqrt(1 - axle[2] * axle[2])
    found = {Part.BALL: _above(pose.ball, pose.ball[2] - car_body.BALL_RADIUS)}
    for i, part in enumerate(_WHEELS):
        center = pose.wheels.center[:, i]
        slots = []
        for end in (-_WHEEL.half_length, _WHEEL.half_length):
            distance = center[2] + end * axle[2] - _WHEEL.radius * level
            along = end + _WHEEL.radius * axle[2] / level
            slots.append(_above(center + along * axle, distance))
        found[part] = touches.joined(slots, -2)
    return found


def _above(point: Float[Array, "3 B"], distance: Float[Array, " B"]) -> Touch:
    """A contact with the floor below a point; slots [1]."""
    normal = jnp.zeros_like(point).at[2].set(1)
    return Touch(normal[:, None], point.at[2].set(distance / 2)[:, None], distance[None])


def with_fixed(pose: Pose, post: Post, places: Float[Array, "2 F B"]) -> Touches:
    """With things that stand fast; normals lead to the Car; slots [n, F]."""

    def level_with(center: Float[Array, "3 1 B"]) -> Float[Array, "3 F B"]:
        height = jnp.broadcast_to(center[2], (1, *places.shape[1:]))
        return jnp.concatenate([places, height])

    middle = touches.at_height(places)[:, None]  # [3, 1, F, B]
    parts = Box(pose.parts.center[:, :, None], pose.parts.axes[:, :, :, None])
    ball = pose.ball[:, None]
    opposite = middle[:, 0] if post.ball else level_with(ball)
    found = {
        Part.BODY: touches.flat(collision.post_and_box(post, middle, parts, _half_parts())),
        Part.BALL: collision.discs(opposite, post.radius, ball, car_body.BALL_RADIUS),
    }
    for i, part in enumerate(_WHEELS):
        center = pose.wheels.center[:, i][:, None]
        if post.ball:
            cylinder = Cylinder(center, pose.wheels.axis)
            touch = collision.sphere_and_cylinder(middle[:, 0], post.radius, cylinder, _WHEEL)
        else:
            upright = level_with(center)
            box = Box(center, pose.rotation[:, :, None])
            touch = collision.sphere_and_box(upright, post.radius, box, _WHEEL_FROM_ABOVE)
        found[part] = touch
    return found


def with_boxes(
    pose: Pose, body: Body, position: Float[Array, "3 K B"], rotation: Float[Array, "3 3 K B"]
) -> Touches:
    """With boxes that can be pushed; normals lead to the boxes; slots [n, K]."""
    parts = Box(pose.parts.center[:, :, None], pose.parts.axes[:, :, :, None])  # [3, 5, 1, B]
    boxes, size = touches.near_of(body, position[:, None], rotation[:, :, None], parts.center)
    several = Box(parts.center[:, None], parts.axes[:, :, None])
    touch = collision.box_and_box(several, _half_parts(), boxes, size)
    found = {Part.BODY: touches.flat(touches.flat(touch))}
    ball = pose.ball[:, None]
    boxes, size = touches.near_of(body, position, rotation, ball)
    touch = collision.sphere_and_box(ball[:, None], car_body.BALL_RADIUS, boxes, size)
    found[Part.BALL] = touches.flat(touch)
    for i, part in enumerate(_WHEELS):
        wheel = Cylinder(pose.wheels.center[:, i][:, None], pose.wheels.axis)
        boxes, size = touches.near_of(body, position, rotation, wheel.center)
        beside = Cylinder(wheel.center[:, None], wheel.axis[:, None])
        found[part] = touches.flat(collision.cylinder_and_box(beside, _WHEEL, boxes, size))
    return found


def _half_parts() -> Half:
    """Of the body's boxes, as `Pose.parts` has them, with an axis for what they may touch."""
    x, y, z = np.array([part.half for part in _PARTS]).T[:, :, None, None]
    return Half(x, y, z)


class Found(NamedTuple):
    """All that the Car touches, and how many points with each fixed thing and each box.

    Attributes:
        floor: wheels and ball, from the floor.
        fixed: from what stands fast; slots of all things together.
        boxes: to the boxes; slots [n, K]; empty where there are none.
        touching_fixed: contact points.
        touching: contact points.
    """

    floor: Touches
    fixed: Touches
    boxes: Touches
    touching_fixed: Int[Array, "F B"]
    touching: Int[Array, "K B"]


def found(
    pose: Pose, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> Found:
    """What touches, no more of it than there are slots for."""
    fixed = with_fixed(pose, surroundings.post, surroundings.near_robot)
    together = {part: touches.flat(touch) for part, touch in fixed.items()}
    boxes: Touches = {}
    touching = jnp.zeros(island.position.shape[1:], jnp.int32)
    if surroundings.body is not None:
        boxes = with_boxes(pose, surroundings.body, island.position, rotation)
        touching = _number(boxes)
    return Found(
        with_floor(pose),
        {part: _deepest(touch, _SLOTS_FIXED[part]) for part, touch in together.items()},
        {part: _deepest(touch, _SLOTS[part]) for part, touch in boxes.items()},
        _number(fixed),
        touching,
    )


def gap(
    pose: Pose, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> Float[Array, " B"]:
    """Distance of the nearest of what the Car may touch besides the floor."""
    every = [with_fixed(pose, surroundings.post, surroundings.near_robot)]
    if surroundings.body is not None:
        every.append(with_boxes(pose, surroundings.body, island.position, rotation))
    distances = [touch.distance for found in every for touch in found.values()]
    return jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in distances]).min(0)


def _number(every: Touches) -> Int[Array, "M B"]:
    """How many of the slots of each thing are contacts."""
    return batched.total(jnp.sum(touch.distance <= 0, 0, jnp.int32) for touch in every.values())


def _deepest(touch: Touch, number: int) -> Touch:
    """As many of the slots, those with the least distances."""
    if touch.distance.shape[0] <= number:
        return touch
    _, order = jax.lax.top_k(-jnp.moveaxis(touch.distance, 0, -1), number)
    order = jnp.moveaxis(order, -1, 0)

    def picked(x: jax.Array, axis: int) -> jax.Array:
        index = order if axis == 0 else order[None]
        return jnp.take_along_axis(x, index, axis=axis)

    return Touch(picked(touch.normal, 1), picked(touch.point, 1), picked(touch.distance, 0))
