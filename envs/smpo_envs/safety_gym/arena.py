"""Arenas: a square in which objects stand at random, around a robot.

A kind of object, a level and what a level charges for are values. Goal, Button and Push are made of
them; nothing here knows what the robot is paid for.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smpo_envs.drawing import ROBOT, Drawing, Look
from smpo_envs.safe_env import Environment
from smpo_envs.safety_gym import boxes, layout, physics, point
from smpo_envs.safety_gym.boxes import PUSH_BOX, VASE, Body
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.costs import Cost, Scene
from smpo_envs.safety_gym.gremlins import GREMLIN
from smpo_envs.safety_gym.lidar import BINS, lidar
from smpo_envs.safety_gym.physics import Motion, Solids, World
from smpo_envs.safety_gym.sensors import POINT_SENSORS, frame_of, into, point_sensors
from smpo_envs.shift import Shift
from smpo_envs.sparse import apply_where

AGENT_KEEPOUT = 0.4
EPISODE_LENGTH = 1000
MOST_COVERED = 0.4  # share of their square that the keepouts of a shift's hazards may take
REWARD_LIMIT = 10.0  # never reached in sane motion
GOAL = "goal"  # the kind that a task moves by itself
HAZARDS = "hazards"  # the kind that a shift is about


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: what its lidar, its drawing and its costs call it.
        keepout: two objects are not placed closer than the sum of theirs, m.
        look: how it looks; shown as costly where a level charges for it.
        solid: a body that can be pushed, or a post that stands fast; None if it can be driven over.
    """

    name: str
    keepout: float
    look: Look
    solid: Body | Post | None = None


def goal(radius: float, keepout: float) -> Kind:
    """Where the robot is to go, or to bring something."""
    return Kind(GOAL, keepout, Look("disc", radius, "target"))


def hazards(radius: float, keepout: float) -> Kind:
    """Discs on the floor that cost to be in."""
    return Kind(HAZARDS, keepout, Look("disc", radius, "object"))


VASES = Kind("vases", 0.15, Look("square", VASE.outline, "object"), VASE)
GREMLINS = Kind("gremlins", 0.4, Look("square", GREMLIN.outline, "object"), GREMLIN)
PUSH_BOXES = Kind("push_box", 0.2, Look("square", PUSH_BOX.outline, "object"), PUSH_BOX)
BUTTONS = Kind("buttons", 0.2, Look("disc", 0.1, "object"), Post(0.1, ball=True))
PILLARS = Kind("pillars", 0.3, Look("disc", 0.2, "object"), Post(0.2))


@dataclass(frozen=True)
class Level:
    """How large an arena is, what stands in it, and what of it is charged for.

    Attributes:
        extent: half width of the square that everything is placed in, m.
        objects: kinds and their numbers, the goal included, in the order in which they are placed
            and seen.
        costs: what is charged for.

    Raises:
        ValueError: two kinds have the same name, or two can be pushed, or two stand fast.
    """

    extent: float
    objects: tuple[tuple[Kind, int], ...]
    costs: tuple[Cost, ...] = ()

    def __post_init__(self) -> None:
        names = [kind.name for kind, _ in self.objects]
        if len(set(names)) < len(names):
            raise ValueError(f"objects={names}: each kind of object must have a name of its own")
        for what, type_ in (("can be pushed", Body), ("stand fast", Post)):
            same = [kind.name for kind, _ in self.objects if isinstance(kind.solid, type_)]
            if len(same) > 1:
                raise ValueError(f"{' and '.join(same)} {what}: a level can have one such kind")

    @cached_property
    def solids(self) -> Solids:
        """What the robot can run into."""
        kinds = [kind.solid for kind, number in self.objects if number]
        body = next((solid for solid in kinds if isinstance(solid, Body)), None)
        post = next((solid for solid in kinds if isinstance(solid, Post)), None)
        return Solids(body, post)

    @property
    def seen(self) -> tuple[str, ...]:
        """The kinds that have a lidar: those of which there are any."""
        return tuple(kind.name for kind, number in self.objects if number)

    @property
    def observation_size(self) -> int:
        """Sensors and lidars."""
        return POINT_SENSORS + BINS * len(self.seen)


class Arena(NamedTuple):
    """Where everything but the goal is.

    Attributes:
        world: what is solid.
        markers: positions of the objects of each kind that can be driven over.
        radii: of those kinds whose discs are not as large as the level says (a shift).
    """

    world: World
    markers: dict[str, Float[Array, "K 2"]]
    radii: dict[str, Float[Array, ""]] | None = None


