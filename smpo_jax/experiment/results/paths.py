"""The paths of several episodes, seen from above, as a picture."""

import math
import operator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smpo_envs.drawing import ROBOT, ROBOT_COLOUR, colour_of
from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.experiment.results import shapes
from smpo_jax.experiment.results.episodes import Trajectories
from smpo_jax.types import PerCost

COLUMNS = 4  # of the pictures of paths


def draw(trajectories: Trajectories, *, title: str, cost_limit: PerCost) -> Figure:
    """One small picture for each episode: the path, red where it cost, and things at the start."""
    number = len(trajectories.length)
    columns = min(COLUMNS, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows + 0.4), dpi=110, layout="constrained")
    limits = ", ".join(f"{limit:g}" for limit in constraints.values(cost_limit))
    figure.suptitle(f"{title}: cost limit {limits}")
    for episode in range(number):
        _draw_episode(
            figure.add_subplot(rows, columns, episode + 1), trajectories, episode, cost_limit
        )
    figure.legend(
        handles=[
            *shapes.handles(trajectories.drawing, trajectories.poses),
            Line2D([], [], color=shapes.PATH_COLOUR, label="path"),
            Line2D([], [], color=shapes.COST_COLOUR, label="where it costs"),
        ],
        loc="outside lower center", ncols=max(2, 2 * columns), frameon=False, fontsize="small",
    )  # fmt: skip
    return figure


def _draw_episode(
    axes: Axes, trajectories: Trajectories, episode: int, cost_limit: PerCost
) -> None:
    drawing, last = trajectories.drawing, trajectories.length[episode]
    path = trajectories.poses[ROBOT][episode, : last + 1, 0, :2]
    costs = each(lambda own: own[episode, : last + 1], trajectories.cost)
    at_the_end = each(operator.itemgetter(-1), costs)
    shapes.prepare(axes, drawing, shapes.view(drawing, path))
    for kind, look in drawing.looks.items():
        places = trajectories.poses[kind][episode, : last + 1]
        # All goals of the episode, but other things only where they stood at first.
        shown = np.unique(places[:, 0], axis=0) if look.role == "target" else places[0]
        for pose in shown:
            colour = colour_of(drawing, kind)
            axes.add_patch(shapes.patch(look, pose, colour, alpha=0.3))
    pieces = np.stack([path[:-1], path[1:]], axis=1)
    colours = np.where(
        np.diff(constraints.total(costs))[:, None] > 0,
        to_rgba(shapes.COST_COLOUR),
        to_rgba(shapes.PATH_COLOUR),
    )
    axes.add_collection(LineCollection(list(pieces), colors=colours, linewidths=1.0))
    axes.plot(*path[0], "o", color=ROBOT_COLOUR, markersize=5)
    words = [
        f"{name.replace('/', ' ')} {cost:.0f}"
        for name, cost in constraints.labelled("cost", at_the_end).items()
    ]
    is_over = constraints.any_of(each(operator.gt, at_the_end, cost_limit))
    axes.set_title(
        "   ".join([f"return {trajectories.return_[episode, last]:.1f}", *words]),
        fontsize="medium",
        color=shapes.COST_COLOUR if is_over else "black",
    )
    axes.set_xticks([])
    axes.set_yticks([])
