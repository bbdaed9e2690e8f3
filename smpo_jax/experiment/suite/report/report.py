"""`smpo-jax report`: a suite's folder as tables and figures."""

from collections.abc import Sequence
from typing import Any

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import plots, tables
from smpo_jax.experiment.run.progress import limits_told
from smpo_jax.experiment.settings.config import CostLimit
from smpo_jax.experiment.settings.options import ReportOptions
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.report import figures, markdown
from smpo_jax.experiment.suite.report import published as published_results
from smpo_jax.experiment.suite.report.measures import (
    Comparison,
    Measures,
    Outcome,
    compare,
    in_order,
    mean,
    outcomes,
)
from smpo_jax.experiment.suite.report.published import Published


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
    columns = _columns([each.measures for each in found if each.measures])
    tables.write(options.out / "cells.csv", (_cell_row(each, columns) for each in found))
    tables.write(options.out / "variants.csv", (_variant_row(row, columns) for row in rows))
    for task in tasks:
        _draw(
            [row for row in rows if row.task == task],
            [each for each in beside if each.task == task],
            options,
        )
    text = "\n".join(markdown.lines(options, rows, beside))
    (options.out / "report.md").write_text(text, encoding="utf-8")
    for each in found:
        if each.problem:
            print(f"{each.cell.name}: {each.problem}")
    print(options.out / "report.md")


def _columns(finished: Sequence[Measures]) -> list[str]:
    """Of all cells; costs of several constraints have their columns beside the field's own."""
    seen = dict.fromkeys(column for one in finished for column in one.flat())
    return [
        column for field in Measures._fields for column in seen if column.partition("/")[0] == field
    ]


def limits_in_a_cell(cost_limit: CostLimit) -> str | float:
    """The limit as a number, or several in a text."""
    return cost_limit if isinstance(cost_limit, float) else limits_told(cost_limit)


def _draw(rows: Sequence[Comparison], beside: Sequence[Published], options: ReportOptions) -> None:
    """The figures of a task."""
    shades = plots.colours(row.variant for row in rows)
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
        plots.save(figure, options.out / rows[0].picture(name))


def _cell_row(each: Outcome, columns: Sequence[str]) -> dict[str, Any]:
    config, blank = each.cell.config, dict.fromkeys(columns, "")
    measures = blank | (each.measures.flat() if each.measures else {})
    return {
        "task": config.env,
        "variant": each.cell.variant,
        "algo": config.algo,
        "seed": config.seed,
        "cost_limit": limits_in_a_cell(config.cost_limit),
        "steps": config.total_steps,
        "status": each.status,
        "problem": each.problem,
        "cells_in_program": each.cells_in_program,
        **{column.rstrip("_"): value for column, value in measures.items()},
    }


def _variant_row(row: Comparison, columns: Sequence[str]) -> dict[str, Any]:
    config = row.outcomes[0].cell.config
    result: dict[str, Any] = {
        "task": row.task,
        "variant": row.variant,
        "algo": config.algo,
        "cost_limit": limits_in_a_cell(config.cost_limit),
        "steps": config.total_steps,
        "cells": len(row.outcomes),
        "done": len(row.finished),
    }
    for column in in_order(columns):
        bounds = row.estimates.get(column, ("", "", ""))
        key = column.rstrip("_")
        result |= dict(zip((key, f"{key}_low", f"{key}_high"), bounds, strict=True))
    result["seconds"] = sum(one.seconds for one in row.finished)
    result["steps_per_second"] = mean(one.steps_per_second for one in row.finished)
    return result
