"""The text of a report."""

import math
from collections.abc import Iterable, Sequence

from smpo_jax.experiment.results.intervals import RESAMPLES, Estimate
from smpo_jax.experiment.run.progress import clock, limits_told
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.options import ReportOptions
from smpo_jax.experiment.suite.report.measures import (
    COMPARED,
    Aggregate,
    Comparison,
    aggregate,
    in_order,
    mean,
    title,
)
from smpo_jax.experiment.suite.report.published import Published

DIGITS = {"return_": 2, "cost": 1, "over_limit": 2, "cost_rate": 4, "cost_spent": 0}


def lines(
    options: ReportOptions, rows: Sequence[Comparison], beside: Sequence[Published]
) -> Iterable[str]:
    """The report, line by line.

    Args:
        options: the suite and the window.
        rows: variants on tasks.
        beside: published results on these tasks; none leaves them out.
    """
    found = [each for row in rows for each in row.outcomes]
    finished = sum(each.measures is not None for each in found)
    yield f"# Report on {options.folder.resolve().name}\n"
    yield (
        f"{finished} of {len(found)} cells are finished and reported. Values are interquartile "
        "means over seeds, in brackets their 95 % intervals (stratified bootstrap, "
        f"{RESAMPLES} draws; with fewer than five seeds they are too narrow). Return, cost and "
        f"the share of episodes over the limit are those of the episodes that ended in the last "
        f"{options.window:.0%} of training; the cost per step is that of all episodes of training, "
        "and the cost of training is the same times its steps. Wall times are without "
        "compilation; cells that shared a program took their time together.\n"
    )
    for task in dict.fromkeys(row.task for row in rows):
        here = [row for row in rows if row.task == task]
        yield from _task_section(task, here, [each for each in beside if each.task == task])
    totals = aggregate(rows)
    if len({row.task for row in rows}) > 1 and totals:
        yield from _aggregate_section(totals)
    yield from _settings_section(rows)
    problems = [each for each in found if each.problem]
    if problems:
        yield "## Cells that are not in these numbers\n"
        yield from (f"- `{each.cell.name}`: {each.problem}" for each in problems)
        yield ""


def _task_section(
    task: str, rows: Sequence[Comparison], beside: Sequence[Published]
) -> Iterable[str]:
    yield f"## {task}\n"
    known = list(dict.fromkeys(column for row in rows for column in row.estimates))
    columns = in_order(known) or list(COMPARED)
    head = ["variant", "limit", "seeds", *map(title, columns), "wall time of a run", "steps/s"]
    yield from _table(head, (_line(row, columns) for row in rows))
    if any(row.finished for row in rows):
        for name, words in (
            ("scatter", "Return against cost at the end; small dots are seeds"),
            ("curves", "Return and cost during training"),
            ("intervals", "All of the table, with intervals"),
        ):
            yield f"![{words}]({rows[0].picture(name)})\n"
    if beside:
        yield (
            "Published, mean ± standard deviation over episodes and seeds; grey in the first "
            "figure:\n"
        )
        yield from _table(
            ["method", "return", "cost", "steps", "source"],
            (
                [
                    each.method,
                    _plus_minus(each.return_, each.return_std),
                    _plus_minus(each.cost, each.cost_std),
                    f"{each.steps:.0e}".replace("+0", ""),
                    each.source,
                ]
                for each in beside
            ),
        )


def _line(row: Comparison, columns: Sequence[str]) -> list[str]:
    config = row.outcomes[0].cell.config
    estimates = [
        _with_interval(row.estimates[column], DIGITS[column.partition("/")[0]])
        if row.estimates
        else "-"
        for column in columns
    ]
    seconds = [one.seconds for one in row.finished]
    seeds = f"{len(row.finished)}"
    if len(row.finished) < len(row.outcomes):
        seeds += f" of {len(row.outcomes)}"
    return [
        f"`{row.variant}`",
        limits_told(config.cost_limit),
        seeds,
        *estimates,
        clock(mean(seconds)) if seconds else "-",
        f"{mean(one.steps_per_second for one in row.finished):,.0f}" if seconds else "-",
    ]


def _aggregate_section(totals: Sequence[Aggregate]) -> Iterable[str]:
    yield "## All tasks\n"
    yield "Variants that have finished cells on every task; each task is a stratum.\n"
    yield from _table(
        ["variant", "cost / limit", "episodes over the limit"],
        (
            [f"`{x.variant}`", _with_interval(x.cost, 2), _with_interval(x.over_limit, 2)]
            for x in totals
        ),
    )


def _settings_section(rows: Sequence[Comparison]) -> Iterable[str]:
    yield "## Variants\n"
    yield "Where they differ from the defaults of their algorithm:\n"
    for row in rows:
        config = row.outcomes[0].cell.config
        default = config_file.flat(Config(env=config.env, algo=config.algo))
        changed = {
            name: value
            for name, value in config_file.flat(config).items()
            if value != default[name] and name != "seed"
        }
        words = ", ".join(f"{name} = {value}" for name, value in changed.items()) or "nothing"
        yield f"- {row.task}, `{row.variant}`: algorithm `{config.algo}`; {words}"
    yield ""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def _with_interval(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{x:,.{digits}f}" for x in estimate)
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _plus_minus(value: float, std: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:g}" if math.isnan(std) else f"{value:g} ± {std:g}"
