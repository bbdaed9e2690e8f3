"""What a task looks like from above: shapes that stand for its objects, and where they are.

For people only: no dynamics, observation or cost depends on it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Float

ROBOT = "robot"  # the kind that every drawing has, in `poses` alone


class Look(NamedTuple):
    """How the objects of a kind look.

    Attributes:
        shape: disc, ring (its rim alone) or square.
        size: radius or half a side, m.
        role: what they are to the robot: where it is to go, what costs, or just in the way.
    """

    shape: Literal["disc", "ring", "square"]
    size: float
    role: Literal["target", "cost", "object"]


class Drawing(NamedTuple):
    """How to draw the states of a task.

    Attributes:
        looks: of each kind of object, in the order they are painted.
        poses: from a `pipeline_state`, x, y and heading (m, rad) of each kind and of the robot,
            `[K, 3]` each.
        sensors: entries of the observation before the lidars.
        lidars: the kinds that the lidars see which make up the rest of it, in their order.
        step_seconds: what an environment step takes in the world, s.
        half_width: of the square that is shown, m.
        follows: whether that square moves with the robot, or stands about the origin.
        walls: ends (x0, y0, x1, y1) of lines that cost to cross.
    """

    looks: Mapping[str, Look]
    poses: Callable[[Any], dict[str, Float[Array, "K 3"]]]
    sensors: int
    lidars: tuple[str, ...]
    step_seconds: float
    half_width: float
    follows: bool = False
    walls: tuple[tuple[float, float, float, float], ...] = ()
