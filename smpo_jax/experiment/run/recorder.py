"""What a run under way keeps on disk, and how far it is."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smpo_jax.experiment.errors import DivergenceError
from smpo_jax.experiment.run import selection, writers
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.run.chunk import Report, faults
from smpo_jax.experiment.run.writers import Row
from smpo_jax.experiment.settings.config import FEWEST_ITERATIONS, Config
from smpo_jax.training.loop import BROKEN, ROLLOUT
from smpo_jax.types import TrainState

# Groups of metrics by when they are computed: steps, episodes and critics first, then what prices
# are made of them (and what a method of one's own reports), then the policy.
FIRST = ("rollout", "episode", "value", "cost_value")
LAST = ("policy", "projection", "learner")


class Recorder:
    """One run's checkpoints and metrics, continued after an iteration.

    Attributes:
        config: the run.
        iteration: updates made.
        failure: why the run cannot go on; None while it can.
    """

    def __init__(self, config: Config, folder: Path, iteration: int) -> None:
        self.config = config
        self.iteration = iteration
        self.failure: DivergenceError | None = None
        self._folder = folder
        with contextlib.ExitStack() as stack:
            self._checkpoints = stack.enter_context(Checkpoints(folder, config, write=True))
            self._outputs = [
                stack.enter_context(contextlib.closing(output))
                for output in _open_writers(config, folder, iteration)
            ]
            window = max(config.checkpoint_interval, FEWEST_ITERATIONS)
            self._window = deque(writers.last_rows(folder, window), maxlen=window)
            self._before = writers.seconds_so_far(folder)
            self._zero = time.monotonic() - self._before
            self._stack = stack.pop_all()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def remaining(self) -> int:
        """Iterations to go; 0 for a run that has failed."""
        return 0 if self.failure else max(0, self.config.total_iterations - self.iteration)

    @property
    def until_checkpoint(self) -> int:
        """Iterations to the next checkpoint that every run of this config has."""
        return min(self.remaining, self.config.next_checkpoint(self.iteration) - self.iteration)

    @property
    def is_at_checkpoint(self) -> bool:
        """Whether every run of this config has a checkpoint of the iteration that it is at."""
        return self.config.next_checkpoint(self.iteration - 1) == self.iteration

    def seconds(self) -> float:
        """How long the run has taken so far, what came before a resume included."""
        return time.monotonic() - self._zero

    def start_clock(self) -> None:
        """Counts seconds from now on: what came before was compilation."""
        self._zero = time.monotonic() - self._before

    def take(self, report: Report, steps_per_second: float) -> Row:
        """Writes what a chunk computed; the row of its last iteration."""
        rows = _rows(report, self.iteration, self.config)
        self.iteration += int(report.done)
        timing: Row = {
            "iteration": self.iteration,
            "steps": rows[-1]["steps"],
            "seconds": round(self.seconds(), 3),
            "steps_per_second": round(steps_per_second, 1),
        }
        for output in self._outputs:
            output.write(rows, timing)
        self._window.extend(rows)
        if not report.finite:
            self.failure = self._divergence(rows[-1])
        return rows[-1]

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint, unless the run has failed or there is one of this iteration."""
        if self.failure:
            return
        lasts = self.iteration == 0 or self.is_at_checkpoint
        score = selection.score(self._window) if lasts else None
        self._checkpoints.save(state, self.iteration, is_interim=not lasts, score=score)

    def _divergence(self, row: Row) -> DivergenceError:
        name = first_fault(row)
        why = f" ({BROKEN})" if name.startswith(ROLLOUT) else ""
        return DivergenceError(
            f"iteration {row['iteration']}: {name} is {row[name]}{why}; stopped. The last good "
            f"checkpoint is that of iteration {self._checkpoints.iterations()[-1]} in "
            f"{self._folder}"
        )


def first_fault(row: Row) -> str:
    """Which of the metrics that are not finite was computed first."""
    return min((name for name, is_fault in faults(row).items() if is_fault), key=_stage)


def _stage(metric: str) -> int:
    """When in an iteration a metric is computed: what comes first is the cause of what follows."""
    group = metric.partition("/")[0]
    if group in FIRST:
        return FIRST.index(group)
    return len(FIRST) + (LAST.index(group) + 1 if group in LAST else 0)


def _open_writers(config: Config, folder: Path, iteration: int) -> Iterator[writers.Writer]:
    yield writers.Files(folder, after=iteration)
    if config.tensorboard:
        steps = iteration * config.steps_per_iteration
        yield writers.TensorBoard(folder, config, after_steps=steps)
    if config.wandb:
        yield writers.Wandb(folder, config)


def _rows(report: Report, before: int, config: Config) -> list[Row]:
    """One row per iteration; floats as short as their type allows."""
    columns = _columns(report.metrics, config)
    return [
        {
            "iteration": before + i + 1,
            "steps": (before + i + 1) * config.steps_per_iteration,
            **{name: _plain(report.metrics[name][i]) for name in columns},
        }
        for i in range(int(report.done))
    ]


def _columns(metrics: Iterable[str], config: Config) -> list[str]:
    """The names of metrics, those of several costs in the order of their limits."""
    costs = [f"episode/{name}" for name in config.limits]
    rest = iter(costs)
    return [next(rest) if name in costs else name for name in metrics]


def _plain(value: Any) -> int | float:
    # By way of text, float32 0.1 is written 0.1 and not 0.10000000149011612.
    return float(str(value)) if np.issubdtype(value.dtype, np.floating) else int(value)
