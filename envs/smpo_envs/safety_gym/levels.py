"""Levels: which kinds of objects stand in an arena, how many, and what of them is charged for.

A kind of object and a level are values. Goal, Button and Push are played on them; nothing here
knows what the robot is paid for.
"""

from dataclasses import dataclass
from functools import cached_property

from smpo_envs.drawing import Look
from smpo_envs.safety_gym.boxes import PUSH_BOX, SMALL_PUSH_BOX, VASE, Body
from smpo_envs.safety_gym.collision import Post
from smpo_envs.safety_gym.costs import Cost
from smpo_envs.safety_gym.gremlins import GREMLIN
from smpo_envs.safety_gym.worlds import Solids

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
SMALL_PUSH_BOXES = Kind(
    PUSH_BOXES.name, 0.125, Look("square", SMALL_PUSH_BOX.outline, "object"), SMALL_PUSH_BOX
)
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
