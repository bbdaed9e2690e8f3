"""Where metrics go: CSV and JSONL always, TensorBoard and Weights & Biases on request.

`metrics.csv` and `metrics.jsonl` hold one row for every iteration and only what the run computed,
so a run that was killed and resumed ends with the same bytes as one that was not. What a clock
says is in `timing.csv`, one row for every report.
"""

import contextlib
import csv
import importlib
import importlib.util
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from PIL import Image

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config

Row = dict[str, Any]  # metric name -> int or float

METRICS_CSV = "metrics.csv"
METRICS_JSONL = "metrics.jsonl"
TIMING_CSV = "timing.csv"
TENSORBOARD = "tensorboard"
WANDB_ID = "wandb_id"
FILM = "film"


def costs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The mean episode costs in a row: `cost`, or `cost/NAME` of each."""
    return {
        name.removeprefix("episode/"): value
        for name, value in row.items()
        if name == "episode/cost" or name.startswith("episode/cost/")
    }


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
        self._columns = _csv_columns(folder / METRICS_CSV)

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Appends, and waits until the disk has it: a checkpoint may rely on these rows."""
        has_header = self._csv.tell() > 0
        columns = self._columns if has_header else list(rows[0])
        self._columns = columns
        _append(self._csv, _csv_lines(rows, columns, header=not has_header))
        _append(self._jsonl, "".join(f"{_json_line(row)}\n" for row in rows))
        _append(self._timing, _csv_lines([timing], list(timing), header=self._timing.tell() == 0))

    def close(self) -> None:
        """Closes the files."""
        for file in (self._csv, self._jsonl, self._timing):
            file.close()


class TensorBoard:
    """Event files in `folder/tensorboard`, against environment steps.

    The configuration is the run's row in the HPARAMS tab, and a text.
    """

    def __init__(self, folder: Path, config: Config, *, after_steps: int) -> None:
        library: Any = importlib.import_module("tensorboardX")
        # Without a suffix, a second file of the same second takes the place of the first.
        self._writer = library.SummaryWriter(
            str(folder / TENSORBOARD),
            purge_step=after_steps + 1,
            filename_suffix=f".{after_steps}",
        )
        if after_steps == 0:
            values = {name: _one_value(value) for name, value in config_file.flat(config).items()}
            # Not `add_hparams`, which makes a second run of them.
            shown = ["episode/return", *(f"episode/{name}" for name in config.limits)]
            for summary in library.summary.hparams(values, dict.fromkeys(shown)):
                self._writer.file_writer.add_summary(summary)
            self._writer.add_text("config", f"```\n{config_file.as_text(config)}```")

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

    def film(self, gif: Path, steps: int) -> None:
        """Adds a film, as it is: TensorBoard plays a gif where it shows an image."""
        messages: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
        with Image.open(gif) as first:
            width, height = first.size
        image = messages.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=gif.read_bytes()
        )
        value = messages.Summary.Value(tag=FILM, image=image)
        self._writer.file_writer.add_summary(messages.Summary(value=[value]), steps)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class Wandb:
    """A Weights & Biases run: the active one of the program around this, or else one of our own.

    What is active belongs to the program, a sweep's agent for instance: it gets the rows, and
    keeps its configuration and steps, and is not finished. One of our own is not made active, so
    that several threads may train; its id is kept in the folder, to go on with it. Its place and
    name are those of the config, of W&B's environment variables, or else project smpo-jax and the
    folder's name.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        self._is_ours = self._wandb.run is None
        remembered = folder / WANDB_ID
        self._run = self._wandb.init(
            project=config.wandb_project or _unless_set("WANDB_PROJECT", "smpo-jax"),
            entity=config.wandb_entity,
            group=config.wandb_group,
            tags=list(config.wandb_tags) or None,
            name=config.wandb_name or _unless_set("WANDB_NAME", folder.name),
            id=remembered.read_text().strip() if remembered.is_file() else None,
            resume="allow",
            reinit="create_new" if self._is_ours else "return_previous",
            config=config_file.as_mapping(config),
            dir=_unless_set("WANDB_DIR", str(folder)),
        )
        if self._is_ours:
            remembered.write_text(f"{self._run.id}\n")

    def write(self, rows: Sequence[Row], timing: Row) -> None:
        """Logs every iteration; the last one carries the clock readings."""
        for row in rows:
            finite = {name: value for name, value in row.items() if math.isfinite(value)}
            extra = timing if row is rows[-1] else {}
            # W&B drops steps below those that the run has, and another's may have any.
            self._run.log(finite | extra, step=row["steps"] if self._is_ours else None)

    def film(self, gif: Path, steps: int) -> None:
        """Logs a film, as it is."""
        self._run.log({FILM: self._wandb.Video(str(gif), format="gif"), "steps": steps})

    def close(self) -> None:
        """Tells the service that the run has ended, if it is ours."""
        if self._is_ours:
            self._run.finish()


def log_film(gif: Path, folder: Path, config: Config, steps: int) -> None:
    """Adds a film of a run to its TensorBoard and its Weights & Biases, if it has them."""
    with contextlib.ExitStack() as stack:
        if config.tensorboard:
            board = TensorBoard(folder, config, after_steps=max(1, steps))
            stack.enter_context(contextlib.closing(board)).film(gif, steps)
        if config.wandb:
            stack.enter_context(contextlib.closing(Wandb(folder, config))).film(gif, steps)


def _unless_set(variable: str, value: str) -> str | None:
    """The value, or None where an environment variable says it, which W&B reads itself."""
    return None if os.environ.get(variable) else value


def _one_value(value: Any) -> Any:
    """A setting as TensorBoard's table may hold it: a number, a truth or a text."""
    return value if isinstance(value, bool | int | float) else str(value)


def last_rows(folder: Path, number: int) -> list[Row]:
    """The last rows of `metrics.jsonl`, null where they are not finite."""
    with open(folder / METRICS_JSONL, encoding="utf-8") as file:
        return [json.loads(line) for line in deque(file, maxlen=number)]


def newest_row(folder: Path) -> Row:
    """The row of the newest iteration; nothing where there is none."""
    return {
        name: math.nan if value is None else value
        for row in last_rows(folder, 1)
        for name, value in row.items()
    }


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


def _csv_columns(path: Path) -> list[str]:
    """Those of its header; an earlier version's run goes on with the columns that it began with."""
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _csv_lines(rows: Sequence[Row], columns: Sequence[str], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, columns, restval="nan", extrasaction="ignore", lineterminator="\n"
    )
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
