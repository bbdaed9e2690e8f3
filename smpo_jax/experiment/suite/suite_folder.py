"""The folder of a suite: which cells it has, how far each is, and which of them share a program."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run import checkpoint
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config_file import CONFIG_FILE
from smpo_jax.experiment.suite.grid import NOTHING, Cell

SUITE_FILE = "suite.json"
ERROR_FILE = "error.txt"
DIVERGED = "diverged: "  # how the error of a cell begins that would fail again

Status = Literal["waiting", "begun", "done", "failed"]


class Suite(NamedTuple):
    """What `suite.json` holds.

    Attributes:
        cells: those of the file the suite was last started from.
        batches: names of cells that are, or were, trained by one program, each in its lane; a
            cell's last digits depend on how many they are.
        overrides: what the command line said instead of the file.
    """

    cells: list[Cell]
    batches: list[tuple[str, ...]]
    overrides: Mapping[str, Any] = NOTHING


def save(suite: Suite, folder: Path) -> None:
    """Writes `suite.json`, whole or not at all."""
    plain = {
        "cells": [
            {"variant": cell.variant, "config": config_file.as_mapping(cell.config)}
            for cell in suite.cells
        ],
        "batches": suite.batches,
        "overrides": dict(suite.overrides),
    }
    partial = folder / f".{SUITE_FILE}.partial"
    partial.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / SUITE_FILE)


def load(folder: Path) -> Suite:
    """The suite in a folder.

    Raises:
        UserError: there is none, or its file cannot be read.
    """
    path = folder / SUITE_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a suite: it has no {SUITE_FILE}")
    plain = config_file.read_json(path)
    try:
        cells = [
            Cell(each["variant"], config_file.from_saved(each["config"], where=str(path)))
            for each in plain["cells"]
        ]
        batches = [tuple(names) for names in plain["batches"]]
        return Suite(cells, batches, dict(plain.get("overrides", {})))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def status(folder: Path, cell: Cell) -> Status:
    """How far a cell is, from what is on disk."""
    own = folder / cell.name
    if (own / ERROR_FILE).is_file():
        return "failed"
    if (checkpoint.newest(own) or 0) >= cell.config.total_iterations:
        return "done"
    return "begun" if (own / CONFIG_FILE).is_file() else "waiting"


def error(folder: Path, cell: Cell) -> str:
    """The first line of what went wrong in a cell; empty if nothing did."""
    path = folder / cell.name / ERROR_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return lines[0] if lines else ""


def write_error(folder: Path, cell: Cell, text: str) -> None:
    """Marks a cell as failed, if the disk has room for it."""
    own = folder / cell.name
    with contextlib.suppress(OSError):  # of a full disk it is said on the screen
        own.mkdir(parents=True, exist_ok=True)
        (own / ERROR_FILE).write_text(text, encoding="utf-8")


def clear_error(folder: Path, cell: Cell) -> None:
    """Forgets what went wrong in a cell: it is tried again."""
    (folder / cell.name / ERROR_FILE).unlink(missing_ok=True)


def is_to_run(folder: Path, cell: Cell) -> bool:
    """Whether it is worth (another) try: a cell that diverged would do so again."""
    state = status(folder, cell)
    return state != "done" and not error(folder, cell).startswith(DIVERGED)


def check_unchanged(folder: Path, cells: Sequence[Cell]) -> None:
    """Raises a `UserError` that names what differs if a cell was begun with another config."""
    for cell in cells:
        own = folder / cell.name
        if (own / CONFIG_FILE).is_file():
            difference = config_file.difference(config_file.load(own), cell.config)
            if difference:
                raise UserError(
                    f"{own} was begun with another config: {difference}. Give the changed variant "
                    "another name, remove that folder, or choose another --out"
                )
