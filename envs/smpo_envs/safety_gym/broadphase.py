"""Which bodies may touch within a step, cheaply: only those are simulated with contacts."""

import functools
import math
from enum import IntEnum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym.boxes import Body, FreeBoxes
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.gremlins import Circling
from smpo_envs.safety_gym.robot import Robot
from smpo_envs.safety_gym.worlds import World, box_positions

_TRAVEL = 0.047  # what two boxes may come nearer to each other within an environment step, m


class Disc(NamedTuple):
    """Part of a robot's outline as seen from above, in the axes of its front, m.

    Attributes:
        ahead: of the robot's origin.
        left: of the robot's origin.
        radius: the disc covers its part of the outline.
        inner: radius of the largest disc there within the outline.
    """

    ahead: float
    left: float
    radius: float
    inner: float


class Outline(NamedTuple):
    """A robot as seen from above.

    Attributes:
        discs: they cover it.
        margin: by how much more it may move in an environment step than its speed at both ends of
            the step says, m.
        spin_margin: by how much its rate of turning may exceed those at both ends, rad/s.
    """

    discs: tuple[Disc, ...]
    margin: float
    spin_margin: float


class Sweep(NamedTuple):
    """What the discs of a robot's outline may cover in a step, if nothing is in the way."""

    centers: Float[Array, "D 2"]
    radii: Float[Array, " D"]

    @staticmethod
    def of(outline: Outline, start: Robot, end: Robot) -> "Sweep":
        """From where the robot is to where it would be without contacts."""
        seconds = start.timing.seconds
        squares = [v[0] * v[0] + v[1] * v[1] for v in (start.velocity, end.velocity)]
        path = seconds * jnp.sqrt(jnp.maximum(*squares)) + outline.margin
        rate = jnp.maximum(jnp.abs(start.turning), jnp.abs(end.turning)) + outline.spin_margin
        swing = seconds * rate
        radii = [
            disc.radius + path + math.hypot(disc.ahead, disc.left) * swing for disc in outline.discs
        ]
        return Sweep(_disc_centers(outline, start), jnp.stack(radii))


def _disc_centers(outline: Outline, robot: Robot) -> Float[Array, "D 2"]:
    x, y, angle = robot.pose
    c, s = jnp.cos(angle), jnp.sin(angle)
    places = [
        jnp.stack([x + ahead * c - left * s, y + ahead * s + left * c])
        for ahead, left, *_ in outline.discs
    ]
    return jnp.stack(places)


def in_reach_fixed(post: Post | None, sweep: Sweep, world: World) -> Bool[Array, " F"]:
    """Whether the robot may touch something that stands fast."""
    in_reach = jnp.zeros(len(world.fixed), bool)
    if post is None:
        return in_reach
    for center, reach in zip(sweep.centers, sweep.radii, strict=True):
        dx, dy = center[0] - world.fixed[:, 0], center[1] - world.fixed[:, 1]
        in_reach |= dx * dx + dy * dy < (reach + post.radius) ** 2
    return in_reach


def in_reach_boxes(
    body: Body, sweep: Sweep, world: World, circling: Circling | None
) -> Bool[Array, " V"]:
    """Whether the robot may touch a box that nothing else moves."""
    path = 0.0
    if circling is not None and world.circling is not None:
        dx, dy, _ = circling.offset - world.circling.offset
        path = jnp.sqrt(dx * dx + dy * dy)  # in an arc so flat that _MARGIN covers the rest
    squares = _square_distances(body, world, sweep.centers)
    in_reach = jnp.zeros(len(world.boxes.position), bool)
    for square, reach in zip(squares, sweep.radii, strict=True):
        in_reach |= square < (reach + path) ** 2
    return in_reach


def _square_distances(
    body: Body, world: World, points: Float[Array, "D 2"]
) -> list[Float[Array, " V"]]:
    """From points, seen from above, to each box; 0 within it."""
    places = box_positions(world)
    w, x, y, z = (world.boxes.quaternion[:, i] for i in range(4))
    # The horizontal rows of the rotation matrix; a vase may stand on any of its faces.
    east = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    north = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    axes = slice(None) if body.is_cube else slice(2)
    squares = []
    for point in points:
        dx, dy = point[0] - places[:, 0], point[1] - places[:, 1]
        excess = [
            jnp.maximum(jnp.abs(e * dx + n * dy) - body.outline, 0)
            for e, n in zip(east[axes], north[axes], strict=True)
        ]
        squares.append(sum((x * x for x in excess[1:]), start=excess[0] * excess[0]))
    return squares


