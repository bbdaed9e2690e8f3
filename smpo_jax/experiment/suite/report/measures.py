"""What a cell came to, and what its variant did over all seeds."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import intervals, logs
from smpo_jax.experiment.results.intervals import Estimate
from smpo_jax.experiment.run import writers
from smpo_jax.experiment.run.writers import costs_of
from smpo_jax.experiment.settings.config import in_full
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.suite_folder import Status
from smpo_jax.types import PerCost

EPISODES = tuple(f"episode/{x}" for x in ("return", "over_limit", "length", "count"))


class Measures(NamedTuple):
    """The numbers of a finished cell; those of costs are for each constraint, by its name.

    The first three are means over the episodes that ended in the final window, the last part of
    training; episodes, and not iterations, weigh the same.

    Attributes:
        return_: episode return.
        cost: episode cost.
        over_limit: share of episodes that cost more than a limit.
        episodes: how many ended in the window.
        cost_rate: cost per step over the whole of training.
        cost_spent: the same times the steps: what training cost in all.
        seconds: wall time, compilation apart; of a program's cells the time they took together.
        steps_per_second: of the cell alone.
    """

    return_: float
    cost: PerCost
    over_limit: float
    episodes: float
    cost_rate: PerCost
    cost_spent: PerCost
    seconds: float
    steps_per_second: float

    def flat(self) -> dict[str, float]:
        """By field; of several costs `cost/NAME` and so on."""
        return {
            column: value
            for field, quantity in self._asdict().items()
            for column, value in constraints.labelled(field, quantity).items()
        }


# Of those, what is compared between variants: field, name for people.
COMPARED = {
    "return_": "return",
    "cost": "cost",
    "over_limit": "episodes over the limit",
    "cost_rate": "cost per step of training",
    "cost_spent": "cost of training",
}


def title(column: str) -> str:
    """What a column of `Measures.flat` that is compared is called for people."""
    field, _, cost = column.partition("/")
    return f"{COMPARED[field]}, {cost}" if cost else COMPARED[field]


class Outcome(NamedTuple):
    """A cell with what became of it; `measures` is None unless it is done."""

    cell: Cell
    status: Status
    problem: str  # one line; empty if there is none
    cells_in_program: int  # cells in the same program, itself included
    measures: Measures | None


class Comparison(NamedTuple):
    """A variant on a task: estimates over its finished seeds, by the columns that are compared."""

    task: str
    variant: str
    outcomes: list[Outcome]
    estimates: dict[str, Estimate]  # empty if no cell is done

    @property
    def finished(self) -> list[Measures]:
        """Of the cells that are done."""
        return [outcome.measures for outcome in self.outcomes if outcome.measures]

    def picture(self, kind: str) -> str:
        """The file of a picture of the task; its name is one on every system."""
        return f"{kind}-{self.outcomes[0].cell.config.env_label}.png"

    @property
    def limits(self) -> dict[str, float]:
        """The limit of each cost, by its column in `Measures.flat`."""
        limits = in_full(self.outcomes[0].cell.config.cost_limit)
        names = list(self.finished[0].flat()) if self.finished else ["cost"]
        costs = [name for name in names if name.partition("/")[0] == "cost"]
        return dict(zip(costs, limits, strict=False))


def measure(folder: Path, window: float) -> Measures:
    """The numbers of the run in a folder.

    Raises:
        UserError: its files cannot be read, or no episode ended in the window.
    """
    log = logs.read(folder, [*EPISODES, logs.COST])
    return_, over_limit, length, count = (log.values[name] for name in EPISODES)
    costs = costs_of(log.values)
    by_name = {name.partition("/")[2]: cost for name, cost in costs.items()}
    cost = by_name if len(costs) > 1 else costs["cost"]
    total = log.config.total_steps
    final = log.steps > (1 - window) * total
    if not np.any(final):
        raise UserError(
            f"no episode of {folder} ended in the last {window:.0%} of its steps: "
            "choose a larger --window"
        )
    rate = each(lambda own: float(np.sum(count * own) / np.sum(count * length)), cost)
    seconds = writers.seconds_so_far(folder)

    def at_the_end(metric: Float[np.ndarray, " I"]) -> float:
        return float(np.average(metric[final], weights=count[final]))

    return Measures(
        return_=at_the_end(return_),
        cost=each(at_the_end, cost),
        over_limit=at_the_end(over_limit),
        episodes=float(np.sum(count[final])),
        cost_rate=rate,
        cost_spent=each(lambda own: own * total, rate),
        seconds=seconds,
        steps_per_second=total / seconds if seconds else math.nan,
    )


def outcomes(folder: Path, suite: suite_folder.Suite, window: float) -> list[Outcome]:
    """What became of every cell of a suite."""
    cells_in_program = {name: len(names) for names in suite.batches for name in names}
    return [
        _outcome(folder, cell, cells_in_program.get(cell.name, 1), window) for cell in suite.cells
    ]


def _outcome(folder: Path, cell: Cell, cells_in_program: int, window: float) -> Outcome:
    status = suite_folder.status(folder, cell)
    problem, measures = suite_folder.error(folder, cell), None
    if status == "done":
        try:
            measures = measure(folder / cell.name, window)
        except (UserError, OSError) as error:
            problem = str(error)
    elif status != "failed":
        problem = "not started" if status == "waiting" else "not finished"
    return Outcome(cell, status, problem, cells_in_program, measures)


def compare(found: Sequence[Outcome]) -> list[Comparison]:
    """Cells that differ in nothing but the seed, put together."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in found:
        cell = outcome.cell
        groups.setdefault((cell.config.env, cell.variant), []).append(outcome)
    return [
        Comparison(task, variant, group, _estimates([x.measures for x in group if x.measures]))
        for (task, variant), group in groups.items()
    ]


def _estimates(finished: Sequence[Measures]) -> dict[str, Estimate]:
    if not finished:
        return {}
    records = [one.flat() for one in finished]
    return {
        column: intervals.interquartile_estimate(np.array([record[column] for record in records]))
        for column in in_order(records[0])
    }


def in_order(columns: Iterable[str]) -> list[str]:
    """Those of the columns of `Measures.flat` that are compared, in the order of `COMPARED`."""
    columns = list(columns)
    return [column for field in COMPARED for column in columns if column.partition("/")[0] == field]


class Aggregate(NamedTuple):
    """A variant over all tasks."""

    variant: str
    cost: Estimate  # in multiples of the limit; of several constraints, of the worst kept
    over_limit: Estimate


def aggregate(comparisons: Sequence[Comparison]) -> list[Aggregate]:
    """Variants that have finished cells on every task, each task a stratum.

    Only what has the same scale everywhere: return does not.
    """
    tasks = {row.task for row in comparisons}
    result = []
    for variant in dict.fromkeys(row.variant for row in comparisons):
        rows = [row for row in comparisons if row.variant == variant and row.finished]
        limits = [row.limits for row in rows]
        if len(rows) < len(tasks) or not all(all(own.values()) for own in limits):
            continue
        costs = [
            np.max(
                [
                    np.array([one.flat()[name] for one in row.finished]) / limit
                    for name, limit in own.items()
                ],
                axis=0,
            )
            for row, own in zip(rows, limits, strict=True)
        ]
        over = [np.array([one.over_limit for one in row.finished]) for row in rows]
        result.append(
            Aggregate(
                variant,
                intervals.interquartile_estimate(*costs),
                intervals.interquartile_estimate(*over),
            )
        )
    return result


def mean(values: Iterable[float]) -> float:
    """Of however many; NaN of none."""
    known = list(values)
    return sum(known) / len(known) if known else math.nan
