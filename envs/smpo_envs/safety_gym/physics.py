"""One environment step of the robot among what it can run into.

The robot alone has a closed-form step, which is what nearly every environment needs at nearly every
step. Where it may touch something, or a box is still moving, the robot and what is near are stepped
together under all their contacts (`island`); only those environments pay for it.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import boxes, gremlins, island
from smpo_envs.safety_gym import point as robot
from smpo_envs.safety_gym.boxes import Body, FreeBoxes, count
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.gremlins import Circling
from smpo_envs.safety_gym.point import Point, heading, position
from smpo_envs.sparse import apply_where

# Things that stand fast that the robot, and each box, may touch within a step. Deviation: if more
# are near, the farther ones are not felt.
_NEAR_FIXED = 2
_TRAVEL = 0.047  # what two boxes may come nearer to each other within an environment step, m
# For where the robot may touch something its outline is two discs, the sphere and the one around
# the arrow, in which the robot's rates may exceed those at both ends of the step by a little.
_DISCS = ((0.0, 0.1), (0.1, 0.0708))  # how far ahead, radius, m
_INNER_RADII = (0.1, 0.05)  # of the largest discs there within the outline, m
_MARGIN = 2e-3  # m
# rad/s; the turn servo changes the rate by up to 0.8 within a physics step.
_SPIN_MARGIN = 1.0


@dataclass(frozen=True)
class Solids:
    """What a robot can run into.

    Attributes:
        body: what the boxes are, all of one kind; None where there are none.
        post: what stands fast, all of one kind; None where nothing does.
    """

    body: Body | None = None
    post: Post | None = None


NOTHING = Solids()


class World(NamedTuple):
    """Everything solid.

    Attributes:
        point: the robot.
        boxes: what moves besides; for gremlins, beside their common motion.
        fixed: positions of what stands fast.
        circling: the common motion of gremlins; None without them.
    """

    point: Point
    boxes: FreeBoxes
    fixed: Float[Array, "F 2"]
    circling: Circling | None = None


def among(
    solids: Solids,
    point: Point,
    places: Float[Array, "V 3"] | None = None,
    fixed: Float[Array, "F 2"] | None = None,
) -> World:
    """The world as an episode begins.

    Args:
        solids: what is in it.
        point: the robot.
        places: of the boxes: x, y and heading.
        fixed: positions of what stands fast.
    """
    dtype = point.start.dtype
    places = jnp.zeros((0, 3), dtype) if places is None else places
    fixed = jnp.zeros((0, 2), dtype) if fixed is None else fixed
    body = solids.body or boxes.VASE
    circling = gremlins.start(places) if body == gremlins.GREMLIN else None
    return World(point, boxes.at_rest(body, places[:, :2], places[:, 2]), fixed, circling)


def box_positions(world: World) -> Float[Array, "V 3"]:
    """Where the boxes are in the world."""
    if world.circling is None:
        return world.boxes.position
    return world.boxes.position + world.circling.offset


class Motion(NamedTuple):
    """Where one environment step leads.

    Attributes:
        world: the new state.
        acceleration: of the robot's joints at the new state under the same action, without the
            implicit part of the damping: what the accelerometer shows.
        box_contacts: number of contact points of the robot with each box at the new state.
        fixed_contacts: the same with each thing that stands fast.
    """

    world: World
    acceleration: Float[Array, " 3"]
    box_contacts: Int[Array, " V"]
    fixed_contacts: Int[Array, " F"]


def standing(world: World) -> Motion:
    """A world as it stands at the start of an episode; nothing accelerates, nothing touches."""
    return _untouched(world, jnp.zeros_like(world.point.v))


def _untouched(world: World, acceleration: Float[Array, " 3"]) -> Motion:
    none = partial(jnp.zeros, dtype=jnp.int32)
    return Motion(world, acceleration, none(count(world.boxes)), none(len(world.fixed)))


def advance(solids: Solids, world: World, action: Float[Array, " 2"]) -> Motion:
    """Ten physics steps under one action, whose components act within [-1, 1]."""
    point, acceleration = robot.advance(world.point, action)
    circling = gremlins.advance(world.circling) if world.circling else None
    motion = _untouched(world._replace(point=point, circling=circling), acceleration)
    number, fixed = count(world.boxes), len(world.fixed)
    if number == 0 and fixed == 0:
        return motion
    sweep = _Sweep.of(world.point, point)
    near = _in_reach_fixed(solids.post, sweep, world)
    urgency = jnp.zeros(0, acceleration.dtype)
    rate = fixed * _HITS_PER_FIXED
    if number:
        assert solids.body is not None
        rate += number * solids.body.activity
        urgency = _urgency(world, _in_reach_boxes(solids.body, sweep, world, circling))
    involved, several = jnp.any(urgency < _WAITING), jnp.bool_(False)
    context = (world, action, urgency)
    needed = involved | jnp.any(near)
    if number > 1:
        assert solids.body is not None
        several = _several(solids.body, urgency, world.boxes)
        more = partial(_together, solids, min(solids.body.together, number))
        # Several at once are much rarer than one.
        motion = apply_where(more, several, motion, *context, grouped=True, rate=rate / 8)
    # Most of the rest is a box that has come to rest beside the robot, or still rocks untouched.
    needed &= ~several
    ahead = partial(_look_ahead, solids, min(1, number))
    meets = apply_where(ahead, needed, jnp.bool_(False), *context, grouped=True, rate=rate)
    needed &= meets | jnp.any(_is_moving(world.boxes))
    alone = partial(_together, solids, min(1, number))
    return apply_where(alone, needed, motion, *context, grouped=True, rate=rate)


# In units of round-off, the speed (m/s) below which a physics step may leave a position as it was,
# so that a body would never come to rest by itself.
_UNRESOLVED = 1000
_WAITING = 3.0  # least urgency of a box that nothing can happen to
_HITS_PER_FIXED = 1 / 256  # share of steps in which the robot may touch one, roughly


class _Sweep(NamedTuple):
    """What the robot's two discs may cover in a step, if nothing is in the way."""

    centers: Float[Array, "2 2"]
    radii: Float[Array, " 2"]

    @staticmethod
    def of(start: Point, end: Point) -> "_Sweep":
        squares = [v[0] * v[0] + v[1] * v[1] for v in (start.v, end.v)]
        path = robot.STEP_SECONDS * jnp.sqrt(jnp.maximum(*squares)) + _MARGIN
        swing = robot.STEP_SECONDS * (
            jnp.maximum(jnp.abs(start.v[2]), jnp.abs(end.v[2])) + _SPIN_MARGIN
        )
        return _Sweep(
            _disc_centers(start),
            jnp.stack([radius + path + ahead * swing for ahead, radius in _DISCS]),
        )


