"""The host loop: chunk, report, checkpoint, until the run is done or told to stop."""

import contextlib
import fcntl
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smpo_jax.experiment import checkpoint, writers
from smpo_jax.experiment import config as config_file
from smpo_jax.experiment.checkpoint import Checkpoints, made_with
from smpo_jax.experiment.config import CONFIG_FILE, Config
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import Problem, build
from smpo_jax.experiment.program import LARGEST_CHUNK, Program, Single, compile_single
from smpo_jax.experiment.progress import Progress, make_progress
from smpo_jax.experiment.recorder import Recorder
from smpo_jax.experiment.signals import Stop, StopRequest
from smpo_jax.experiment.writers import Row
from smpo_jax.training import loop
from smpo_jax.types import TrainState

Say = Callable[[str], None]


class Start(NamedTuple):
    """Where a run sets out from."""

    state: TrainState
    iteration: int


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
    _check_vacant(folder, overwrite)
    writers.require_installed(config)
    problem = build(config)
    folder.mkdir(parents=True, exist_ok=True)
    with StopRequest() as stop, locked(folder):
        if overwrite:
            _clear(folder)
        config_file.save(config, folder)
        return _train(config, problem, folder, _initial(config, problem), stop)


def resume(folder: Path) -> int:
    """Goes on with the run in a folder where its newest checkpoint is; see `start`."""
    config = config_file.load(folder)
    writers.require_installed(config)
    with StopRequest() as stop, locked(folder):
        problem = build(config)
        if checkpoint.newest(folder) is None and not _has_metrics(folder):
            print(f"{folder} was stopped before its first checkpoint: starting it again")
        return _train(config, problem, folder, begin(config, problem, folder), stop)


def begin(config: Config, problem: Problem, folder: Path, say: Say = print) -> Start:
    """Where a run goes on: at its newest checkpoint, or at the beginning if it never started.

    Raises:
        UserError: its checkpoints are lost, or those of another run.
    """
    with Checkpoints(folder, config, write=True) as checkpoints:
        if not checkpoints.iterations() and not _has_metrics(folder):
            return _initial(config, problem)
        init = functools.partial(loop.init, problem.algorithm, problem.env, mesh=problem.mesh)
        template = jax.eval_shape(init, jax.random.key(config.seed))
        found = checkpoints.restore(template)
        for iteration, why in found.damaged.items():
            say(f"checkpoint {iteration} is damaged ({why}); using {found.iteration} instead")
        if found.made_with != made_with():
            say(
                f"the checkpoint was made with {found.made_with} and this is {made_with()}: "
                "the run goes on, but its last digits may differ"
            )
        checkpoints.discard_after(found.iteration)
    place = functools.partial(loop.placed, mesh=problem.mesh, num_envs=config.num_envs)
    return Start(jax.jit(place)(found.state), found.iteration)


def advance(
    program: Program,
    recorders: Mapping[int, Recorder],
    stop: Stop,
    watch: Callable[[int, Row, float], None],
) -> None:
    """Chunk after chunk, each of about `report_every` seconds but the first, until the end.

    Args:
        program: the runs.
        recorders: by the number of a run in the program, which leaves the others where they are;
            one that diverges has a `failure` afterwards, and the rest goes on.
        stop: ends it early.
        watch: takes the number of a run, its newest row and its steps per second.
    """
    configs = [each.config for each in recorders.values()]
    for each in recorders.values():
        each.start_clock()
    saved_at = time.monotonic()
    count = 1  # the first report comes as soon as it can
    while any(each.remaining for each in recorders.values()) and not stop.asked:
        began = time.monotonic()
        counts = {i: min(count, each.remaining) for i, each in recorders.items()}
        reports = program.advance(counts)
        seconds = (time.monotonic() - began) / max(int(each.done) for each in reports.values())
        for i, report in reports.items():
            rate = recorders[i].config.steps_per_iteration / seconds
            watch(i, recorders[i].take(report, rate), rate)
        if time.monotonic() - saved_at >= min(each.checkpoint_every for each in configs):
            _save(program, recorders)
            saved_at = time.monotonic()
        longest = min(each.report_every for each in configs)
        count = int(np.clip(longest / seconds, 1, LARGEST_CHUNK))
    _save(program, recorders)


def _save(program: Program, recorders: Mapping[int, Recorder]) -> None:
    for i, recorder in recorders.items():
        recorder.save(program.state(i))


def _initial(config: Config, problem: Problem) -> Start:
    key = jax.random.key(config.seed)
    return Start(loop.init(problem.algorithm, problem.env, key, problem.mesh), 0)


def _train(config: Config, problem: Problem, folder: Path, start: Start, stop: StopRequest) -> int:
    if start.iteration >= config.total_iterations:
        print(f"{folder} is complete: {start.iteration} iterations")
        return 0
    with (
        Recorder(config, folder, start.iteration) as recorder,
        contextlib.closing(make_progress(config)) as progress,
    ):
        recorder.save(start.state)
        program = _compile(problem, start.state, progress, config, folder)
        advance(program, {0: recorder}, stop, lambda _, row, rate: progress.update(row, rate))
        if recorder.failure:
            raise recorder.failure
        if stop.asked:
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
    chunk = compile_single(problem, state)
    progress.say(f"compiled in {time.monotonic() - began:.1f} s")
    return Single(chunk, state)


def _has_metrics(folder: Path) -> bool:
    path = folder / writers.METRICS_JSONL
    return path.is_file() and path.stat().st_size > 0


def _check_vacant(folder: Path, overwrite: bool) -> None:
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        return
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder} is not empty and not the folder of a run: choose another --out")
    if not overwrite:
        raise UserError(
            f"{folder} holds a run: go on with --resume {folder}, replace it with --overwrite, "
            "or choose another --out"
        )


def _clear(folder: Path) -> None:
    """Removes what a run has written, and nothing else."""
    for name in (checkpoint.FOLDER, writers.TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (writers.METRICS_CSV, writers.METRICS_JSONL, writers.TIMING_CSV, writers.WANDB_ID):
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder; the lock goes with the process, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {folder}") from None
        yield
    finally:
        os.close(descriptor)
