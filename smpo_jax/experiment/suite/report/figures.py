"""The pictures of a report, one of each kind for every task."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smpo_jax.experiment.results import plots
from smpo_jax.experiment.results.intervals import Estimate
from smpo_jax.experiment.suite.report.measures import Comparison, in_order, title
from smpo_jax.experiment.suite.report.published import Published

MARGIN = 0.08  # of a picture's range, around what has to be in view


class Span(NamedTuple):
    """What has to be in view."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        """All that are numbers, and some room."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        room = MARGIN * (max(known) - min(known)) or 1.0
        return cls(min(known) - room, max(known) + room)


def scatter(
    rows: Sequence[Comparison], published: Sequence[Published], colours: Mapping[str, str]
) -> Figure:
    """Return against each cost at the end of training, one point per seed, and the limit.

    Published results are grey; those of methods that the suite has trained are named and in view,
    and so are all of a cost that is.
    """
    costs = _costs(rows)
    figure = Figure(figsize=(6.4 * len(costs), 4.8), layout="constrained")
    panels = figure.subplots(1, len(costs), squeeze=False)[0]
    for axes, cost in zip(panels, costs, strict=True):
        _scatter_on(axes, cost, rows, published, colours)
    return figure


def _costs(rows: Sequence[Comparison]) -> list[str]:
    """The columns of costs at the end."""
    known = dict.fromkeys(column for row in rows for column in row.estimates)
    return [column for column in known if column.partition("/")[0] == "cost"]


def _limits(rows: Sequence[Comparison], cost: str) -> list[float]:
    return sorted({row.limits[cost] for row in rows if cost in row.limits})


def _scatter_on(
    axes: Axes,
    cost: str,
    rows: Sequence[Comparison],
    published: Sequence[Published],
    colours: Mapping[str, str],
) -> None:
    algos = {each.outcomes[0].cell.config.algo for each in rows}
    for row in rows:
        if row.finished:
            _draw_point(axes, row, cost, colours[row.variant])
    for each in published:
        axes.plot(each.cost, each.return_, "D", color="grey", markersize=4, fillstyle="none")
        if each.method in algos:
            axes.annotate(
                f"{each.method}, published", (each.cost, each.return_), xytext=(4, 4),
                textcoords="offset points", fontsize="x-small", color="grey", annotation_clip=True,
            )  # fmt: skip
    limits = _limits(rows, cost)
    for limit in limits:
        axes.axvline(limit, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"limit {limit:g}", (limit, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize="small",
        )  # fmt: skip
    ours = [one for row in rows for one in row.finished]
    beside = [each for each in published if each.method in algos]
    costs = [one.flat()[cost] for one in ours] + [each.cost for each in beside] + limits
    most = Span.of(costs).high
    returns = [one.return_ for one in ours]
    returns += [each.return_ for each in published if each.cost < most]
    axes.set_xlim(min(0.0, *costs), most)
    axes.set_ylim(*Span.of(returns))
    axes.set_xlabel(f"episode {cost.replace('/', ' ')}")
    axes.set_ylabel("episode return")
    plots.tidy(axes)
    axes.legend(frameon=False, fontsize="small")


def _draw_point(axes: Axes, row: Comparison, column: str, colour: str) -> None:
    costs, returns = ([one.flat()[name] for one in row.finished] for name in (column, "return_"))
    axes.plot(costs, returns, ".", color=colour, alpha=0.5)
    cost, return_ = row.estimates[column], row.estimates["return_"]
    axes.errorbar(
        cost.value, return_.value, xerr=_bars(cost), yerr=_bars(return_),
        fmt="o", color=colour, capsize=2, label=row.variant,
    )  # fmt: skip


def intervals(rows: Sequence[Comparison], colours: Mapping[str, str]) -> Figure:
    """Every quantity side by side, one line per variant."""
    columns = in_order(dict.fromkeys(column for row in rows for column in row.estimates))
    figure = Figure(figsize=(2.0 + 2.6 * len(columns), 1.3 + 0.32 * len(rows)))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for y, row in enumerate(rows):
            if row.estimates:
                estimate = row.estimates[column]
                axes.errorbar(
                    estimate.value, y, xerr=_bars(estimate), fmt="o",
                    color=colours[row.variant], capsize=2,
                )  # fmt: skip
        limits, words = _limits(rows, column), title(column)
        for limit in limits:
            axes.axvline(limit, color="black", linestyle="--", linewidth=1)
        if limits:
            words += f" (limit {', '.join(f'{limit:g}' for limit in limits)})"
        axes.set_title(words, fontsize="medium")
        plots.tidy(axes)
    panels[0].set_yticks(range(len(rows)), [row.variant for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _bars(estimate: Estimate) -> np.ndarray | None:
    """How far the interval extends to both sides; None where there is none."""
    if math.isnan(estimate.low):
        return None
    value, low, high = estimate
    return np.maximum([[value - low], [high - value]], 0.0)
