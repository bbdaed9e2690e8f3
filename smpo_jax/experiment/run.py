"""The host loop: chunk, report, checkpoint, until the run is done or told to stop."""

import contextlib
import fcntl
import functools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smpo_jax.experiment import config as config_file
from smpo_jax.experiment import writers
from smpo_jax.experiment.checkpoint import FOLDER as CHECKPOINTS
from smpo_jax.experiment.checkpoint import Checkpoints, made_with
from smpo_jax.experiment.chunk import Chunk, Report, compile_chunk, make_chunk, may_be_nan
from smpo_jax.experiment.config import CONFIG_FILE, Config
from smpo_jax.experiment.errors import DivergenceError, UserError
from smpo_jax.experiment.problem import Problem, build
from smpo_jax.experiment.progress import Progress, make_progress
from smpo_jax.experiment.signals import StopRequest
from smpo_jax.experiment.writers import Row
from smpo_jax.training import loop
from smpo_jax.types import TrainState

LARGEST_CHUNK = 128  # iterations between two reports, at most


class Start(NamedTuple):
    """Where a run sets out from."""

    state: TrainState
    iteration: int


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
    with StopRequest() as stop, _locked(folder):
        if overwrite:
            _clear(folder)
        config_file.save(config, folder)
        return _train(config, problem, folder, _initial(config, problem), stop)


def resume(folder: Path) -> int:
    """Goes on with the run in a folder where its newest checkpoint is; see `start`."""
    config = config_file.load(folder)
    writers.require_installed(config)
    with StopRequest() as stop, _locked(folder):
        problem = build(config)
        return _train(config, problem, folder, _restored(config, problem, folder), stop)


def _initial(config: Config, problem: Problem) -> Start:
    return Start(loop.init(problem.algorithm, problem.env, jax.random.key(config.seed)), 0)


def _restored(config: Config, problem: Problem, folder: Path) -> Start:
    """The newest whole checkpoint, told of on the screen if it is not simply the newest."""
    with Checkpoints(folder, config, write=True) as checkpoints:
        if not checkpoints.iterations() and not _has_metrics(folder):
            print(f"{folder} was stopped before its first checkpoint: starting it again")
            return _initial(config, problem)
        init = functools.partial(loop.init, problem.algorithm, problem.env)
        template = jax.eval_shape(init, jax.random.key(config.seed))
        found = checkpoints.restore(template)
        for iteration, why in found.damaged.items():
            print(f"checkpoint {iteration} is damaged ({why}); using {found.iteration} instead")
        if found.made_with != made_with():
            print(
                f"the checkpoint was made with {found.made_with} and this is {made_with()}: "
                "the run goes on, but its last digits may differ"
            )
        checkpoints.discard_after(found.iteration)
    return Start(found.state, found.iteration)


def _train(config: Config, problem: Problem, folder: Path, begin: Start, stop: StopRequest) -> int:
    state, iteration = begin
    if iteration >= config.total_iterations:
        print(f"{folder} is complete: {iteration} iterations")
        return 0
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder, config, write=True))
        outputs = [
            stack.enter_context(contextlib.closing(output))
            for output in _open_writers(config, folder, iteration)
        ]
        progress = stack.enter_context(contextlib.closing(make_progress(config)))
        checkpoints.save(state, iteration)
        saved_at = time.monotonic()
        chunk = _compile(problem, state, progress, config, folder)
        clock = _Clock(writers.seconds_so_far(folder))
        for report in _reports(chunk, config, begin, clock, stop):
            state, iteration = report.state, report.rows[-1]["iteration"]
            for output in outputs:
                output.write(report.rows, report.timing)
            progress.update(report.rows[-1], report.timing["steps_per_second"])
            if not report.finite:
                raise _divergence(report.rows[-1], checkpoints, folder)
            if time.monotonic() - saved_at >= config.checkpoint_every:
                checkpoints.save(state, iteration)
                saved_at = time.monotonic()
        checkpoints.save(state, iteration)
        if stop.asked:
            progress.say(
                f"stopped at iteration {iteration} of {config.total_iterations} and saved; "
                f"go on with: smpo-jax train --resume {folder}"
            )
        else:
            progress.say(f"done: {iteration} iterations, {clock.seconds():,.0f} s, in {folder}")
    return stop.exit_status


