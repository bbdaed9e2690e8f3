"""Learning curves, read from the files of runs."""

import math
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import intervals, logs
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.options import PlotOptions

POINTS = 200  # of a drawn curve
SMOOTHING = 0.02  # of a run: width of the window that its curve is averaged over
MOST_WITHIN = 4  # lines of a legend that covers part of the axes
LEGEND_WIDTH = 56  # characters of a line in a legend
LEGEND_LINE = 0.16  # inches that the figure grows by for each line of a legend below the axes
RETURN = "episode/return"


class LearningCurve(NamedTuple):
    """What is drawn of one run: the iterations in which an episode finished."""

    folder: Path
    config: Config
    label: str  # runs that differ in nothing but their seed are averaged under it
    steps: Float[np.ndarray, " I"]
    values: dict[str, Float[np.ndarray, " I"]]


class AveragedCurve(NamedTuple):
    """The middle of several seeds, and its 95 % interval (NaN for a single seed)."""

    steps: Float[np.ndarray, " P"]
    middle: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]


class Average(NamedTuple):
    """How seeds become one curve: a caption, and values [S, P] to (middle, low, high)."""

    caption: str
    of: Callable[[Float[np.ndarray, "S P"]], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _mean(values: Float[np.ndarray, "S P"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, centre = len(values), np.mean(values, axis=0)
    if n < 2:
        return centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan)
    half = intervals.t_quantile(n) * np.std(values, axis=0, ddof=1) / math.sqrt(n)
    return centre, centre - half, centre + half


MEAN = Average("mean and 95 % interval of {} seeds", _mean)
INTERQUARTILE_MEAN = Average("{} seeds", intervals.bootstrap)


def main(options: PlotOptions) -> None:
    """Draws the runs into a file."""
    if not options.folders:
        raise UserError("plot needs the folder of at least one run")
    save(draw([read(folder) for folder in options.folders]), options.out)
    print(options.out)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture in the format that its ending says."""
    allowed = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in allowed:
        raise UserError(f"--out {path}: its ending must be one of {', '.join(allowed)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def read(folder: str | os.PathLike[str], label: str | None = None) -> LearningCurve:
    """A run from its `config.json` and `metrics.csv`; called by its algorithm unless labelled."""
    home: Path = coerce_argument("folder", folder, Path)
    log = logs.read(home, (RETURN, logs.COST))
    return LearningCurve(home, log.config, label or log.config.algo, log.steps, log.values)


def distinguish(runs: Sequence[LearningCurve]) -> list[LearningCurve]:
    """The runs, each once, labelled so that only seeds of one configuration share a label.

    Where runs of the same task and label differ in more than their seed, what they differ in is
    added to the label, as short as it still tells them apart.
    """
    once = list({run.folder.resolve(): run for run in runs}.values())
    settings = [_settings(run.config) for run in once]
    labelled = []
    for run, own in zip(once, settings, strict=True):
        here = (run.config.env, run.label)
        pairs = zip(once, settings, strict=True)
        alike = [theirs for other, theirs in pairs if (other.config.env, other.label) == here]
        fields = sorted({field for theirs in alike for field in theirs} - {"seed"})
        words = [_told(field, own, alike) for field in fields]
        labelled.append(run._replace(label=", ".join([run.label, *filter(None, words)])))
    return labelled


def _settings(config: Config) -> dict[str, Any]:
    """What has an influence on a run; `checkpoint` has none where it starts from nothing."""
    settings = config_file.flat(config)
    if settings["init_from"] is None:
        del settings["checkpoint"]
    return settings


def _told(field: str, own: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    """What a run has in a field; empty where all have the same, or it has nothing there."""
    differing = {repr(theirs.get(field)): theirs.get(field) for theirs in alike}.values()
    if len(differing) == 1:
        return ""
    short = {_shortened(field, value) for value in differing}
    tell = _shortened if len(short) == len(differing) else _in_full
    return tell(field, own.get(field))


def _in_full(field: str, value: Any) -> str:
    return f"{field}={value}"


def _shortened(field: str, value: Any) -> str:
    if value in (None, [], {}):
        return ""
    if field == "earlier_lengths":
        return "lengthened"
    return _in_full(field, Path(value).name if field == "init_from" else value)


def draw(runs: Sequence[LearningCurve], average: Average = MEAN) -> Figure:
    """Return above each cost, a column per task, a colour per configuration, seeds averaged."""
    runs = distinguish(runs)
    envs = sorted({run.config.env for run in runs})
    shades = colours(run.label for run in runs)
    names = list(dict.fromkeys(name for run in runs for name in run.values))
    figure = Figure(figsize=(1.2 + 4.3 * len(envs), 3.1 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(envs), sharex="col", squeeze=False)
    for column, env in zip(grid.T, envs, strict=True):
        here = [run for run in runs if run.config.env == env]
        column[0].set_title(env)
        column[-1].set_xlabel("environment steps")
        column[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        for axes, name in zip(column, names, strict=True):
            having = [run for run in here if name in run.values]
            for label, shade in shades.items():
                group = [run for run in having if run.label == label]
                if group:
                    _draw_group(
                        axes, combine(group, name, average), _caption(group, average), shade
                    )
            tidy(axes)
            axes.set_visible(bool(having))
            limits = sorted(limits_on(name, [run.config for run in having]))
            for limit in limits:
                mark_limit(axes, limit)
            if having:
                _frame(axes)
            if name != RETURN:
                axes.set_ylim(bottom=0)
    below = max(_draw_legend(column) for column in grid.T)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * below)
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(name.replace("/", " "))
    return figure


def limits_on(name: str, configs: Iterable[Config]) -> set[float]:
    """The limits that runs have on a metric; none if it is no cost."""
    found = (config.limits.get(name.removeprefix("episode/")) for config in configs)
    return {limit for limit in found if limit is not None}


def colours(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label, in the order of the alphabet."""
    return {label: f"C{i % 10}" for i, label in enumerate(sorted(set(labels)))}


def tidy(axes: Axes) -> None:
    """A faint grid and no more of a frame than is needed."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def mark_limit(axes: Axes, limit: float) -> None:
    """A dashed line; its label is to the right of the axes, where nothing crosses it."""
    axes.axhline(limit, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"limit\n{limit:g}", (1, limit), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize="small",
    )  # fmt: skip


def combine(runs: Sequence[LearningCurve], name: str, average: Average = MEAN) -> AveragedCurve:
    """The curve of a group of seeds, each as far as it goes: averaged are those that go so far."""
    first, last = max(run.steps[0] for run in runs), max(run.steps[-1] for run in runs)
    steps = np.linspace(first, max(first, last), POINTS)
    values = np.array([np.interp(steps, run.steps, _smooth(run.values[name])) for run in runs])
    goes_on = np.array([steps <= max(run.steps[-1], first) for run in runs])
    curve = np.full((3, POINTS), np.nan)
    for members in {tuple(column) for column in goes_on.T}:
        here, among = np.all(members == goes_on.T, axis=1), np.array(members)
        curve[:, here] = average.of(values[np.ix_(among, here)])
    return AveragedCurve(steps, *curve)


def _caption(group: Sequence[LearningCurve], average: Average) -> str:
    n = len(group)
    seeds = "1 seed" if n == 1 else average.caption.format(n)
    return textwrap.fill(f"{group[0].label} ({seeds})", LEGEND_WIDTH, break_on_hyphens=False)


def _draw_group(axes: Axes, curve: AveragedCurve, caption: str, colour: str) -> None:
    axes.plot(curve.steps, curve.middle, color=colour, label=caption)
    if not np.all(np.isnan(curve.low)):
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _draw_legend(column: Sequence[Axes]) -> int:
    """Within the uppermost axes, or below the lowest where it would hide too much.

    Returns:
        How many lines are below.
    """
    handles, labels = column[0].get_legend_handles_labels()
    lines = sum(len(label.splitlines()) for label in labels)
    if lines <= MOST_WITHIN:
        column[0].legend(frameon=False, fontsize="small")
        return 0
    column[-1].legend(
        handles, labels, frameon=False, fontsize="small", loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
    )  # fmt: skip
    return lines


def _frame(axes: Axes) -> None:
    """Scales to the lines: the interval of two or three seeds can be many times as wide."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    margin = 0.2 * (np.max(values) - np.min(values)) or 1.0
    axes.set_ylim(np.min(values) - margin, np.max(values) + margin)


def _smooth(values: Float[np.ndarray, " I"]) -> Float[np.ndarray, " I"]:
    """Centred moving average, over fewer values towards the ends."""
    half = int(SMOOTHING * len(values) / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
