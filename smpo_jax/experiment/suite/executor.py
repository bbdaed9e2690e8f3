"""Works a suite off, batch by batch."""

import contextlib
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from smpo_jax.experiment.errors import DivergenceError, UserError, one_line
from smpo_jax.experiment.problem import Problem, build, noted, provide
from smpo_jax.experiment.run import host_loop, run_folder, starting_point, writers
from smpo_jax.experiment.run.program import Launch, Program, Say, VmappedRuns, loop_of
from smpo_jax.experiment.run.recorder import Recorder
from smpo_jax.experiment.run.signals import StopFlag, StopOnSignal
from smpo_jax.experiment.run.starting_point import StartingPoint
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.config_file import CONFIG_FILE
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.displays import StatusLines, SuiteDisplay
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.status_table import StatusTable
from smpo_jax.experiment.suite.suite_folder import DIVERGED


class ProgramCache:
    """Problems and compiled programs of single runs, kept for the next one that needs the same."""

    def __init__(self) -> None:
        self._problem: tuple[str, Problem] | None = None
        self._launch: tuple[str, Launch] | None = None

    def problem(self, config: Config) -> Problem:
        """The problem of a run; the seed is no part of it."""
        key = _without_seed(config)
        if self._problem is None or self._problem[0] != key:
            self._problem = (key, build(config))
        return self._problem[1]

    def single(self, config: Config, start: StartingPoint, say: Say) -> Program:
        """The program of a run alone."""
        key = _without_seed(config)
        if self._launch is None or self._launch[0] != key:
            self._launch = (key, loop_of(self.problem(config)).compile(start.state))
        return self._launch[1](start.state, say)


def _without_seed(config: Config) -> str:
    plain = config_file.flat(config)
    return json.dumps({name: value for name, value in plain.items() if name != "seed"})


class SuiteContext(NamedTuple):
    """Where the runs of a suite live, and who watches."""

    folder: Path
    display: SuiteDisplay
    stop: StopFlag


def train_batch(cells: Sequence[Cell], context: SuiteContext, programs: ProgramCache) -> None:
    """Trains a batch of cells to the end, or until a stop is asked for.

    What goes wrong is told to the display and written to the cell's `error.txt`, never raised: one
    that diverges leaves the others alone, anything else ends the whole batch.
    """
    under_way = _to_run(cells, context)
    try:
        with contextlib.ExitStack() as stack:
            for cell in under_way:
                own = context.folder / cell.name
                own.mkdir(parents=True, exist_ok=True)
                stack.enter_context(run_folder.locked(own))
            under_way = _to_run(under_way, context)  # who had the lock before may have finished
            for cell in under_way:
                context.display.started(cell.name)
                _write_config(cell, context.folder)
            if under_way:
                _train_together(cells, context, programs)
    except run_folder.InUseError as error:
        context.display.say(f"left alone: {error}")
    except Exception as error:  # whatever it is, the rest of the suite goes on
        for cell in under_way:
            if suite_folder.status(context.folder, cell) not in ("done", "failed"):
                _report_failure(cell, context, error)


def _to_run(cells: Sequence[Cell], context: SuiteContext) -> list[Cell]:
    return [cell for cell in cells if suite_folder.is_to_run(context.folder, cell)]


def train_named(folder: str, names: tuple[str, ...], *, stops_on_signal: bool) -> None:
    """Trains a batch of the suite in a folder, and shows how it fares on stdout.

    A batch that the suite no longer has, since it was divided otherwise, is left alone.
    """
    path = Path(folder)
    suite = suite_folder.load(path)
    by_name = {cell.name: cell for cell in suite.cells}
    if names not in suite.batches or not by_name.keys() >= set(names):
        print(f"{folder} no longer has a batch of {', '.join(names)}", flush=True)
        return
    cells = [by_name[name] for name in names]
    provide(max(cell.config.devices for cell in cells), threads=1)
    states = {cell.name: (cell, suite_folder.status(path, cell)) for cell in cells}
    display = StatusLines(StatusTable(states), sys.stdout)
    with StopOnSignal(listens=stops_on_signal) as stop:
        train_batch(cells, SuiteContext(path, display, stop), ProgramCache())


def _train_together(cells: Sequence[Cell], context: SuiteContext, programs: ProgramCache) -> None:
    with contextlib.ExitStack() as stack:
        starts, recorders = [], {}
        for lane, cell in enumerate(cells):
            own = context.folder / cell.name
            problem = programs.problem(cell.config)
            config = noted(dataclasses.replace(cell.config, observations=_known(own)), problem)
            is_to_run = suite_folder.is_to_run(context.folder, cell)
            if is_to_run:
                config_file.save(config, own)
            # A lane that is done or has diverged only fills its place.
            start = starting_point.newest(config, problem, own, context.display.say)
            starts.append(start)
            if is_to_run:
                recorders[lane] = stack.enter_context(Recorder(config, own, start.iteration))
                recorders[lane].save(start.state)
        program = _program(cells, starts, context, programs)
        stack.enter_context(contextlib.closing(program))

        def watch(lane: int, row: writers.Row, rate: float) -> None:
            context.display.update(cells[lane].name, row, rate)
            failure = recorders[lane].failure
            if failure:
                _report_failure(cells[lane], context, failure)

        host_loop.run_to_end(program, recorders, context.stop, watch)
        for lane, recorder in recorders.items():
            if not recorder.failure and not recorder.remaining:
                context.display.finished(cells[lane].name)


def _program(
    cells: Sequence[Cell],
    starts: Sequence[StartingPoint],
    context: SuiteContext,
    programs: ProgramCache,
) -> Program:
    began = time.monotonic()
    if len(cells) == 1:
        say = context.display.say
        program: Program = programs.single(cells[0].config, starts[0], say)
    else:
        program = VmappedRuns([cell.config for cell in cells], [start.state for start in starts])
    seconds = time.monotonic() - began
    if seconds > 1:
        context.display.say(
            f"compiled in {seconds:.1f} s: {cells[0].name}"
            + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")
        )
    return program


def _write_config(cell: Cell, folder: Path) -> None:
    suite_folder.clear_error(folder, cell)
    own = folder / cell.name
    config_file.save(dataclasses.replace(cell.config, observations=_known(own)), own)


def _known(own: Path) -> tuple[str, ...]:
    """The parts of the observations that a run has been trained on; () if it hasn't begun."""
    return config_file.load(own).observations if (own / CONFIG_FILE).is_file() else ()


def _report_failure(cell: Cell, context: SuiteContext, error: Exception) -> None:
    text = _describe(error)
    suite_folder.write_error(context.folder, cell, text)
    context.display.failed(cell.name, text.splitlines()[0])


def _describe(error: Exception) -> str:
    """What went wrong in one line, what may help, and where a surprise came from."""
    if isinstance(error, DivergenceError):
        text = f"{DIVERGED}{one_line(error)}\n"
    elif isinstance(error, UserError | OSError):
        text = f"{one_line(error)}\n"
    else:
        text = f"{type(error).__name__}: {one_line(error)}\n\n"
        text += "".join(traceback.format_exception(error))
    if "RESOURCE_EXHAUSTED" in text:
        return f"out of memory; try fewer runs at once, with --batch. {text}"
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return f"its algorithm does not let values vary in one program; try --batch 1. {text}"
    return text