def shifted(level: Level, shift: Shift, most: int | None = None) -> tuple[Level, Shift]:
    """A level with room for a shift, and the shift with what it leaves open filled in.

    Args:
        level: one that has hazards.
        shift: leaves may be traced if `most` is given.
        most: hazards that there is room for in arrays; by default just those of the shift.

    Raises:
        ValueError: the level has no hazards, or the shift is none that it can have.
    """
    found = [(kind, number) for kind, number in level.objects if kind.name == HAZARDS and number]
    if not found:
        raise ValueError("there are no hazards to shift at this level")
    ((kind, number),) = found
    own = Shift(hazards=number, size=kind.look.size, extent=level.extent)
    pairs = zip(shift, own, strict=True)
    full = Shift(*(mine if given is None else given for given, mine in pairs))
    if most is None:
        most = max(round(float(np.asarray(full.hazards))), 1)
    _check_shift(level, kind, full, most)
    if isinstance(full.size, int | float):
        kind = dataclasses.replace(kind, look=kind.look._replace(size=float(full.size)))
    objects = tuple((kind, most) if k.name == HAZARDS else (k, n) for k, n in level.objects)
    return dataclasses.replace(level, objects=objects), full


def factory(
    levels: Sequence[Level], environment: Callable[..., Environment]
) -> Callable[..., Environment]:
    """The `make` of a task whose hazards can be shifted.

    Args:
        levels: the task's, by difficulty.
        environment: the task at any level, `(level, *, episode_length, shift)`.
    """

    def make(
        *,
        level: int,
        episode_length: int = EPISODE_LENGTH,
        shift: Shift | None = None,
        most: int | None = None,
    ) -> Environment:
        """The task at difficulty 0, 1 or 2, for the Point robot; see `shifted` for shifts."""
        own = levels[level]
        if shift is not None:
            own, shift = shifted(own, shift, most)
        return environment(own, episode_length=episode_length, shift=shift)

    return make


def _check_shift(level: Level, kind: Kind, shift: Shift, most: int) -> None:
    """Refuses numbers that no layout can have; traced ones are taken as they are."""
    hazards, size, extent = (float(x) if isinstance(x, int | float) else None for x in shift)
    if hazards is not None and not 0 <= round(hazards) <= most:
        raise ValueError(f"hazards={hazards:g} must be between 0 and {most}")
    if size is not None and not 0 < size < math.inf:
        raise ValueError(f"size={size:g} must be positive (m)")
    if extent is not None and not kind.keepout < extent <= level.extent:
        raise ValueError(
            f"extent={extent:g} must be above {kind.keepout:g}, the hazards' keepout, and at most "
            f"{level.extent:g}, that of the level (m)"
        )
    if hazards is not None and extent is not None:
        covered = round(hazards) * math.pi * kind.keepout**2 / (2 * extent) ** 2
        if covered > MOST_COVERED:
            raise ValueError(
                f"hazards={hazards:g} do not fit within extent={extent:g}: their keepouts would "
                f"cover {covered:.0%} of the square, and layouts are found up to {MOST_COVERED:.0%}"
            )


def sample(
    level: Level,
    layout_key: PRNGKeyArray,
    rotation_key: PRNGKeyArray,
    shift: Shift | None = None,
) -> Arena:
    """A fresh layout with the robot at rest in it; level and shift are what `shifted` returned.

    The goal of the layout only pushes the other objects aside: tasks then place it anew.

    Deviation: the original draws from one stream of numbers; here each draw has a key of its own,
    so that layouts agree in distribution, not seed by seed.
    """
    keepouts = [kind.keepout for kind, number in level.objects for _ in range(number)]
    subset = None if shift is None else _subset(level, shift)
    positions = layout.sample(layout_key, (AGENT_KEEPOUT, *keepouts), level.extent, subset)
    agent, rest = positions[0], positions[1:]
    markers, pushed, fixed = {}, None, None
    for kind, number in level.objects:
        these, rest = rest[:number], rest[number:]
        if isinstance(kind.solid, Body):
            pushed = these
        elif isinstance(kind.solid, Post):
            fixed = these
        elif kind.name != GOAL:
            markers[kind.name] = these
    number = 0 if pushed is None else len(pushed)
    rotation = 2 * jnp.pi * jax.random.uniform(rotation_key, (1 + number,), positions.dtype)
    places = None if pushed is None else jnp.column_stack([pushed, rotation[1:]])
    robot = point.at_rest(agent, rotation[0])
    radii = None if shift is None else {HAZARDS: jnp.asarray(shift.size, positions.dtype)}
    return Arena(physics.among(level.solids, robot, places, fixed), markers, radii)


def _subset(level: Level, shift: Shift) -> layout.Subset:
    """The hazards that a shift has, in their own square, and all of everything else."""
    names = [ROBOT, *(kind.name for kind, number in level.objects for _ in range(number))]
    place = np.cumsum([name == HAZARDS for name in names])
    is_hazard = jnp.asarray([name == HAZARDS for name in names])
    dtype = jnp.result_type(float)
    number = jnp.round(jnp.asarray(shift.hazards, dtype))
    present = ~is_hazard | (jnp.asarray(place, dtype) <= number)
    extent = jnp.where(is_hazard, jnp.asarray(shift.extent, dtype), level.extent)
    return layout.Subset(present, extent)


