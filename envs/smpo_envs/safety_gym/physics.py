"""One environment step of the robot among what it can run into.

The robot alone has a closed-form step, which is what nearly every environment needs at nearly every
step. Where it may touch something, or a box is still moving, the robot and what is near are stepped
together under all their contacts (`dynamics`); only those environments pay for it.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import boxes, dynamics, gremlins, island
from smpo_envs.safety_gym.boxes import Body, FreeBoxes, count
from smpo_envs.safety_gym.broadphase import (
    Priority,
    Ranking,
    Sweep,
    by_depth,
    in_reach_boxes,
    in_reach_fixed,
    is_moving,
    rank,
    several,
    with_neighbours,
)
from smpo_envs.safety_gym.car import Car
from smpo_envs.safety_gym.car_dynamics import CarMechanics
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.dynamics import Mechanics
from smpo_envs.safety_gym.gremlins import Circling
from smpo_envs.safety_gym.point import Point
from smpo_envs.safety_gym.point_dynamics import PointMechanics
from smpo_envs.safety_gym.robot import Robot
from smpo_envs.safety_gym.worlds import Motion, Solids, World, untouched
from smpo_envs.sparse import apply_where

# Things that stand fast that the robot, and each box, may touch within a step. Deviation: if more
# are near, the farther ones are not felt.
_NEAR_FIXED = 2
# In units of round-off, the speed (m/s) below which a physics step may leave a position as it was,
# so that a body would never come to rest by itself.
_UNRESOLVED = 1000
# Environments that a CPU steps in the time of one: with eight, which are one vector, XLA writes
# loops out before it could use vectors.
_LANES = 16
_HITS_PER_FIXED = 1 / 256  # share of steps in which the robot may touch one, roughly
_KNOWN: dict[type, Mechanics] = {Point: PointMechanics(), Car: CarMechanics()}
_MECHANICS: Mapping[type, Mechanics] = MappingProxyType(_KNOWN)


def simulate(solids: Solids, world: World, action: Float[Array, " 2"]) -> Motion:
    """Ten physics steps under one action, whose components act within [-1, 1]."""
    with jax.named_scope("robot"):
        robot, acceleration = world.robot.simulate_free(action)
    circling = world.circling and gremlins.simulate_free(world.circling, world.robot.timing)
    motion = untouched(world._replace(robot=robot, circling=circling), acceleration)
    if count(world.boxes) == 0 and len(world.fixed) == 0:
        return motion
    with jax.named_scope("contact"):
        return _with_contacts(solids, world, action, motion)


def _with_contacts(
    solids: Solids, world: World, action: Float[Array, " 2"], motion: Motion
) -> Motion:
    """The motion of an environment step, given what it would be if nothing touched."""
    number, fixed = count(world.boxes), len(world.fixed)
    in_groups = partial(apply_where, grouped=True, lanes=_LANES)
    sweep = Sweep.of(mechanics_of(world.robot).outline, world.robot, motion.world.robot)
    near = in_reach_fixed(solids.post, sweep, world)
    ranking = Ranking(jnp.zeros(0, jnp.int32), jnp.zeros(0, action.dtype))
    rate = fixed * _HITS_PER_FIXED
    if number:
        assert solids.body is not None
        rate += number * solids.body.activity
        ranking = rank(world, in_reach_boxes(solids.body, sweep, world, motion.world.circling))
    involved = jnp.any(ranking.priority < Priority.IDLE)
    more_than_one = jnp.bool_(False)
    context = (world, action, ranking)
    needed = involved | jnp.any(near)
    if number > 1:
        assert solids.body is not None
        more_than_one = several(solids.body, ranking, world.boxes)
        more = partial(_simulate_contacts, solids, min(solids.body.most_at_once, number))
        # Several at once are much rarer than one.
        motion = in_groups(more, more_than_one, motion, *context, rate=rate / 8)
    # Most of the rest is a box that has come to rest beside the robot, or still rocks untouched.
    needed &= ~more_than_one
    ahead = partial(_look_ahead, solids, min(1, number))
    looked = (*context, motion.world.robot)
    meets = in_groups(ahead, needed, jnp.bool_(False), *looked, rate=rate)
    needed &= meets | jnp.any(is_moving(world.boxes))
    alone = partial(_simulate_contacts, solids, min(1, number))
    return in_groups(alone, needed, motion, *context, rate=rate)


def mechanics_of(robot: Robot) -> Mechanics:
    """How a kind of robot moves among things.

    Raises:
        ValueError: it cannot.
    """
    for kind, mechanics in _MECHANICS.items():
        if isinstance(robot, kind):
            return mechanics
    known = " and ".join(kind.__name__ for kind in _MECHANICS)
    raise ValueError(
        f"a {type(robot).__name__} cannot run into things yet, only a {known} can: "
        "put it where nothing is solid, or give it a `dynamics.Mechanics` in `physics`"
    )


class _Selection(NamedTuple):
    """Some of a world, to be stepped together.

    Attributes:
        begin: the robot and the chosen boxes.
        surroundings: what bounds them.
        chosen: which boxes; [B, K].
        idle: those that nothing can happen to.
        fixed: which of the things that stand fast may meet the robot.
    """

    begin: island.Island
    surroundings: island.Surroundings
    chosen: Int[Array, "B K"]
    idle: Bool[Array, "B K"]
    fixed: Int[Array, "B F"]


def _select(solids: Solids, number: int, world: World, ranking: Ranking) -> _Selection:
    """The robot and the boxes that come first."""
    start = world.robot.start
    absolute = world.boxes
    if world.circling is not None:
        absolute = absolute._replace(
            position=absolute.position + world.circling.offset[:, None],
            velocity=absolute.velocity + world.circling.velocity[:, None],
        )
    ranking = with_neighbours(solids.body, ranking, world.boxes)
    _, chosen = jax.lax.top_k(-ranking.key, number)  # [B, K]
    priority = jnp.take_along_axis(ranking.priority, chosen, axis=1)
    near_robot = _nearest(world.fixed, jax.vmap(lambda robot: robot.position)(world.robot)[:, None])
    near_boxes = _nearest(world.fixed, island.take(absolute.position[..., :2], chosen))
    surroundings = island.Surroundings(
        body=solids.body if number else None,
        post=solids.post or Post(0.0),
        near_robot=_relative_to_start(start, world.fixed, near_robot)[:, :, 0],
        near_boxes=_relative_to_start(start, world.fixed, near_boxes),
        spring=_spring(world.circling, world.robot, chosen) if number and world.circling else None,
    )
    begin = island.gather(mechanics_of(world.robot).gather(world.robot), start, absolute, chosen)
    return _Selection(begin, surroundings, chosen, priority == Priority.IDLE, near_robot[:, 0])


def _look_ahead(
    solids: Solids,
    number: int,
    meets: Bool[Array, " B"],
    world: World,
    action: Float[Array, "B 2"],
    ranking: Ranking,
    free: Robot,
) -> Bool[Array, " B"]:
    """Whether the robot would touch anything if boxes kept still, beside their common motion."""
    selection = _select(solids, number, world, ranking)
    displacement = jnp.zeros((3, len(meets)), action.dtype)
    if world.circling is not None:
        forward = partial(gremlins.simulate_free, timing=world.robot.timing)
        after = jax.vmap(forward)(world.circling)
        displacement = (after.offset - world.circling.offset).T
    mechanics = mechanics_of(world.robot)
    return dynamics.would_touch(
        mechanics,
        selection.surroundings,
        selection.begin,
        mechanics.gather(free),
        displacement,
        action,
    )


def _simulate_contacts(
    solids: Solids,
    number: int,
    untouched: Motion,
    world: World,
    action: Float[Array, "B 2"],
    ranking: Ranking,
) -> Motion:
    """What happens to the robot and the boxes that come first under contacts.

    All leaves have a group axis `B`.
    """
    new, mechanics = untouched.world, mechanics_of(world.robot)
    if solids.body is not None and 1 < number < ranking.order.shape[1]:
        deepest_first = partial(by_depth, mechanics.outline, solids.body)
        ranking = jax.vmap(deepest_first)(world, new.robot, ranking)
    begin, surroundings, chosen, idle, fixed = _select(solids, number, world, ranking)
    moved = dynamics.simulate_contacts(mechanics, surroundings, begin, action)
    end = moved.end
    if world.circling is not None and new.circling is not None:
        end = _without_circling(end, world.circling, new.circling)
    end = _keep_idle(begin, end, idle)
    put = partial(jnp.put_along_axis, axis=1, inplace=False)
    by_box = put(untouched.box_contacts, chosen, moved.touching)
    by_fixed = put(untouched.fixed_contacts, fixed, moved.touching_fixed)
    robot = mechanics.scatter(world.robot, begin.robot, end.robot)
    some = island.scatter(begin, end, world.boxes, chosen)
    if number:
        assert solids.body is not None
        some = _put_to_rest(solids.body, world._replace(boxes=some), by_box > 0)
    return Motion(
        new._replace(robot=robot, boxes=some),
        mechanics.felt(robot, moved.acceleration),
        by_box,
        by_fixed,
    )


def _keep_idle(begin: island.Island, end: island.Island, idle: Bool[Array, "B K"]) -> island.Island:
    """The end, but for boxes that nothing has happened to."""
    kept = jax.tree.map(lambda old, new: jnp.where(idle.T, old, new), begin[1:], end[1:])
    return island.Island(end.robot, *kept)


def _without_circling(end: island.Island, before: Circling, after: Circling) -> island.Island:
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


def _relative_to_start(
    start: Float[Array, "B 2"], fixed: Float[Array, "B F 2"], chosen: Int[Array, "B K G"]
) -> Float[Array, "2 G K B"]:
    """Positions of chosen fixed things, relative to where the robot started."""
    picked = jnp.take_along_axis(fixed[:, None], chosen[..., None], axis=2)
    return (picked - start[:, None, None]).transpose(3, 2, 1, 0)


def _spring(circling: Circling, robot: Robot, chosen: Int[Array, "B K"]) -> island.Spring:
    """What holds some gremlins."""
    home = island.batch_last(island.take(circling.home, chosen))
    start = jnp.concatenate([robot.start.T, jnp.full_like(home[:1, 0], -gremlins.GREMLIN.height)])
    place = home.at[2].set(0) - start[:, None]
    target = place + gremlins.targets(circling.step, robot.timing)[:, :, None]
    return island.Spring(target, jnp.moveaxis(boxes.yaw_quaternion(home[2]), -1, 0))


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
