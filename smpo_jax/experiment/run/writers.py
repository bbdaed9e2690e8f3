"""Where metrics go: CSV and JSONL always, TensorBoard and Weights & Biases on request.

`metrics.csv` and `metrics.jsonl` hold one row for every iteration and only what the run computed,
so a run that was killed and resumed ends with the same bytes as one that was not. What a clock
says is in `timing.csv`, one row for every report.
"""

import csv
import importlib
import importlib.util
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.config import Config

Row = dict[str, Any]  # metric name -> int or float

METRICS_CSV = "metrics.csv"
METRICS_JSONL = "metrics.jsonl"
TIMING_CSV = "timing.csv"
TENSORBOARD = "tensorboard"
WANDB_ID = "wandb_id"


class Writer(Protocol):
    """Something that takes the rows of a report."""

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Takes one row for every iteration of a report, and the report's clock readings."""
        ...

    def close(self) -> None:
        """Finishes."""
        ...


class Files:
    """`metrics.csv`, `metrics.jsonl` and `timing.csv`, continued after an iteration.

    Rows of later iterations, and a last line that was cut short, are removed on opening.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        self._csv = _open_after(folder / METRICS_CSV, _csv_iteration, after)
        self._jsonl = _open_after(folder / METRICS_JSONL, _jsonl_iteration, after)
        self._timing = _open_after(folder / TIMING_CSV, _csv_iteration, after)

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Appends, and waits until the disk has it: a checkpoint may rely on these rows."""
        _append(self._csv, _csv_lines(rows, header=self._csv.tell() == 0))
        _append(self._jsonl, "".join(f"{_json_line(row)}\n" for row in rows))
        _append(self._timing, _csv_lines([timing], header=self._timing.tell() == 0))

    def close(self) -> None:
        """Closes the files."""
        for file in (self._csv, self._jsonl, self._timing):
            file.close()


class TensorBoard:
    """Event files in `folder/tensorboard`, against environment steps."""

    def __init__(self, folder: Path, *, after_steps: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=after_steps + 1)

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Adds one scalar for every metric."""
        for row in rows:
            for name, value in row.items():
                if name not in ("iteration", "steps") and math.isfinite(value):
                    self._writer.add_scalar(name, value, row["steps"])
        self._writer.add_scalar(
            "timing/steps_per_second", timing["steps_per_second"], timing["steps"]
        )
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class Wandb:
    """A Weights & Biases run named after the folder; its id is kept there, to go on with it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        remembered = folder / WANDB_ID
        identity = remembered.read_text().strip() if remembered.is_file() else None
        self._run = wandb.init(
            project="smpo-jax",
            name=folder.name,
            id=identity,
            resume="allow",
            config=config,
            dir=str(folder),
        )
        remembered.write_text(f"{self._run.id}\n")

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Logs every iteration; the last one carries the clock readings."""
        for row in rows:
            finite = {name: value for name, value in row.items() if math.isfinite(value)}
            extra = timing if row is rows[-1] else {}
            self._run.log(finite | extra, step=row["steps"])

    def close(self) -> None:
        """Tells the service that the run has ended."""
        self._run.finish()


def last_rows(folder: Path, number: int) -> list[Row]:
    """The last rows of `metrics.jsonl`, null where they are not finite."""
    with open(folder / METRICS_JSONL, encoding="utf-8") as file:
        return [json.loads(line) for line in deque(file, maxlen=number)]


def seconds_so_far(folder: Path) -> float:
    """The clock reading of the last report in `timing.csv`; 0 where there is none."""
    with open(folder / TIMING_CSV, newline="") as file:
        return max((float(row["seconds"]) for row in csv.DictReader(file)), default=0.0)


def require_installed(config: Config) -> None:
    """Raises a `UserError` if an optional writer is asked for whose package is missing."""
    for extra, wanted, module in (
        ("tensorboard", config.tensorboard, "tensorboardX"),
        ("wandb", config.wandb, "wandb"),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            raise UserError(
                f"--{extra} needs the package {module}: pip install {module}, "
                f'or pip install -e ".[{extra}]" in a clone'
            )


def _open_after(path: Path, iteration_of: Callable[[bytes], int], after: int) -> IO[bytes]:
    """The file, cut behind its last whole line of an iteration <= `after`, ready to append."""
    file = open(path, "a+b")  # noqa: SIM115  (closed by `Files.close`)
    file.seek(0)
    keep = 0
    for line in file:
        if not line.endswith(b"\n") or iteration_of(line) > after:
            break
        keep += len(line)
    file.truncate(keep)
    file.seek(keep)
    return file


def _csv_iteration(line: bytes) -> int:
    first = line.split(b",", 1)[0]
    return int(first) if first.isdigit() else 0  # the header


def _jsonl_iteration(line: bytes) -> int:
    return int(json.loads(line)["iteration"])


def _csv_lines(rows: Sequence[Row], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json_line(row: Row) -> str:
    """The row in strict JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(
        {name: value if math.isfinite(value) else None for name, value in row.items()}
    )


def _append(file: IO[bytes], text: str) -> None:
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
