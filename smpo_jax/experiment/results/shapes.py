"""Things of a task seen from above, as shapes of matplotlib, each role in its colours."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon

from smpo_envs.drawing import COLOURS, ROBOT_COLOUR, Drawing, Look, colour_of, square

PATH_COLOUR, COST_COLOUR = "#1f4e9c", "#e3120b"

View = tuple[float, float, float, float]  # x from, to, y from, to; m


def prepare(axes: Axes, drawing: Drawing, view: View) -> None:
    """Axes of equal scale that show the view, and the walls."""
    axes.set_aspect("equal")
    axes.set_xlim(view[0], view[1])
    axes.set_ylim(view[2], view[3])
    for x0, y0, x1, y1 in drawing.walls:
        axes.plot([x0, x1], [y0, y1], color=COLOURS["cost"][0], linewidth=3, alpha=0.6)


def view(drawing: Drawing, path: Float[np.ndarray, "T 2"]) -> View:
    """What is shown: the arena, and more of it where the robot goes there."""
    half = drawing.half_width
    low, high = np.min(path, axis=0) - 0.3, np.max(path, axis=0) + 0.3
    if not drawing.follows:
        low, high = np.minimum(low, -half), np.maximum(high, half)
    side = np.max(high - low) / 2  # a square
    middle = (low + high) / 2
    return (middle[0] - side, middle[0] + side, middle[1] - side, middle[1] + side)


def handles(drawing: Drawing, poses: Mapping[str, Float[np.ndarray, "T K 3"]]) -> list[Line2D]:
    """Of a legend: each kind of which there is one, in its shape, the walls and the robot."""
    found = []
    for kind, look in drawing.looks.items():
        if poses[kind].shape[1]:
            marker = "s" if look.shape == "square" else "o"
            mark = _mark(marker, colour_of(drawing, kind), f"{kind} ({look.role})")
            mark.set_alpha(0.6)
            if look.shape == "ring":
                mark.set(fillstyle="none", markeredgewidth=2.0)
            found.append(mark)
    if drawing.walls:
        wall = Line2D([], [], color=COLOURS["cost"][0], linewidth=3, alpha=0.6)
        wall.set_label("walls (cost)")
        found.append(wall)
    return [*found, _mark("o", ROBOT_COLOUR, "robot")]


def _mark(marker: str, colour: str, label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=9, markeredgewidth=0.0, color=colour,
        label=label,
    )  # fmt: skip


def patch(look: Look, pose: Float[np.ndarray, " 3"], colour: str, alpha: float = 0.6) -> Patch:
    """A thing at a pose."""
    if look.shape == "square":
        return Polygon(square(pose, look.size), color=colour, alpha=alpha)
    hollow = {"fill": False, "linewidth": 2.0} if look.shape == "ring" else {"linewidth": 0.0}
    return Circle((pose[0], pose[1]), look.size, color=colour, alpha=alpha, **hollow)


def move(patch: Patch, look: Look, pose: Float[np.ndarray, " 3"]) -> None:
    """Moves what `patch` has made to another pose."""
    if isinstance(patch, Polygon):
        patch.set_xy(square(pose, look.size))
    elif isinstance(patch, Circle):
        patch.center = (pose[0], pose[1])