class Priority(IntEnum):
    """How much a box needs to be simulated with contacts; smaller comes first."""

    IN_REACH = 0  # the robot may touch it
    MOVING = 1
    BESIDE_MOVING = 2  # stands where a moving one may reach it
    IDLE = 3  # nothing can happen to it


class Ranking(NamedTuple):
    """Which boxes come first.

    Attributes:
        priority: a `Priority` of each.
        order: among those of one priority, smaller comes first; in [0, 1).
    """

    priority: Int[Array, "*batch V"]
    order: Float[Array, "*batch V"]

    @property
    def key(self) -> Float[Array, "*batch V"]:
        """What to sort by."""
        return self.priority + self.order


def rank(world: World, in_reach: Bool[Array, " V"]) -> Ranking:
    """Those in the robot's reach, then other moving ones; the nearer to the robot the earlier."""
    offset = box_positions(world)[:, :2] - world.robot.position[None]
    distance = jnp.sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])
    others = jnp.where(is_moving(world.boxes), int(Priority.MOVING), int(Priority.IDLE))
    priority = jnp.where(in_reach, int(Priority.IN_REACH), others)
    return Ranking(priority.astype(jnp.int32), distance / (1.0 + distance))


def by_depth(outline: Outline, body: Body, world: World, free: Robot, ranking: Ranking) -> Ranking:
    """Of boxes in reach that one first which the robot, free, ends deepest in.

    So what has to wait is what the robot only brushes or pushes along.
    """
    squares = _square_distances(body, world, _disc_centers(outline, free))
    # A disc that covers a corner would be deep in a vase that the corner only pushes along.
    gaps = [jnp.sqrt(x) - disc.inner for x, disc in zip(squares, outline.discs, strict=True)]
    gap = jnp.clip(functools.reduce(jnp.minimum, gaps), -0.5, 0.49)
    in_reach = ranking.priority == Priority.IN_REACH
    return ranking._replace(order=jnp.where(in_reach, 0.5 + gap, ranking.order))


def with_neighbours(body: Body | None, ranking: Ranking, some: FreeBoxes) -> Ranking:
    """Standing boxes that a moving one may reach, before those that nothing can happen to.

    All leaves have a group axis in front.
    """
    if body is None:
        return ranking
    x, y = some.position[..., 0], some.position[..., 1]
    dx, dy = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]
    close = dx * dx + dy * dy < _reach(body) ** 2
    beside_moving = jnp.any(close & is_moving(some)[:, None], axis=2)
    raised = (ranking.priority == Priority.IDLE) & beside_moving
    return ranking._replace(
        priority=jnp.where(raised, int(Priority.BESIDE_MOVING), ranking.priority)
    )


def several(body: Body, ranking: Ranking, some: FreeBoxes) -> Bool[Array, ""]:
    """Whether more than one box is involved, one that a moving one may reach included."""
    first = jnp.arange(len(ranking.order)) == jnp.argmin(ranking.key)
    x, y = some.position[:, 0], some.position[:, 1]
    dx, dy = x - jnp.sum(jnp.where(first, x, 0)), y - jnp.sum(jnp.where(first, y, 0))
    close = ~first & (dx * dx + dy * dy < _reach(body) ** 2)
    moves = jnp.any(first & is_moving(some))
    return (jnp.sum(ranking.priority < Priority.IDLE) > 1) | (moves & jnp.any(close))


def is_moving(some: FreeBoxes) -> Bool[Array, "*batch V"]:
    """Whether a box is anything but exactly at rest."""
    return jnp.any(some.velocity != 0, axis=-1) | jnp.any(some.angular_velocity != 0, axis=-1)


def _reach(body: Body) -> float:
    """Centre distance below which two boxes may touch within an environment step, m.

    An upright one reaches to its corners; tilted, it reaches little further.
    """
    return 2 * math.sqrt(2) * body.outline + _TRAVEL
