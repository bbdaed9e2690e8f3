"""A run of its own: started or resumed from Python or the command line."""

import contextlib
import time
from pathlib import Path
from typing import Any

from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import LackOfMemoryError, memory_told
from smpo_jax.experiment.problem import Problem, build
from smpo_jax.experiment.run import checkpoint, host_loop, run_folder, starting_point, writers
from smpo_jax.experiment.run.program import Program, SingleRun, compile_run
from smpo_jax.experiment.run.progress import Progress, make_progress
from smpo_jax.experiment.run.recorder import Recorder
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.run.starting_point import StartingPoint
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.types import TrainState


def run(*, out: str | Path | None = None, overwrite: bool = False, **fields: Any) -> Path:
    """Trains from Python as `smpo-jax train` does, with the same files.

    Args:
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        overwrite: replace the run that is in the folder, if there is one.
        fields: the others of `Config`, as a file of YAML may have them: what belongs to the
            algorithm is a mapping `hyperparameters`.

    Returns:
        The folder, for `render` and `load_policy`.

    Raises:
        UserError: it cannot be run; nothing on disk has changed.
        DivergenceError: NaN or infinity.
        KeyboardInterrupt: it was stopped, by a notebook's stop button for instance, and saved.
    """
    folder = {} if out is None else {"out": Path(out)}
    config = config_file.from_mapping(fields, where="run", **folder)
    if start(config, overwrite=overwrite) != 0:
        raise KeyboardInterrupt
    return config.folder


def start(config: Config, *, overwrite: bool = False) -> int:
    """Trains from the beginning.

    Args:
        config: the run.
        overwrite: replace the run that is in the folder, if there is one.

    Returns:
        The exit status: 0, or 130 or 143 after a signal.

    Raises:
        UserError: it cannot be run; nothing on disk has changed.
        DivergenceError: NaN or infinity.
        OSError: the folder cannot be written.
    """
    folder = config.folder
    run_folder.check_vacant(folder, overwrite=overwrite)
    writers.require_installed(config)
    problem = build(config)
    sizes.require_runs_fit(config, problem)
    folder.mkdir(parents=True, exist_ok=True)
    with StopOnSignal() as stop, run_folder.locked(folder):
        if overwrite:
            run_folder.clear(folder)
        config_file.save(config, folder)
        try:
            with memory_told():
                first = starting_point.initial(config, problem)
                return _train(config, problem, folder, first, stop)
        except LackOfMemoryError:
            run_folder.remove_empty(folder)
            raise


def resume(folder: Path) -> int:
    """Goes on with the run in a folder where its newest checkpoint is; see `start`."""
    config = config_file.load(folder)
    writers.require_installed(config)
    with StopOnSignal() as stop, run_folder.locked(folder):
        problem = build(config)
        if checkpoint.newest(folder) is None and not run_folder.has_metrics(folder):
            print(f"{folder} was stopped before its first checkpoint: starting it again")
        return _train(config, problem, folder, starting_point.newest(config, problem, folder), stop)


def _train(
    config: Config, problem: Problem, folder: Path, start: StartingPoint, stop: StopOnSignal
) -> int:
    if start.iteration >= config.total_iterations:
        print(f"{folder} is complete: {start.iteration} iterations")
        return 0
    with (
        Recorder(config, folder, start.iteration) as recorder,
        contextlib.closing(make_progress(config)) as progress,
    ):
        recorder.save(start.state)
        program = _compile(problem, start.state, progress, config, folder)
        host_loop.run_to_end(
            program, {0: recorder}, stop, lambda _, row, rate: progress.update(row, rate)
        )
        if recorder.failure:
            raise recorder.failure
        if stop.is_set:
            progress.say(
                f"stopped at iteration {recorder.iteration} of {config.total_iterations} and "
                f"saved; go on with: smpo-jax train --resume {folder}"
            )
        else:
            progress.say(
                f"done: {recorder.iteration} iterations, {recorder.seconds():,.0f} s, in {folder}"
            )
    return stop.exit_status


def _compile(
    problem: Problem, state: TrainState, progress: Progress, config: Config, folder: Path
) -> Program:
    progress.say(
        f"{config.algo} on {config.env}, seed {config.seed}: {config.total_iterations} iterations "
        f"of {config.num_envs} x {config.rollout_length} steps, in {folder}"
    )
    began = time.monotonic()
    chunk = compile_run(problem, state)
    sizes.require_program_fits(chunk)
    progress.say(f"compiled in {time.monotonic() - began:.1f} s")
    return SingleRun(chunk, state)