class Reported(NamedTuple):
    """What one chunk led to."""

    state: TrainState
    rows: list[Row]  # one per iteration
    timing: Row
    finite: bool


def _reports(
    chunk: Chunk, config: Config, begin: Start, clock: "_Clock", stop: StopRequest
) -> Iterator[Reported]:
    """Chunk after chunk, each of about `report_every` seconds but the first, until the end."""
    state, iteration = begin
    count = 1  # the first report comes as soon as it can
    finite = True
    while finite and iteration < config.total_iterations and not stop.asked:
        began = time.monotonic()
        state, report = chunk(state, jnp.int32(min(count, config.total_iterations - iteration)))
        report = jax.device_get(report)
        seconds = (time.monotonic() - began) / int(report.done)
        rows = _rows(report, iteration, config)
        iteration += int(report.done)
        finite = bool(report.finite)
        timing: Row = {
            "iteration": iteration,
            "steps": rows[-1]["steps"],
            "seconds": round(clock.seconds(), 3),
            "steps_per_second": round(config.steps_per_iteration / seconds, 1),
        }
        yield Reported(state, rows, timing, finite)
        count = int(np.clip(config.report_every / seconds, 1, LARGEST_CHUNK))


def _compile(
    problem: Problem, state: TrainState, progress: Progress, config: Config, folder: Path
) -> Chunk:
    progress.say(
        f"{config.algo} on {config.env}, seed {config.seed}: {config.total_iterations} iterations "
        f"of {config.num_envs} x {config.rollout_length} steps, in {folder}"
    )
    began = time.monotonic()
    iteration = loop.iteration(problem.algorithm, problem.env, problem.spec)
    chunk = compile_chunk(make_chunk(iteration, LARGEST_CHUNK), state)
    progress.say(f"compiled in {time.monotonic() - began:.1f} s")
    return chunk


def _open_writers(config: Config, folder: Path, iteration: int) -> Iterator[writers.Writer]:
    yield writers.Files(folder, after=iteration)
    if config.tensorboard:
        yield writers.TensorBoard(folder, after_steps=iteration * config.steps_per_iteration)
    if config.wandb:
        yield writers.Wandb(folder, config_file.as_plain(config))


def _rows(report: Report, before: int, config: Config) -> list[Row]:
    """One row per iteration; floats as short as their type allows."""
    return [
        {
            "iteration": before + i + 1,
            "steps": (before + i + 1) * config.steps_per_iteration,
            **{name: _plain(values[i]) for name, values in report.metrics.items()},
        }
        for i in range(int(report.done))
    ]


def _plain(value: Any) -> int | float:
    # By way of text, float32 0.1 is written 0.1 and not 0.10000000149011612.
    return float(str(value)) if np.issubdtype(value.dtype, np.floating) else int(value)


def _divergence(row: Row, checkpoints: Checkpoints, folder: Path) -> DivergenceError:
    name = next(key for key, value in row.items() if not (may_be_nan(key) or np.isfinite(value)))
    return DivergenceError(
        f"iteration {row['iteration']}: {name} is {row[name]}; stopped. The last good "
        f"checkpoint is that of iteration {checkpoints.iterations()[-1]} in {folder}"
    )


class _Clock:
    """Seconds of training, those before a resume included."""

    def __init__(self, before: float) -> None:
        self._zero = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self._zero


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
    for name in (CHECKPOINTS, writers.TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (writers.METRICS_CSV, writers.METRICS_JSONL, writers.TIMING_CSV, writers.WANDB_ID):
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
