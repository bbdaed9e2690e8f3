"""`smpo-jax robustness`: trained policies, and what they expect of costs, under shift."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import smpo_envs
from smpo_envs import compilation
from smpo_jax.core.calibration import Calibration
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import intervals, plots, tables
from smpo_jax.experiment.results.evaluate import (
    shifted_player,
    shifted_tasks,
    vector_at,
)
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.settings.config import check_has_hazards
from smpo_jax.experiment.settings.options import RobustnessOptions
from smpo_jax.training.calibration import calibrate
from smpo_jax.types import Key, LearnerState

CALIBRATED_ON = 32  # environments, of one episode each
AXES = {
    "hazards": "number of hazards",
    "size": "radius of hazards, m",
    "extent": "half width of the hazards' square, m",
}


class Member(NamedTuple):
    """A trained policy, and what runs like it but for the seed are called."""

    variant: str
    policy: TrainedPolicy


class Place(NamedTuple):
    """A point of the shift, in full; `axis` is what was varied, empty for the task as it is."""

    axis: str
    point: dict[str, float]

    @property
    def value(self) -> float:
        """Of what was varied."""
        return self.point[self.axis]


class Point(NamedTuple):
    """How a policy did somewhere, one entry per episode."""

    member: Member
    place: Place
    return_: Float[np.ndarray, " E"]
    cost: Float[np.ndarray, " E"]


class Curve(NamedTuple):
    """A critic's calibration somewhere."""

    member: Member
    place: Place
    calibration: Calibration


Find = Callable[[Path, str | None], Sequence[Member]]


def main(options: RobustnessOptions, find: Find) -> None:
    """Plays, and writes the figure and its two tables.

    Args:
        options: what to play.
        find: the trained policies of a folder, on the task of that name.

    Raises:
        UserError: nothing trained is there, or a shift that its task cannot have.
    """
    if options.episodes < 1:
        raise UserError(f"episodes: must be at least 1, got {options.episodes}")
    axes = options.hazard_shift.values
    if not axes:
        raise UserError("hazard_shift: robustness needs something that varies, as in size=0.2,0.3")
    members = find(options.folder, options.task)
    places = places_of(members[0].policy.config.env, axes)
    points: list[Point] = []
    curves: list[Curve] = []
    for variant in dict.fromkeys(member.variant for member in members):
        group = [member for member in members if member.variant == variant]
        points += _play(group, places, options)
        curves += _calibrate(group, places, options)
    figure = draw(points, curves)
    plots.save(figure, options.out)
    tables.write(options.out.with_suffix(".csv"), map(_point_row, points))
    if curves:
        name = f"{options.out.stem}-calibration.csv"
        tables.write(
            options.out.with_name(name), (row for each in curves for row in _curve_rows(each))
        )
    print(options.out)


def places_of(task: str, axes: Mapping[str, Sequence[float]]) -> list[Place]:
    """The task as it is, then every value of what varies, the rest as it is.

    Raises:
        UserError: the task has no hazards.
    """
    check_has_hazards(task)
    env = smpo_envs.make(task, shift=smpo_envs.Shift())
    assert isinstance(env, smpo_envs.Environment) and env.shift is not None
    own = {
        name: float(value) for name, value in env.shift._asdict().items()
    }  # one type: one program
    varied = [(axis, value) for axis, values in axes.items() for value in values]
    return [
        Place("", own),
        *(Place(axis, {**own, axis: value}) for axis, value in varied),
    ]


def _play(
    group: Sequence[Member], places: Sequence[Place], options: RobustnessOptions
) -> Iterator[Point]:
    play = shifted_player(
        group[0].policy,
        [place.point for place in places],
        options.episodes,
        deterministic=options.deterministic,
    )
    for member in group:
        for place in places:
            seen = play(member.policy.learner, place.point, options.seed)
            yield Point(member, place, np.asarray(seen.return_), np.asarray(seen.cost))


def _calibrate(
    group: Sequence[Member], places: Sequence[Place], options: RobustnessOptions
) -> Iterator[Curve]:
    """On the task as it is, and at the last value of each thing that varies."""
    config, algorithm = group[0].policy.config, group[0].policy.algorithm
    critic = algorithm.cost_critic
    if critic is None or float(critic.discount) >= 1.0:
        return  # undiscounted, what is to come is not known before the end of an episode
    chosen = {place.axis: place for place in places}.values()
    tasks = shifted_tasks(config, [place.point for place in chosen])

    @partial(jax.jit, compiler_options=compilation.options())
    def run(learner: LearnerState, shift: smpo_envs.Shift, key: Key) -> Calibration:
        env = vector_at(tasks, shift, CALIBRATED_ON)
        return calibrate(algorithm, critic, learner, env, key)

    for member in group:
        for place in chosen:
            shift = smpo_envs.Shift(**place.point)
            yield Curve(
                member, place, run(member.policy.learner, shift, jax.random.key(options.seed))
            )


