"""Return, cost and calibration against what is shifted, as a picture."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smpo_jax.experiment.results import intervals, plots
from smpo_jax.experiment.results.robustness import CalibrationAt, PerformanceAt

AXIS_LABELS = {
    "hazards": "number of hazards",
    "size": "radius of hazards, m",
    "extent": "half width of the hazards' square, m",
}
DODGE = 0.012  # of an axis's width: between the points of two variants at the same value


def draw(performances: Sequence[PerformanceAt], calibrations: Sequence[CalibrationAt]) -> Figure:
    """A column for each thing that varies: return, cost with the limit, calibration.

    Bars are 95 % intervals: over the seeds of a variant, or the episodes of its only one.
    """
    axes = [axis for axis in dict.fromkeys(each.at.axis for each in performances) if axis]
    shades = plots.colours(each.labelled.variant for each in performances)
    figure = Figure(figsize=(1.2 + 3.9 * len(axes), 9.0), layout="constrained")
    grid = figure.subplots(3, len(axes), squeeze=False)
    for column, axis in zip(grid.T, axes, strict=True):
        here = [each for each in performances if each.at.axis == axis]
        for panel, quantity in zip(column, ("return_", "cost"), strict=False):
            panel.set_xlabel(AXIS_LABELS[axis])
            for place, (variant, shade) in enumerate(shades.items()):
                own = [each for each in here if each.labelled.variant == variant]
                _draw_line(panel, own, quantity, shade, place - (len(shades) - 1) / 2)
        for limit in {each.labelled.policy.config.limits["cost"] for each in performances}:
            plots.mark_limit(column[1], limit)
        column[1].set_ylim(bottom=0)
        _draw_calibration(
            column[2], [each for each in calibrations if each.at.axis in ("", axis)], shades
        )
        for panel in column:
            plots.tidy(panel)
    for panel, label in zip(
        grid[:, 0], ("episode return", "episode cost", "realised cost to go"), strict=True
    ):
        panel.set_ylabel(label)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), frameon=False, ncols=6, loc="outside lower center"
    )
    figure.suptitle(f"{performances[0].labelled.policy.config.env}: {_caption(performances)}")
    return figure


def _caption(performances: Sequence[PerformanceAt]) -> str:
    """What the points and the bars are."""
    as_it_is = [each.labelled.variant for each in performances if not each.at.axis]
    seeds = set(Counter(as_it_is).values())
    of_seeds = "interquartile means of seeds"
    of_episodes = f"means of {len(performances[0].cost)} episodes"
    means = of_episodes if seeds == {1} else of_seeds
    if len(seeds) > 1 and 1 in seeds:
        means = f"{of_seeds}, or where there is one {of_episodes}"
    return f"{means}, with 95 % intervals"


def _draw_line(
    panel: Axes, performances: Sequence[PerformanceAt], quantity: str, colour: str, place: float
) -> None:
    """A point for each value, `place` steps to the right of it."""
    values = np.array(sorted({each.at.value for each in performances}))
    found = [
        _estimate([each._asdict()[quantity] for each in performances if each.at.value == value])
        for value in values
    ]
    middle, low, high = np.array(found).T
    panel.errorbar(
        values + place * DODGE * np.ptp(values), middle, _bars(middle, low, high),
        fmt="o-", color=colour, markersize=4, label=performances[0].labelled.variant,
    )  # fmt: skip


def _estimate(episodes: Sequence[np.ndarray]) -> intervals.Estimate:
    """Over seeds, or over the episodes of a single one."""
    if len(episodes) == 1:
        return intervals.mean(episodes[0])
    return intervals.interquartile_estimate(np.array([each.mean() for each in episodes], float))


def _bars(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths below and above; 0 where there is no interval."""
    return np.nan_to_num([middle - low, high - middle])


def _draw_calibration(
    panel: Axes, calibrations: Sequence[CalibrationAt], shades: Mapping[str, str]
) -> None:
    """Means over seeds with Student's intervals, dotted on the task as it is, and the diagonal."""
    panel.set_xlabel("predicted cost to go (discounted)")
    for variant, shade in shades.items():
        own = [each for each in calibrations if each.labelled.variant == variant]
        for is_shifted, style in ((False, ":"), (True, "o-")):
            group = [each.calibration for each in own if bool(each.at.axis) == is_shifted]
            if group:
                predicted = np.mean([each.predicted for each in group], axis=0)
                realised = np.array([each.realised for each in group])
                middle, low, high = np.array([intervals.mean(each) for each in realised.T]).T
                panel.errorbar(
                    predicted, middle, _bars(middle, low, high), fmt=style, color=shade,
                    markersize=3, elinewidth=0.8,
                )  # fmt: skip
    shifted = [each.at for each in calibrations if each.at.axis]
    if shifted:
        name = f"{shifted[0].axis}={shifted[0].value:g}"
        panel.set_title(f"{name}; dotted: the task as it is", fontsize="small")
        largest = max(float(each.calibration.predicted[-1]) for each in calibrations)
        panel.plot([0, largest], [0, largest], color="grey", linewidth=0.8)
