"""The host loop: chunk, report, checkpoint, until the runs are done or told to stop."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from smpo_jax.experiment.run.program import LARGEST_CHUNK, Program
from smpo_jax.experiment.run.recorder import Recorder
from smpo_jax.experiment.run.signals import StopFlag
from smpo_jax.experiment.run.writers import Row


def run_to_end(
    program: Program,
    recorders: Mapping[int, Recorder],
    stop: StopFlag,
    watch: Callable[[int, Row, float], bool | None],
) -> None:
    """Chunk after chunk, each of about `report_every` seconds but the first, until the end.

    A chunk ends where a checkpoint is due, so that runs of one config have them of the same
    iterations.

    Args:
        program: the runs.
        recorders: by the number of a run in the program, which leaves the others where they are;
            one that diverges has a `failure` afterwards, and the rest goes on.
        stop: ends it early.
        watch: takes the number of a run, its newest row and its steps per second; true ends them
            all. What it raises goes through, once the runs are saved.
    """
    configs = [each.config for each in recorders.values()]
    for each in recorders.values():
        each.start_clock()
    saved_at = time.monotonic()
    count = 1  # the first report comes as soon as it can
    while any(each.remaining for each in recorders.values()) and not stop.is_set:
        began = time.monotonic()
        counts = {i: min(count, each.until_checkpoint) for i, each in recorders.items()}
        reports = program.iterate(counts)
        seconds = (time.monotonic() - began) / max(int(each.done) for each in reports.values())
        rates = {i: recorders[i].config.steps_per_iteration / seconds for i in reports}
        rows = {i: recorders[i].take(report, rates[i]) for i, report in reports.items()}
        try:
            asked = [watch(i, row, rates[i]) for i, row in rows.items()]  # all of them are shown
        except (Exception, KeyboardInterrupt):
            _save(program, recorders)
            raise
        if any(asked):
            break
        due = {i: recorders[i] for i in reports if recorders[i].is_at_checkpoint}
        if time.monotonic() - saved_at >= min(each.checkpoint_every for each in configs):
            due = recorders
        if due:
            _save(program, due)
            saved_at = time.monotonic()
        longest = min(each.report_every for each in configs)
        count = int(np.clip(longest / seconds, 1, LARGEST_CHUNK))
    _save(program, recorders)


def _save(program: Program, recorders: Mapping[int, Recorder]) -> None:
    for i, recorder in recorders.items():
        recorder.save(program.state(i))
