"""Learning curves, read from the files of runs."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from smpo_jax.experiment import config as config_file
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.options import PlotOptions
from smpo_jax.experiment.statistics import t_quantile
from smpo_jax.experiment.writers import METRICS_CSV

POINTS = 200  # of a drawn curve
SMOOTHING = 0.02  # of a run: width of the window that its curve is averaged over
QUANTITIES = {"episode/return": "episode return", "episode/cost": "episode cost"}


class Run(NamedTuple):
    """What is drawn of one run: the iterations in which an episode finished."""

    env: str
    algo: str
    seed: int
    cost_limit: float
    steps: Float[np.ndarray, " I"]
    values: dict[str, Float[np.ndarray, " I"]]


class Curve(NamedTuple):
    """Mean over seeds, and the 95 % interval of that mean (NaN for a single seed)."""

    steps: Float[np.ndarray, " P"]
    mean: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]


def main(options: PlotOptions) -> None:
    """Draws the runs into a file."""
    if not options.folders:
        raise UserError("plot needs the folder of at least one run")
    figure = draw([read(folder) for folder in options.folders])
    allowed = figure.canvas.get_supported_filetypes()
    if options.out.suffix[1:].lower() not in allowed:
        raise UserError(f"--out {options.out}: its ending must be one of {', '.join(allowed)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=150)
    print(options.out)


def read(folder: Path) -> Run:
    """A run from its `config.json` and `metrics.csv`."""
    config = config_file.load(folder)
    path = folder / METRICS_CSV
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if float(row["episode/count"] or 0) > 0]
            steps = np.array([float(row["steps"]) for row in rows])
            values = {name: np.array([float(row[name]) for row in rows]) for name in QUANTITIES}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not rows:
        raise UserError(f"{path} has nothing to draw yet: no episode has finished")
    return Run(config.env, config.algo, config.seed, config.cost_limit, steps, values)


def draw(runs: Sequence[Run]) -> Figure:
    """Return above cost, one column per task, one colour per algorithm, seeds averaged."""
    envs = sorted({run.env for run in runs})
    algos = sorted({run.algo for run in runs})
    colours = {algo: f"C{i % 10}" for i, algo in enumerate(algos)}
    figure = Figure(figsize=(1.2 + 4.3 * len(envs), 6.2), layout="constrained")
    grid = figure.subplots(2, len(envs), sharex="col", squeeze=False)
    for column, env in zip(grid.T, envs, strict=True):
        here = [run for run in runs if run.env == env]
        column[0].set_title(env)
        column[1].set_xlabel("environment steps")
        column[1].xaxis.set_major_formatter(EngFormatter(sep=""))
        for axes, name in zip(column, QUANTITIES, strict=True):
            for algo in algos:
                group = [run for run in here if run.algo == algo]
                if group:
                    _draw_group(axes, group, name, colours[algo])
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        for limit in sorted({run.cost_limit for run in here}):
            column[1].axhline(limit, color="black", linestyle="--", linewidth=1)
            column[1].annotate(
                f"limit {limit:g}", (1, limit), xycoords=("axes fraction", "data"),
                xytext=(-2, 3), textcoords="offset points", ha="right", fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
            )  # fmt: skip
        for axes in column:
            _frame(axes)
        column[1].set_ylim(bottom=0)
        column[0].legend(frameon=False, fontsize="small")
    for axes, label in zip(grid[:, 0], QUANTITIES.values(), strict=True):
        axes.set_ylabel(label)
    return figure


def average(runs: Sequence[Run], name: str) -> Curve:
    """The curve of a group of seeds, over the steps that all of them have seen."""
    first, last = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    steps = np.linspace(first, max(first, last), POINTS)
    curves = [np.interp(steps, run.steps, _smooth(run.values[name])) for run in runs]
    mean, n = np.mean(curves, axis=0), len(runs)
    if n < 2:
        return Curve(steps, mean, np.full(POINTS, np.nan), np.full(POINTS, np.nan))
    half = t_quantile(n) * np.std(curves, axis=0, ddof=1) / math.sqrt(n)
    return Curve(steps, mean, mean - half, mean + half)


def _draw_group(axes: Axes, group: Sequence[Run], name: str, colour: str) -> None:
    curve = average(group, name)
    n = len(group)
    seeds = "1 seed" if n == 1 else f"mean and 95 % interval of {n} seeds"
    axes.plot(curve.steps, curve.mean, color=colour, label=f"{group[0].algo} ({seeds})")
    if n > 1:
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


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
