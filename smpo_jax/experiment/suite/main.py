"""`smpo-jax suite`: from the file to a folder of finished cells."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import check_task, provide
from smpo_jax.experiment.run import run_folder, starting_point, writers
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.settings import presets
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.options import SuiteOptions
from smpo_jax.experiment.suite import grid, suite_folder
from smpo_jax.experiment.suite.batching import (
    assign_batches,
    default_batch_size,
    one_each,
    program_key,
)
from smpo_jax.experiment.suite.displays import make_display
from smpo_jax.experiment.suite.engines import make_engine
from smpo_jax.experiment.suite.executor import ProgramCache, SuiteContext
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.jobs import work_off
from smpo_jax.experiment.suite.status_table import StatusTable
from smpo_jax.experiment.suite.suite_folder import SUITE_FILE, Suite


def main(options: SuiteOptions) -> int:
    """Runs what is not yet done.

    Returns:
        The exit status: 0 if every cell is done, 1 if one has failed, 130 or 143 after a signal.

    Raises:
        UserError: nothing was run, and no cell has changed.
    """
    _check(options)
    engine = make_engine(options)
    file = presets.find(options.file, presets.suites())
    folder = options.out or Path("runs") / file.stem
    before = suite_folder.load(folder) if (folder / SUITE_FILE).is_file() else None
    said_before = before.overrides if before and options.resume else {}
    overrides = {**said_before, **options.overrides}
    cells = [
        cell._replace(config=starting_point.pinned(cell.config))
        for cell in grid.load(file, overrides)
    ]
    # One thread, so that the bytes are the same however many cells share the cores.
    provide(max(cell.config.devices for cell in cells), threads=1)
    programs = ProgramCache()
    for cell in cells:
        writers.require_installed(cell.config)
        programs.problem(cell.config)  # sizes that do not fit together are found now
    if engine.runs_here:
        _require_fit(cells, programs, (options.batch or 1) * engine.room)
    for config in {_task_of(cell.config): cell.config for cell in cells}.values():
        check_task(config)
    _check_vacant(folder, resume=options.resume)
    suite_folder.check_unchanged(folder, cells)
    engine.connect()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(engine), StopOnSignal() as stop, run_folder.locked(folder):
        default = default_batch_size if engine.runs_here else one_each
        suite = assign_batches(before, cells, folder, options.batch, default)
        suite = suite._replace(overrides=overrides)
        suite_folder.save(suite, folder)
        states = {cell.name: (cell, suite_folder.status(folder, cell)) for cell in cells}
        with contextlib.closing(make_display(StatusTable(states))) as display:
            display.say(f"{len(cells)} cells in {len(suite.batches)} programs, in {folder}")
            work_off(_to_do(suite, folder), SuiteContext(folder, display, stop), engine)
            display.say(_outcome(cells, folder, options))
    if stop.is_set:
        return stop.exit_status
    return 0 if all(suite_folder.status(folder, cell) == "done" for cell in cells) else 1


def _to_do(suite: Suite, folder: Path) -> list[list[Cell]]:
    """The batches in which something is to be done."""
    by_name = {cell.name: cell for cell in suite.cells}
    batches = [[by_name[name] for name in names] for names in suite.batches]
    return [
        batch for batch in batches if any(suite_folder.is_to_run(folder, cell) for cell in batch)
    ]


def _task_of(config: Config) -> str:
    return repr((config.env, config.env_options, config.episode_length))


def _check(options: SuiteOptions) -> None:
    for name in ("batch", "processes"):
        value = getattr(options, name)
        if value is not None:
            require_count(name, value)


def _require_fit(cells: Sequence[Cell], programs: ProgramCache, at_a_time: int) -> None:
    """Refuses cells that the memory has no room for, as many at a time as is asked for."""
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(program_key(cell.config), []).append(cell)
    for kind in kinds.values():
        config = kind[0].config
        at_once = min(len(kind), at_a_time)
        sizes.require_runs_fit(config, programs.problem(config), at_once, "cells")


def _check_vacant(folder: Path, *, resume: bool) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / SUITE_FILE).is_file():
        raise UserError(
            f"{folder} is not empty and not the folder of a suite: choose another --out"
        )
    if not resume:
        raise UserError(f"{folder} holds a suite: go on with --resume, or choose another --out")


def _outcome(cells: Sequence[Cell], folder: Path, options: SuiteOptions) -> str:
    states = [suite_folder.status(folder, cell) for cell in cells]
    lines = [
        f"{cell.name} failed: {suite_folder.error(folder, cell)}"
        for cell, state in zip(cells, states, strict=True)
        if state == "failed"
    ]
    done = states.count("done")
    lines.append(f"{done} of {len(cells)} cells are done, in {folder}")
    if done + states.count("failed") < len(cells):
        lines[-1] += f"; go on with: smpo-jax suite {options.file} --out {folder} --resume"
        if options.executor != SuiteOptions.executor:
            lines[-1] += f" --executor {options.executor}"
    return "\n".join(lines)
