"""`smpo-jax report`: a suite's folder as tables and figures."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import plots, tables
from smpo_jax.experiment.results.intervals import RESAMPLES, Estimate
from smpo_jax.experiment.run.progress import clock
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.options import ReportOptions
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.report import figures
from smpo_jax.experiment.suite.report import published as published_results
from smpo_jax.experiment.suite.report.measures import (
    COMPARED,
    Aggregate,
    Comparison,
    Measures,
    Outcome,
    aggregate,
    compare,
    outcomes,
)
from smpo_jax.experiment.suite.report.published import Published

DIGITS = {"return_": 2, "cost": 1, "over_limit": 2, "cost_rate": 4, "cost_spent": 0}


def main(options: ReportOptions) -> None:
    """Writes `report.md`, its figures, `cells.csv` and `variants.csv`.

    Raises:
        UserError: the folder is not that of a suite, or none of its cells is done.
    """
    if not 0 < options.window <= 1:
        raise UserError(f"window: must be above 0 and at most 1, got {options.window}")
    suite = suite_folder.load(options.folder)
    found = outcomes(options.folder, suite, options.window)
    if not any(each.measures for each in found):
        problem = f" ({found[0].problem})" if found[0].problem else ""
        raise UserError(f"no cell of {options.folder} has anything to report yet{problem}")
    rows = compare(found)
    tasks = list(dict.fromkeys(row.task for row in rows))
    beside = published_results.rows(tasks) if options.published else []
    options.out.mkdir(parents=True, exist_ok=True)
    tables.write(options.out / "cells.csv", map(_cell_row, found))
    tables.write(options.out / "variants.csv", map(_variant_row, rows))
    for task in tasks:
        _draw(
            [row for row in rows if row.task == task],
            [each for each in beside if each.task == task],
            options,
        )
    text = "\n".join(_markdown(options, rows, beside))
    (options.out / "report.md").write_text(text, encoding="utf-8")
    for each in found:
        if each.problem:
            print(f"{each.cell.name}: {each.problem}")
    print(options.out / "report.md")


def _draw(rows: Sequence[Comparison], beside: Sequence[Published], options: ReportOptions) -> None:
    """The figures of a task."""
    task, shades = rows[0].task, plots.colours(row.variant for row in rows)
    runs = [
        plots.read(options.folder / each.cell.name, each.cell.variant)
        for row in rows
        for each in row.outcomes
        if each.measures
    ]
    if not runs:
        return
    for name, figure in (
        ("curves", plots.draw(runs, plots.INTERQUARTILE_MEAN)),
        ("scatter", figures.scatter(rows, beside, shades)),
        ("intervals", figures.intervals(rows, shades)),
    ):
        plots.save(figure, options.out / f"{name}-{task}.png")


def _cell_row(each: Outcome) -> dict[str, Any]:
    config, blank = each.cell.config, dict.fromkeys(Measures._fields, "")
    measures = each.measures._asdict() if each.measures else blank
    return {
        "task": config.env,
        "variant": each.cell.variant,
        "algo": config.algo,
        "seed": config.seed,
        "cost_limit": config.cost_limit,
        "steps": config.total_steps,
        "status": each.status,
        "problem": each.problem,
        "cells_in_program": each.companions,
        **{name.rstrip("_"): value for name, value in measures.items()},
    }


def _variant_row(row: Comparison) -> dict[str, Any]:
    config = row.outcomes[0].cell.config
    result: dict[str, Any] = {
        "task": row.task,
        "variant": row.variant,
        "algo": config.algo,
        "cost_limit": config.cost_limit,
        "steps": config.total_steps,
        "cells": len(row.outcomes),
        "done": len(row.finished),
    }
    for name in COMPARED:
        bounds = row.estimates.get(name, ("", "", ""))
        key = name.rstrip("_")
        result |= dict(zip((key, f"{key}_low", f"{key}_high"), bounds, strict=True))
    result["seconds"] = sum(one.seconds for one in row.finished)
    result["steps_per_second"] = _mean(one.steps_per_second for one in row.finished)
    return result


def _markdown(
    options: ReportOptions, rows: Sequence[Comparison], beside: Sequence[Published]
) -> Iterable[str]:
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
    head = ["variant", "limit", "seeds", *COMPARED.values(), "wall time of a run", "steps/s"]
    yield from _table(head, map(_line, rows))
    if any(row.finished for row in rows):
        for name, words in (
            ("scatter", "Return against cost at the end; small dots are seeds"),
            ("curves", "Return and cost during training"),
            ("intervals", "All of the table, with intervals"),
        ):
            yield f"![{words}]({name}-{task}.png)\n"
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


def _line(row: Comparison) -> list[str]:
    config = row.outcomes[0].cell.config
    estimates = [
        _with_interval(row.estimates[name], DIGITS[name]) if row.estimates else "-"
        for name in COMPARED
    ]
    seconds = [one.seconds for one in row.finished]
    seeds = f"{len(row.finished)}"
    if len(row.finished) < len(row.outcomes):
        seeds += f" of {len(row.outcomes)}"
    return [
        f"`{row.variant}`",
        f"{config.cost_limit:g}",
        seeds,
        *estimates,
        clock(_mean(seconds)) if seconds else "-",
        f"{_mean(one.steps_per_second for one in row.finished):,.0f}" if seconds else "-",
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


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else math.nan
