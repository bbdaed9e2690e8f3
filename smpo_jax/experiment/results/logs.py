"""What the files of a run say, for plots and reports."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run.writers import METRICS_CSV
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config

COST = "episode/cost"


class Log(NamedTuple):
    """The iterations of a run in which an episode finished."""

    config: Config
    steps: Float[np.ndarray, " I"]
    values: dict[str, Float[np.ndarray, " I"]]


def read(folder: Path, names: Iterable[str]) -> Log:
    """Those metrics of the run in a folder; `episode/cost` of several costs is that of each.

    Raises:
        UserError: there is no such run, its metrics cannot be read, or no episode has finished.
    """
    config = config_file.load(folder)
    path = folder / METRICS_CSV
    names = [column for name in names for column in columns(name, config)]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if float(row["episode/count"] or 0) > 0]
            steps = np.array([float(row["steps"]) for row in rows])
            values = {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not rows:
        raise UserError(f"{path} has nothing to draw yet: no episode has finished")
    return Log(config, steps, values)


def columns(name: str, config: Config) -> list[str]:
    """Where a metric is in a run's files: `episode/cost` of several costs is in several columns."""
    if name != COST:
        return [name]
    return [f"episode/{cost}" for cost in config.limits]