def _disc_centers(point: Point) -> Float[Array, "2 2"]:
    angle = heading(point)
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    origin = position(point)
    return jnp.stack([origin + ahead * direction for ahead, _ in _DISCS])


def _in_reach_fixed(post: Post | None, sweep: _Sweep, world: World) -> Bool[Array, " F"]:
    """Whether the robot may touch something that stands fast."""
    in_reach = jnp.zeros(len(world.fixed), bool)
    if post is None:
        return in_reach
    for center, reach in zip(sweep.centers, sweep.radii, strict=True):
        dx, dy = center[0] - world.fixed[:, 0], center[1] - world.fixed[:, 1]
        in_reach |= dx * dx + dy * dy < (reach + post.radius) ** 2
    return in_reach


def _in_reach_boxes(
    body: Body, sweep: _Sweep, world: World, circling: Circling | None
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
    body: Body, world: World, points: Float[Array, "2 2"]
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


def _urgency(world: World, in_reach: Bool[Array, " V"]) -> Float[Array, " V"]:
    """In [0, 1) for boxes in the robot's reach, in [1, 2) for other moving ones, else 3 or more.

    Smaller is more urgent; within a class the nearer to the robot (see also `_by_depth`).
    """
    offset = box_positions(world)[:, :2] - position(world.point)[None]
    distance = jnp.sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])
    rank = jnp.where(_is_moving(world.boxes), 1.0, _WAITING)
    return jnp.where(in_reach, 0.0, rank) + distance / (1.0 + distance)


def _by_depth(
    body: Body, world: World, free: Point, urgency: Float[Array, " V"]
) -> Float[Array, " V"]:
    """Urgency, where of boxes in reach that one comes first which the robot, free, ends deepest in.

    So what has to wait is what the robot only brushes or pushes along.
    """
    squares = _square_distances(body, world, _disc_centers(free))
    # The arrow's outer disc would be deep in a vase that the arrow only pushes along.
    gaps = [jnp.sqrt(x) - radius for x, radius in zip(squares, _INNER_RADII, strict=True)]
    gap = jnp.clip(jnp.minimum(*gaps), -0.5, 0.49)
    return jnp.where(urgency < 1.0, 0.5 + gap, urgency)


