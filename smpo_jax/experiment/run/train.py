"""A run of its own: started or resumed from Python or the command line."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import Problem, build, check_task
from smpo_jax.experiment.run import checkpoint, host_loop, run_folder, starting_point, writers
from smpo_jax.experiment.run.program import Program, SingleRun, compile_run
from smpo_jax.experiment.run.progress import Progress, make_progress
from smpo_jax.experiment.run.recorder import Recorder
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.run.starting_point import StartingPoint
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.env_options import PLAIN
from smpo_jax.types import TrainState


def run(*, out: str | Path | None = None, overwrite: bool = False, **fields: Any) -> Path:
    """Trains from Python as `smpo-jax train` does, with the same files.

    Args:
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        overwrite: replace the run that is in the folder, if there is one.
        fields: the others of `Config`, as a file of YAML may have them: what belongs to the
            algorithm is a mapping `hyperparameters`. Besides, `env` may be an environment.

    Returns:
        The folder, for `render` and `load_policy`.

    Raises:
        UserError: it cannot be run; nothing on disk has changed.
        DivergenceError: NaN or infinity.
        KeyboardInterrupt: it was stopped, by a notebook's stop button for instance, and saved.
    """
    given = fields if out is None else {**fields, "out": out}
    objects = {}
    if not isinstance(given.get("env", ""), PLAIN):
        objects = config_file.with_object(given["env"])
        given = {name: value for name, value in given.items() if name != "env"}
    config = config_file.from_mapping(given, where="run", **objects)
    if start(config, overwrite=overwrite) != 0:
        raise KeyboardInterrupt
    return config.folder


def resume(folder: str | Path, *, steps: int | None = None, env: Any = None) -> Path:
    """Goes on with a run from Python as `smpo-jax train --resume` does.

    Args:
        folder: of the run.
        steps: how long it is to be in all, unless as long as was planned. What decays over a run,
            such as the learning rate, then goes on as if it had always been that long.
        env: the run's environment, where that was given as an object.

    Returns:
        The folder.

    Raises:
        UserError: there is no run, or it has made more steps.
        DivergenceError: NaN or infinity.
        KeyboardInterrupt: it was stopped and saved.
    """
    home: Path = coerce_argument("folder", folder, Path)
    if go_on(home, steps=coerce_argument("steps", steps, int | None), env=env) != 0:
        raise KeyboardInterrupt
    return home


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
    config = starting_point.pinned(dataclasses.replace(config, earlier_lengths=()))
    problem = build(config)
    check_task(config)
    first = starting_point.initial(config, problem)
    folder.mkdir(parents=True, exist_ok=True)
    with StopOnSignal() as stop, run_folder.locked(folder):
        if overwrite:
            run_folder.clear(folder)
        config_file.save(config, folder)
        return _train(config, problem, folder, first, stop)


def go_on(folder: Path, *, steps: int | None = None, env: Any = None) -> int:
    """Goes on with the run in a folder where its newest checkpoint is; see `resume`, `start`."""
    config = config_file.load(folder, env)
    writers.require_installed(config)
    with StopOnSignal() as stop, run_folder.locked(folder):
        config = config_file.load(folder, env)  # as it is now that nobody else changes it
        longer = _with_length(config, steps, folder)
        problem = build(longer)
        if checkpoint.newest(folder) is None and not run_folder.has_metrics(folder):
            print(f"{folder} was stopped before its first checkpoint: starting it again")
        start = starting_point.newest(config, problem, folder)
        if longer != config:
            # From here on resuming goes on with this length. Checkpoints know the one before it.
            longer = config.with_length(
                longer.steps, made=start.iteration * config.steps_per_iteration
            )
            config_file.save(longer, folder)
            print(
                f"{folder} is of {longer.total_iterations} iterations now, not "
                f"{config.total_iterations}: the learning rate, and all that decays over a run, "
                "goes on as if it had always been"
            )
        return _train(longer, problem, folder, start, stop)


def _with_length(config: Config, steps: int | None, folder: Path) -> Config:
    """The run if it is to have another length, as yet without a word of the one before."""
    if steps is None or steps == config.steps:
        return config
    longer = dataclasses.replace(config, steps=steps)
    made = checkpoint.newest(folder) or 0
    if longer.total_iterations < made:
        raise UserError(
            f"steps: {folder} has made {made * config.steps_per_iteration:,} steps, which is more "
            f"than {steps:,}"
        )
    return longer


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
    progress.say(f"compiled in {time.monotonic() - began:.1f} s")
    return SingleRun(chunk, state)
