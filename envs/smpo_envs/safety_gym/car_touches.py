"""What the Car touches: the boxes of its body, its wheels and its ball, against everything."""

from collections.abc import Mapping
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_envs.compilation import stored
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


class Part(IntEnum):
    """What of the Car can touch something."""

    BODY = 0
    LEFT = 1
    RIGHT = 2
    BALL = 3


Touches = Mapping[Part, Touch]
_WHEELS = (Part.LEFT, Part.RIGHT)
# At how many points the Car may touch a box, and all things that stand fast. Deviation: of more,
# the deepest are felt.
_MOST, _MOST_FIXED = 11, 7


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


def _body_with_boxes(
    pose: Pose, body: Body, position: Float[Array, "3 K B"], rotation: Float[Array, "3 3 K B"]
) -> Touches:
    """What `with_boxes` finds but for the wheels."""
    parts = Box(pose.parts.center[:, :, None], pose.parts.axes[:, :, :, None])  # [3, 5, 1, B]
    boxes, size = touches.near_of(body, position[:, None], rotation[:, :, None], parts.center)
    several = Box(parts.center[:, None], parts.axes[:, :, None])
    touch = collision.box_and_box(several, _half_parts(), boxes, size, hovers=not body.on_floor)
    found = {Part.BODY: touches.flat(touches.flat(touch))}
    ball = pose.ball[:, None]
    boxes, size = touches.near_of(body, position, rotation, ball)
    touch = collision.sphere_and_box(ball[:, None], car_body.BALL_RADIUS, boxes, size)
    found[Part.BALL] = touches.flat(touch)
    return found


def with_boxes(
    pose: Pose, body: Body, position: Float[Array, "3 K B"], rotation: Float[Array, "3 3 K B"]
) -> Touches:
    """With boxes that can be pushed; normals lead to the boxes; slots [n, K]."""
    wheels, boxes, size = _wheels_beside(pose, body, position, rotation)
    both = collision.cylinder_and_box(wheels, _WHEEL, boxes, size)
    by_wheel = {
        part: jax.tree.map(lambda x, i=i: jnp.take(x, i, axis=x.ndim - 4), both)
        for i, part in enumerate(_WHEELS)
    }
    found = _body_with_boxes(pose, body, position, rotation)
    return {**found, **{part: touches.flat(touch) for part, touch in by_wheel.items()}}


def _wheels_beside(
    pose: Pose, body: Body, position: Float[Array, "3 K B"], rotation: Float[Array, "3 3 K B"]
) -> tuple[Cylinder, Box, Half]:
    """Both wheels, [2, 1, 1, B], and the boxes that each may touch, [2, n, K, B]."""
    near = [
        touches.near_of(body, position, rotation, pose.wheels.center[:, i][:, None])
        for i in range(len(_WHEELS))
    ]
    centers, axes = (jnp.stack([box[x] for box, _ in near], axis=x + 1) for x in (0, 1))
    wheels = Cylinder(pose.wheels.center[:, :, None, None], pose.wheels.axis[:, :, None, None])
    return wheels, Box(centers, axes), near[0][1]


def _half_parts() -> Half:
    """Of the body's boxes, as `Pose.parts` has them, with an axis for what they may touch."""
    x, y, z = np.array([part.half for part in _PARTS]).T[:, :, None, None]
    return Half(x, y, z)


class Slots(NamedTuple):
    """Points at which the Car touches something; slots come first.

    Attributes:
        normal: unit vectors.
        point: midway between the two surfaces.
        distance: negative where there is a contact.
        part: 1 for the part of the Car that it is, in the order of `Part`, 0 for the others.
    """

    normal: Float[Array, "S 3 *s"]
    point: Float[Array, "S 3 *s"]
    distance: Float[Array, "S *s"]
    part: Float[Array, "S 4 *s"]


class Found(NamedTuple):
    """All that the Car touches, and how many points with each fixed thing and each box.

    Attributes:
        floor: wheels and ball, from the floor.
        fixed: from what stands fast; slots of all things together.
        boxes: to the boxes; `s` is [K, B]; None where there are none.
        touching_fixed: contact points.
        touching: contact points.
    """

    floor: Slots
    fixed: Slots | None
    boxes: Slots | None
    touching_fixed: Int[Array, "F B"]
    touching: Int[Array, "K B"]