def _is_moving(some: FreeBoxes) -> Bool[Array, "*batch V"]:
    """Whether a box is anything but exactly at rest."""
    return jnp.any(some.velocity != 0, axis=-1) | jnp.any(some.angular_velocity != 0, axis=-1)


def _several(body: Body, urgency: Float[Array, " V"], some: FreeBoxes) -> Bool[Array, ""]:
    """Whether more than one box is involved, one that a moving one may reach included."""
    first = jnp.arange(len(urgency)) == jnp.argmin(urgency)
    x, y = some.position[:, 0], some.position[:, 1]
    dx, dy = x - jnp.sum(jnp.where(first, x, 0)), y - jnp.sum(jnp.where(first, y, 0))
    close = ~first & (dx * dx + dy * dy < _reach(body) ** 2)
    moves = jnp.any(first & _is_moving(some))
    return (jnp.sum(urgency < _WAITING) > 1) | (moves & jnp.any(close))


class _Ashore(NamedTuple):
    """Some of a world, to be stepped together.

    Attributes:
        begin: the robot and the chosen boxes.
        shore: what bounds them.
        chosen: which boxes; [B, K].
        idle: those that nothing can happen to.
        fixed: which of the things that stand fast may meet the robot.
    """

    begin: island.Island
    shore: island.Shore
    chosen: Int[Array, "B K"]
    idle: Bool[Array, "B K"]
    fixed: Int[Array, "B F"]


def _ashore(solids: Solids, number: int, world: World, urgency: Float[Array, "B V"]) -> _Ashore:
    """The robot and the most urgent boxes."""
    absolute = world.boxes
    if world.circling is not None:
        absolute = absolute._replace(
            position=absolute.position + world.circling.offset[:, None],
            velocity=absolute.velocity + world.circling.velocity[:, None],
        )
    urgency = _with_neighbours(solids.body, urgency, world.boxes)
    least, chosen = jax.lax.top_k(-urgency, number)  # [B, K]
    near_robot = _nearest(world.fixed, jax.vmap(position)(world.point)[:, None])
    near_boxes = _nearest(world.fixed, island.take(absolute.position[..., :2], chosen))
    shore = island.Shore(
        body=solids.body if number else None,
        post=solids.post or Post(0.0),
        near_robot=_about(world.point, world.fixed, near_robot)[:, :, 0],
        near_boxes=_about(world.point, world.fixed, near_boxes),
        spring=_spring(world.circling, world.point, chosen) if number and world.circling else None,
    )
    begin = island.gather(world.point, absolute, chosen)
    return _Ashore(begin, shore, chosen, -least >= _WAITING, near_robot[:, 0])


def _look_ahead(
    solids: Solids,
    number: int,
    meets: Bool[Array, " B"],
    world: World,
    action: Float[Array, "B 2"],
    urgency: Float[Array, "B V"],
) -> Bool[Array, " B"]:
    """Whether the robot would touch anything if boxes kept still, beside their common motion."""
    ashore = _ashore(solids, number, world, urgency)
    course = jnp.zeros((3, len(meets)), action.dtype)
    if world.circling is not None:
        course = (jax.vmap(gremlins.advance)(world.circling).offset - world.circling.offset).T
    return island.meets(ashore.shore, ashore.begin, course, action)


def _together(
    solids: Solids,
    number: int,
    untouched: Motion,
    world: World,
    action: Float[Array, "B 2"],
    urgency: Float[Array, "B V"],
) -> Motion:
    """What happens to the robot and the most urgent boxes under contacts.

    All leaves have a group axis `B`.
    """
    new = untouched.world
    if solids.body is not None and 1 < number < urgency.shape[1]:
        by_depth = partial(_by_depth, solids.body)
        urgency = jax.vmap(by_depth)(world, new.point, urgency)
    begin, shore, chosen, idle, fixed = _ashore(solids, number, world, urgency)
    course = island.advance(shore, begin, action)
    end = course.end
    if world.circling is not None and new.circling is not None:
        end = _beside(end, world.circling, new.circling)
    end = _unmoved(begin, end, idle)
    put = partial(jnp.put_along_axis, axis=1, inplace=False)
    by_box = put(untouched.box_contacts, chosen, course.touching)
    by_fixed = put(untouched.fixed_contacts, fixed, course.touching_fixed)
    point, some = island.scatter(begin, end, world.point, world.boxes, chosen)
    if number:
        assert solids.body is not None
        some = _put_to_rest(solids.body, world._replace(boxes=some), by_box > 0)
    return Motion(
        new._replace(point=point, boxes=some),
        island.in_start_frame(point, course.acceleration),
        by_box,
        by_fixed,
    )