def positions(level: Level, arena: Arena) -> dict[str, Float[Array, "K 2"]]:
    """Where the objects of each kind are, but for the goal."""
    where = dict(arena.markers)
    for kind, _ in level.objects:
        if isinstance(kind.solid, Body):
            where[kind.name] = physics.box_positions(arena.world)[:, :2]
        elif isinstance(kind.solid, Post):
            where[kind.name] = arena.world.fixed
    return where


def scene(arena: Arena, motion: Motion, exempt: Bool[Array, " F"] | None = None) -> Scene:
    """What costs depend on; `exempt` are things standing fast that may be touched just now."""
    return Scene(point.position(motion.world.point), motion, arena.markers, exempt, arena.radii)


def observe(
    level: Level,
    motion: Motion,
    where: Mapping[str, Float[Array, "K 2"]],
    hidden: Mapping[str, Bool[Array, ""]] | None = None,
) -> Float[Array, " O"]:
    """Sensors, then a lidar for each kind, but for those that are `hidden` where that is true."""
    frame = frame_of(motion.world.point)
    readings = [point_sensors(motion, frame)]
    for name in level.seen:
        reading = lidar(*into(frame, where[name]))
        dark = (hidden or {}).get(name)
        readings.append(reading if dark is None else jnp.where(dark, 0, reading))
    return jnp.concatenate(readings)


def place_goal(
    level: Level, key: PRNGKeyArray, agent: Float[Array, " 2"], obstacles: Float[Array, "K 2"]
) -> tuple[Float[Array, " 2"], Bool[Array, ""]]:
    """A goal among the robot and all `obstacles` (see there), and whether there is room for it."""
    keepouts = [k.keepout for k, number in level.objects if k.name != GOAL for _ in range(number)]
    others = jnp.concatenate([agent[None], obstacles])
    (own,) = (kind.keepout for kind, _ in level.objects if kind.name == GOAL)
    return layout.place(key, others, (AGENT_KEEPOUT, *keepouts), own, level.extent)


def obstacles(level: Level, arena: Arena) -> Float[Array, "K 2"]:
    """Where all objects but the goal are, in the order of the level."""
    where = positions(level, arena)
    nothing = jnp.zeros((0, 2), arena.world.point.start.dtype)
    return jnp.concatenate([nothing, *(where[name] for name in level.seen if name != GOAL)])


def redraw_goal(
    level: Level,
    met: Bool[Array, ""],
    goal: Float[Array, " 2"],
    key: PRNGKeyArray,
    arena: Arena,
) -> tuple[Float[Array, " 2"], PRNGKeyArray, Bool[Array, ""]]:
    """A new goal if the old one is met: the goal, the next key, whether there was no room."""

    def draw(operand, agent, around):
        goal, key, _ = operand
        draw_key, next_key = jax.random.split(key)
        drawn, found = place_goal(level, draw_key, agent, around)
        return jnp.where(found, drawn, goal), next_key, ~found

    context = (point.position(arena.world.point), obstacles(level, arena))
    return apply_where(draw, met, (goal, key, jnp.bool_(False)), *context, rate=1 / 128)


def drawing(level: Level, parts) -> Drawing:
    """How a level looks; `parts` are the arena and the goal's position of a task's state."""
    charged = {cost.kind for cost in level.costs}
    looks = {
        kind.name: kind.look._replace(role="cost") if kind.name in charged else kind.look
        for kind, _ in level.objects
    }
    # The goal last, on top of what it may be drawn upon.
    looks[GOAL] = looks.pop(GOAL)

    def poses(state) -> dict[str, Float[Array, "K 3"]]:
        arena, goal = parts(state)
        where = {**positions(level, arena), GOAL: goal[None]}
        shown = {name: jnp.pad(xy, ((0, 0), (0, 1))) for name, xy in where.items()}
        for kind, _ in level.objects:
            if isinstance(kind.solid, Body):
                turned = boxes.poses(arena.world.boxes)
                shown[kind.name] = shown[kind.name].at[:, 2].set(turned[:, 2])
        return {ROBOT: point.pose(arena.world.point)[None], **shown}

    return Drawing(
        looks, poses, POINT_SENSORS, level.seen, point.STEP_SECONDS, half_width=level.extent + 0.5
    )


def distance(
    a: Float[Array, " *d"], b: Float[Array, " *d"], rise: jax.Array | float = 0.0
) -> Float[Array, ""]:
    """Between two places, one of them higher by `rise`."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return jnp.sqrt(dx * dx + dy * dy + rise * rise)