def found(
    pose: Pose, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> Found:
    """What touches, no more of it than there are slots for."""
    fixed = stored(with_fixed(pose, surroundings.post, surroundings.near_robot))
    together = {part: touches.flat(touch) for part, touch in fixed.items()}
    boxes: Touches = {}
    touching = jnp.zeros(island.position.shape[1:], jnp.int32)
    if surroundings.body is not None:
        boxes = stored(with_boxes(pose, surroundings.body, island.position, rotation))
        touching = _number(boxes)
    floor = _in_order(stored(with_floor(pose)))
    return Found(
        floor,
        deepest(together, _MOST_FIXED) if surroundings.near_robot.shape[1] else None,
        deepest(boxes, _MOST) if boxes else None,
        _number(fixed),
        touching,
    )


def gap(
    pose: Pose, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
) -> Float[Array, " B"]:
    """Distance of the nearest of what the Car may touch besides the floor."""
    fixed = with_fixed(pose, surroundings.post, surroundings.near_robot)
    distances = [touch.distance for touch in fixed.values()]
    if surroundings.body is not None:
        there = (pose, surroundings.body, island.position, rotation)
        distances += [touch.distance for touch in _body_with_boxes(*there).values()]
        wheels, boxes, size = _wheels_beside(*there)
        distances.append(collision.cylinder_apart_from_box(wheels, _WHEEL, boxes, size))
    return jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in distances]).min(0)


def _number(every: Touches) -> Int[Array, "M B"]:
    """How many of the slots of each thing are contacts."""
    return batched.total(jnp.sum(touch.distance <= 0, 0, jnp.int32) for touch in every.values())


def _in_order(every: Touches) -> Slots:
    """One after another."""
    found, parts = list(every.values()), []
    axes = found[0].distance.ndim
    for part, touch in every.items():
        code = jnp.array([part is other for other in Part], touch.normal.dtype)
        code = code.reshape(len(Part), *(1,) * axes)
        parts.append(jnp.broadcast_to(code, (len(Part), *touch.distance.shape)))
    touch = touches.joined(found, -axes)
    slots_first = (jnp.moveaxis(x, 1, 0) for x in (*touch[:2], jnp.concatenate(parts, axis=1)))
    normal, point, part = slots_first
    return Slots(normal, point, touch.distance, part)


def deepest(every: Touches, most: int) -> Slots:
    """As many of all, those with the least distances, the deepest first.

    Compared in pairs: sorting cannot be a part of one kernel (see `compilation.one_kernel`).
    """
    slots = _in_order(every)
    # What is no number would be neither before nor behind the others: it is no contact.
    distance = jnp.where(jnp.isnan(slots.distance), 1, slots.distance)
    count, dtype = len(distance), distance.dtype
    table = jnp.concatenate([slots.normal, slots.point, distance[:, None], slots.part], axis=1)
    table, distance = stored((table, distance))
    pick = partial(jax.lax.dynamic_index_in_dim, keepdims=False)
    beside = (-1, *(1,) * (distance.ndim - 1))
    numbers = jnp.arange(count, dtype=dtype).reshape(beside)

    def count_before(i: Int[Array, ""], rank: jax.Array) -> jax.Array:
        other = stored(pick(distance, i))
        first = (numbers > i.astype(dtype)).astype(dtype)
        return rank + (other < distance).astype(dtype) + first * (other == distance).astype(dtype)

    def put(i: Int[Array, ""], picked: jax.Array) -> jax.Array:
        here = stored(pick(rank, i) == numbers[:most])
        return picked + jnp.where(here[:, None], pick(table, i), 0)

    rank = jax.lax.fori_loop(0, count, count_before, jnp.zeros_like(distance))
    none = jnp.zeros((min(most, count), *table.shape[1:]), dtype)
    picked = stored(jax.lax.fori_loop(0, count, put, none))
    return Slots(picked[:, :3], picked[:, 3:6], picked[:, 6], picked[:, 7:])
