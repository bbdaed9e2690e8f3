"""A run of its own: started or resumed from Python or the command line."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import LackOfMemoryError, UserError, memory_told
from smpo_jax.experiment.problem import Problem, check_task, noted, provide
from smpo_jax.experiment.run import checkpoint, host_loop, run_folder, starting_point, writers
from smpo_jax.experiment.run.crew import ALONE, Crew
from smpo_jax.experiment.run.program import Program, loop_of
from smpo_jax.experiment.run.progress import Progress, make_progress
from smpo_jax.experiment.run.recorder import Recorder
from smpo_jax.experiment.run.result import NOBODY, Listener, OnReport, RunResult
from smpo_jax.experiment.run.signals import StopOnSignal
from smpo_jax.experiment.run.starting_point import Say, StartingPoint
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.env_options import PLAIN
from smpo_jax.types import TrainState


def run(
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    on_report: OnReport | None = None,
    **fields: Any,
) -> RunResult:
    """Trains from Python as `smpo-jax train` does, with the same files, in any thread.

    Args:
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        overwrite: replace the run that is in the folder, if there is one.
        quiet: print nothing on stdout and leave signals to the program around it. Whose code a run
            takes is still told on stderr, as other notices are.
        on_report: takes the newest row of metrics at every report (see `report_every`); if it
            returns true, the run is saved and ends. What it raises (a study's pruning, say) goes
            through, once the run is saved. Both can be resumed.
        fields: the others of `Config`, as a file of YAML may have them: what belongs to the
            algorithm is a mapping `hyperparameters`. Besides, `env` may be an environment.

    Returns:
        The folder with the newest metrics; it is taken wherever a path is, by `render` and
        `load_policy` for instance.

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
    return _unless_interrupted(
        start(config, overwrite=overwrite, listener=Listener(quiet, on_report))
    )


def resume(
    folder: str | os.PathLike[str],
    *,
    steps: int | None = None,
    env: Any = None,
    quiet: bool = False,
    on_report: OnReport | None = None,
) -> RunResult:
    """Goes on with a run from Python as `smpo-jax train --resume` does.

    Args:
        folder: of the run.
        steps: how long it is to be in all, unless as long as was planned. What decays over a run,
            such as the learning rate, then goes on as if it had always been that long.
        env: the run's environment, where that was given as an object.
        quiet: see `run`.
        on_report: see `run`.

    Returns:
        The folder with the newest metrics.

    Raises:
        UserError: there is no run, or it has made more steps.
        DivergenceError: NaN or infinity.
        KeyboardInterrupt: it was stopped and saved.
    """
    home: Path = coerce_argument("folder", folder, Path)
    length = coerce_argument("steps", steps, int | None)
    listener = Listener(quiet, on_report)
    return _unless_interrupted(go_on(home, steps=length, env=env, listener=listener))


def _unless_interrupted(result: RunResult) -> RunResult:
    if result.exit_status:
        raise KeyboardInterrupt
    return result


def start(
    config: Config,
    *,
    overwrite: bool = False,
    listener: Listener = NOBODY,
    crew: Crew = ALONE,
) -> RunResult:
    """Trains from the beginning.

    Args:
        config: the run.
        overwrite: replace the run that is in the folder, if there is one.
        listener: the program around it.
        crew: the processes that train.

    Raises:
        UserError: it cannot be run; nothing on disk has changed.
        DivergenceError: NaN or infinity.
        OSError: the folder cannot be written.
    """
    folder = config.folder
    run_folder.check_vacant(folder, overwrite=overwrite)
    writers.require_installed(config)
    provide(config.devices)  # before a look at the checkpoints of `init_from` starts them
    config = starting_point.pinned(dataclasses.replace(config, earlier_lengths=(), observations=()))
    with _watching(config, listener) as watch:
        with watch.progress.compiling(), memory_told():
            config = crew.counted(config)
            problem = crew.build(config)
            sizes.require_runs_fit(config, problem)
            check_task(config)
            config = noted(config, problem)
            first = starting_point.initial(config, problem, watch.progress.say)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with run_folder.locked(folder), memory_told():
                if overwrite:
                    run_folder.clear(folder)
                config_file.save(config, folder)
                return _train(config, problem, folder, first, watch)
        except LackOfMemoryError:
            run_folder.remove_empty(folder)
            raise


def go_on(
    folder: Path,
    *,
    steps: int | None = None,
    env: Any = None,
    listener: Listener = NOBODY,
    crew: Crew = ALONE,
) -> RunResult:
    """Goes on with the run in a folder where its newest checkpoint is; see `resume`, `start`."""
    config = config_file.load(folder, env)
    writers.require_installed(config)
    planned = _with_length(config, steps, folder)
    with _watching(planned, listener) as watch, run_folder.locked(folder), memory_told():
        config = config_file.load(folder, env)  # as it is now that nobody else changes it
        longer = _with_length(config, steps, folder)
        say = watch.progress.say
        if checkpoint.newest(folder) is None and not run_folder.has_metrics(folder):
            say(f"{folder} was stopped before its first checkpoint: starting it again")
        with watch.progress.compiling():
            provide(longer.devices, checkpoint.threads(folder))
            problem = crew.build(longer, goes_on=True)
            _tell_devices(longer, problem, say)
            start = starting_point.newest(config, problem, folder, say)
        if longer != config:
            # From here on resuming goes on with this length. Checkpoints know the one before it.
            longer = config.with_length(
                longer.steps, made=start.iteration * config.steps_per_iteration
            )
            config_file.save(longer, folder)
            say(
                f"{folder} is of {longer.total_iterations} iterations now, not "
                f"{config.total_iterations}: the learning rate, and all that decays over a run, "
                "goes on as if it had always been"
            )
        return _train(longer, problem, folder, start, watch)


def _tell_devices(config: Config, problem: Problem, say: Say) -> None:
    """Says so if a run goes on with another number of devices than it began with."""
    there = problem.mesh.size if problem.mesh else 1
    if there != config.devices:
        is_same = problem.spec.shards == config.devices
        effect = "its last digits may differ" if is_same else "minibatches are drawn otherwise"
        say(f"{config.folder} began on {config.devices} devices and goes on with {there}: {effect}")


class _Watch(NamedTuple):
    """Who sees a run, and who may end it."""

    progress: Progress
    stop: StopOnSignal
    on_report: OnReport | None

    def report(self, _: int, row: Row, steps_per_second: float) -> bool:
        """Shows the newest row to all of them; whether the run is to end."""
        self.progress.update(row, steps_per_second)
        return bool(self.on_report and self.on_report(dict(row)))


@contextlib.contextmanager
def _watching(config: Config, listener: Listener) -> Iterator[_Watch]:
    with (
        StopOnSignal(listens=not listener.quiet) as stop,
        contextlib.closing(make_progress(config, quiet=listener.quiet)) as progress,
    ):
        yield _Watch(progress, stop, listener.on_report)


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
    config: Config, problem: Problem, folder: Path, start: StartingPoint, watch: _Watch
) -> RunResult:
    say = watch.progress.say
    if start.iteration >= config.total_iterations:
        say(f"{folder} is complete: {start.iteration} iterations")
        return RunResult(folder, writers.newest_row(folder))
    with Recorder(config, folder, start.iteration) as recorder:
        recorder.save(loop_of(problem).whole(start.state))
        program = _compile(problem, start.state, watch.progress, config, folder)
        with contextlib.closing(program):
            host_loop.run_to_end(program, {0: recorder}, watch.stop, watch.report)
        if recorder.failure:
            raise recorder.failure
        if recorder.remaining:
            say(
                f"stopped at iteration {recorder.iteration} of {config.total_iterations} and "
                f"saved; go on with: smpo-jax train --resume {folder}"
            )
        else:
            say(f"done: {recorder.iteration} iterations, {recorder.seconds():,.0f} s, in {folder}")
        return RunResult(
            folder,
            writers.newest_row(folder),
            stopped=recorder.remaining > 0,
            exit_status=watch.stop.exit_status,
        )


def _compile(
    problem: Problem, state: TrainState, progress: Progress, config: Config, folder: Path
) -> Program:
    progress.say(
        f"{config.algo} on {config.env}, seed {config.seed}: {config.total_iterations} iterations "
        f"of {config.num_envs} x {config.rollout_length} steps, in {folder}"
    )
    began = time.monotonic()
    with progress.compiling():
        launch = loop_of(problem).compile(state)
    progress.say(f"compiled in {time.monotonic() - began:.1f} s")
    return launch(state, progress.say)