def draw(points: Sequence[Point], curves: Sequence[Curve]) -> Figure:
    """A column for each thing that varies: return, cost with the limit, calibration."""
    axes = [axis for axis in dict.fromkeys(point.place.axis for point in points) if axis]
    shades = plots.colours(point.member.variant for point in points)
    figure = Figure(figsize=(1.2 + 3.9 * len(axes), 9.0), layout="constrained")
    grid = figure.subplots(3, len(axes), squeeze=False)
    for column, axis in zip(grid.T, axes, strict=True):
        here = [point for point in points if point.place.axis == axis]
        for panel, quantity in zip(column, ("return_", "cost"), strict=False):
            panel.set_xlabel(AXES[axis])
            for variant, shade in shades.items():
                own = [point for point in here if point.member.variant == variant]
                _draw_line(panel, own, quantity, shade)
        for limit in {point.member.policy.config.cost_limit for point in points}:
            column[1].axhline(limit, color="black", linestyle="--", linewidth=1)
        column[1].set_ylim(bottom=0)
        _draw_calibration(column[2], [x for x in curves if x.place.axis in ("", axis)], shades)
        for panel in column:
            plots.tidy(panel)
    for panel, label in zip(
        grid[:, 0], ("episode return", "episode cost", "realised cost to go"), strict=True
    ):
        panel.set_ylabel(label)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), frameon=False, ncols=6, loc="outside lower center"
    )
    figure.suptitle(points[0].member.policy.config.env)
    return figure


def _draw_line(panel: Axes, points: Sequence[Point], quantity: str, colour: str) -> None:
    """Interquartile means over seeds with their bootstrap intervals."""
    values = sorted({point.place.value for point in points})
    groups = [[x._asdict()[quantity].mean() for x in points if x.place.value == v] for v in values]
    found = [intervals.middle(np.array(group, float)) for group in groups]
    variant = points[0].member.variant
    panel.plot(values, [each.value for each in found], "o-", color=colour, label=variant)
    low, high = ([each[i] for each in found] for i in (1, 2))
    if not np.any(np.isnan(low)):
        panel.fill_between(values, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_calibration(panel: Axes, curves: Sequence[Curve], shades: Mapping[str, str]) -> None:
    """Means over seeds, dotted on the task as it is, and the diagonal."""
    panel.set_xlabel("predicted cost to go (discounted)")
    for variant, shade in shades.items():
        own = [each for each in curves if each.member.variant == variant]
        for is_shifted, style in ((False, ":"), (True, "o-")):
            group = [x.calibration for x in own if bool(x.place.axis) == is_shifted]
            if group:
                predicted, realised, _ = np.mean([np.asarray(each) for each in group], axis=0)
                panel.plot(predicted, realised, style, color=shade, markersize=3)
    shifted = [each.place for each in curves if each.place.axis]
    if shifted:
        name = f"{shifted[0].axis}={shifted[0].value:g}"
        panel.set_title(f"{name}; dotted: as it is", fontsize="small")
        largest = max(float(each.calibration.predicted[-1]) for each in curves)
        panel.plot([0, largest], [0, largest], color="grey", linewidth=0.8)


def _point_row(point: Point) -> dict[str, Any]:
    limit = point.member.policy.config.cost_limit
    return {
        **_identity(point.member, point.place),
        "episodes": len(point.cost),
        "return": float(np.mean(point.return_)),
        "cost": float(np.mean(point.cost)),
        "over_limit": float(np.mean(point.cost > limit)),
        "cost_limit": limit,
    }


def _curve_rows(curve: Curve) -> Iterator[dict[str, Any]]:
    columns = (np.asarray(x) for x in curve.calibration)
    for number, (predicted, realised, count) in enumerate(zip(*columns, strict=True)):
        yield {
            **_identity(curve.member, curve.place),
            "bin": number,
            "predicted": float(predicted),
            "realised": float(realised),
            "samples": int(count),
        }


def _identity(member: Member, place: Place) -> dict[str, Any]:
    config = member.policy.config
    return {
        "task": config.env,
        "variant": member.variant,
        "algo": config.algo,
        "seed": config.seed,
        "trained_on": str(config.hazard_shift),
        "varied": place.axis,
        **place.point,
    }
