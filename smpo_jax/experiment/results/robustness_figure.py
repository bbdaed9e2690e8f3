"""Return, cost and calibration against what is shifted, as a picture."""

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


def draw(performances: Sequence[PerformanceAt], calibrations: Sequence[CalibrationAt]) -> Figure:
    """A column for each thing that varies: return, cost with the limit, calibration."""
    axes = [axis for axis in dict.fromkeys(each.at.axis for each in performances) if axis]
    shades = plots.colours(each.labelled.variant for each in performances)
    figure = Figure(figsize=(1.2 + 3.9 * len(axes), 9.0), layout="constrained")
    grid = figure.subplots(3, len(axes), squeeze=False)
    for column, axis in zip(grid.T, axes, strict=True):
        here = [each for each in performances if each.at.axis == axis]
        for panel, quantity in zip(column, ("return_", "cost"), strict=False):
            panel.set_xlabel(AXIS_LABELS[axis])
            for variant, shade in shades.items():
                own = [each for each in here if each.labelled.variant == variant]
                _draw_line(panel, own, quantity, shade)
        for limit in {each.labelled.policy.config.cost_limit for each in performances}:
            column[1].axhline(limit, color="black", linestyle="--", linewidth=1)
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
    figure.suptitle(performances[0].labelled.policy.config.env)
    return figure


def _draw_line(
    panel: Axes, performances: Sequence[PerformanceAt], quantity: str, colour: str
) -> None:
    """Interquartile means over seeds with their bootstrap intervals."""
    values = sorted({each.at.value for each in performances})
    groups = [
        [each._asdict()[quantity].mean() for each in performances if each.at.value == v]
        for v in values
    ]
    found = [intervals.interquartile_estimate(np.array(group, float)) for group in groups]
    variant = performances[0].labelled.variant
    panel.plot(values, [each.value for each in found], "o-", color=colour, label=variant)
    low, high = ([each[i] for each in found] for i in (1, 2))
    if not np.any(np.isnan(low)):
        panel.fill_between(values, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_calibration(
    panel: Axes, calibrations: Sequence[CalibrationAt], shades: Mapping[str, str]
) -> None:
    """Means over seeds, dotted on the task as it is, and the diagonal."""
    panel.set_xlabel("predicted cost to go (discounted)")
    for variant, shade in shades.items():
        own = [each for each in calibrations if each.labelled.variant == variant]
        for is_shifted, style in ((False, ":"), (True, "o-")):
            group = [each.calibration for each in own if bool(each.at.axis) == is_shifted]
            if group:
                predicted, realised, _ = np.mean([np.asarray(each) for each in group], axis=0)
                panel.plot(predicted, realised, style, color=shade, markersize=3)
    shifted = [each.at for each in calibrations if each.at.axis]
    if shifted:
        name = f"{shifted[0].axis}={shifted[0].value:g}"
        panel.set_title(f"{name}; dotted: as it is", fontsize="small")
        largest = max(float(each.calibration.predicted[-1]) for each in calibrations)
        panel.plot([0, largest], [0, largest], color="grey", linewidth=0.8)