def _unmoved(begin: island.Island, end: island.Island, idle: Bool[Array, "B K"]) -> island.Island:
    """The end, but for boxes that nothing has happened to."""
    kept = jax.tree.map(lambda old, new: jnp.where(idle.T, old, new), begin[1:], end[1:])
    return island.Island(end.point, *kept)


def _beside(end: island.Island, before: Circling, after: Circling) -> island.Island:
    """Gremlins without what their common motion has added in this step."""
    return end._replace(
        position=end.position - (after.offset - before.offset).T[:, None],
        velocity=end.velocity - (after.velocity - before.velocity).T[:, None],
    )


def _nearest(fixed: Float[Array, "B F 2"], places: Float[Array, "B K 2"]) -> Int[Array, "B K G"]:
    """Which of the fixed things are nearest to each place."""
    offset = fixed[:, None] - places[:, :, None]
    square = offset[..., 0] * offset[..., 0] + offset[..., 1] * offset[..., 1]
    return jax.lax.top_k(-square, min(_NEAR_FIXED, fixed.shape[1]))[1]


def _about(
    point: Point, fixed: Float[Array, "B F 2"], chosen: Int[Array, "B K G"]
) -> Float[Array, "2 G K B"]:
    """Positions of chosen fixed things, relative to where the robot started."""
    picked = jnp.take_along_axis(fixed[:, None], chosen[..., None], axis=2)
    return (picked - point.start[:, None, None]).transpose(3, 2, 1, 0)


def _spring(circling: Circling, point: Point, chosen: Int[Array, "B K"]) -> island.Spring:
    """What holds some gremlins."""
    home = island.batch_last(island.take(circling.home, chosen))
    start = jnp.concatenate([point.start.T, jnp.full_like(home[:1, 0], -gremlins.GREMLIN.height)])
    place = home.at[2].set(0) - start[:, None]
    target = place + gremlins.targets(circling.step)[:, :, None]
    return island.Spring(target, jnp.moveaxis(boxes.turned_by(home[2]), -1, 0))


def _reach(body: Body) -> float:
    """Centre distance below which two boxes may touch within an environment step, m.

    An upright one reaches to its corners; tilted, it reaches little further.
    """
    return 2 * math.sqrt(2) * body.outline + _TRAVEL


def _with_neighbours(
    body: Body | None, urgency: Float[Array, "B V"], some: FreeBoxes
) -> Float[Array, "B V"]:
    """Urgency, where standing boxes that a moving one may reach come before the rest: in [2, 3)."""
    if body is None:
        return urgency
    x, y = some.position[..., 0], some.position[..., 1]
    dx, dy = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]
    close = dx * dx + dy * dy < _reach(body) ** 2
    reachable = jnp.any(close & _is_moving(some)[:, None], axis=2)
    return jnp.where((urgency >= _WAITING) & reachable, urgency - 1.0, urgency)


def _put_to_rest(body: Body, world: World, touched: Bool[Array, "B V"]) -> FreeBoxes:
    """The boxes of a world, those exactly at rest that nearly are; gremlins return to their place.

    Deviation: the original lets them settle for ever.
    """
    some = world.boxes
    speed = body.resting_speed or _UNRESOLVED * jnp.finfo(some.velocity.dtype).eps
    slow = jnp.all(jnp.abs(some.velocity) < speed, axis=-1)
    slow &= jnp.all(jnp.abs(some.angular_velocity) < 10 * speed, axis=-1)
    place = some._replace(
        velocity=jnp.zeros_like(some.velocity),
        angular_velocity=jnp.zeros_like(some.angular_velocity),
    )
    if world.circling is not None:
        home = world.circling.home
        place = boxes.at_rest(body, home[..., :2], home[..., 2])
        slow &= jnp.all(jnp.abs(some.position - place.position) < 0.01 * speed, axis=-1)
    rests = (slow & ~touched)[..., None]
    return jax.tree.map(lambda at_rest, now: jnp.where(rests, at_rest, now), place, some)
