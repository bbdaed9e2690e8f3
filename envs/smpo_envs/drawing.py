"""What a task looks like from above: shapes that stand for its objects, and where they are.

For people only: no dynamics, observation or cost depends on it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float

ROBOT = "robot"  # the kind that every drawing has, in `poses` alone
ROBOT_RADIUS = 0.1  # m
ROBOT_COLOUR = "#222222"
# Of the kinds of each role, one after another.
COLOURS = {
    "target": ("#2a9d4a",),
    "cost": ("#d1495b", "#e08a1e", "#8e5bb0"),
    "object": ("#4a7fb5", "#7f8c96"),
}


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


def colour_of(drawing: Drawing, kind: str) -> str:
    """Of the role; kinds of the same role have different ones, as far as there are any."""
    role = drawing.looks[kind].role
    same = [other for other, look in drawing.looks.items() if look.role == role]
    return COLOURS[role][min(same.index(kind), len(COLOURS[role]) - 1)]


def ahead(pose: Float[np.ndarray, " 3"], distance: float) -> Float[np.ndarray, " 3"]:
    """The pose so many metres in front of this one."""
    x, y, angle = pose
    return np.array([x + distance * np.cos(angle), y + distance * np.sin(angle), angle])


def square(pose: Float[np.ndarray, " 3"], half: float) -> Float[np.ndarray, "4 2"]:
    """Corners of a square of that half width."""
    x, y, angle = pose
    c, s = np.cos(angle), np.sin(angle)
    corners = half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return np.array([x, y]) + corners @ np.array([[c, s], [-s, c]])
