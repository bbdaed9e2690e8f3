"""From a suite's YAML file to its cells: tasks x variants x seeds, each a complete config.

    tasks: [PointGoal1]               # or a mapping of task -> fields of the run
    seeds: 3                          # 0, 1, 2; or a list of seeds
    steps: 1e6                        # fields of the run, for all cells
    variants:                         # or a list of algorithms
      ppo_lag:                        # a name; the algorithm of that name unless `algo` says else
      ours:
        algo: smpo
        hyperparameters: {threshold_feedback: 0.2}
        grid: {weight_base: [2, 3], cost_limit: [10, 25]}

What comes later wins: the algorithm's defaults, the suite, the task, the variant, its grid.
It is read as strictly as a run's own file.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file, strict_yaml
from smpo_jax.experiment.settings.coercion import coerce
from smpo_jax.experiment.settings.config import Config
from smpo_jax.names import suggest

RUN_FIELDS = {field.name for field in dataclasses.fields(Config)}
MOST_CELLS = 10_000
NOTHING: Mapping[str, Any] = MappingProxyType({})
OWN_KEYS = ("tasks", "seeds", "variants")
# What a suite says by other means.
ELSEWHERE = {
    "env": "`tasks:`",
    "seed": "`seeds:`",
    "out": "--out",
    "algo": "`variants:`",
    "hyperparameters": "`variants:`, one by one: algorithms differ in which they have",
}


class Cell(NamedTuple):
    """One run of a suite."""

    variant: str
    config: Config

    @property
    def name(self) -> str:
        """Where it lives, below the suite's folder."""
        return f"{self.config.env_label}/{self.variant}/seed{self.config.seed}"


def load(path: Path, overrides: Mapping[str, Any] = NOTHING) -> list[Cell]:
    """The cells of a suite's file, task by task, variant by variant, seed by seed.

    Args:
        path: the file.
        overrides: `seeds` and fields of the run that replace the file's own, wherever it has them.

    Raises:
        UserError: the file has something that is not understood, or describes a cell twice.
    """
    return expand(strict_yaml.read(path), where=str(path), overrides=overrides)


def expand(data: object, *, where: str, overrides: Mapping[str, Any] = NOTHING) -> list[Cell]:
    """The cells that a mapping of plain values describes; `where` is blamed in error messages."""
    run_overrides = {name: value for name, value in overrides.items() if name != "seeds"}
    top = {**_mapping(data, where), **overrides}
    shared = {key: value for key, value in top.items() if key not in OWN_KEYS}
    _refuse_elsewhere(shared, where)
    for key in shared.keys() - RUN_FIELDS:
        raise UserError(
            f"{where}: unknown key {key!r}{suggest(str(key), [*OWN_KEYS, *RUN_FIELDS])}"
        )
    tasks = _tasks(top.get("tasks"), where)
    variants = list(_variants(top.get("variants"), where))
    for name in run_overrides:
        if any(f"{name}=" in variant.name for variant in variants):
            raise UserError(f"{where}: {name} is varied by a grid and cannot be overridden")
    seeds = _seeds(top.get("seeds", [0]), where)
    _refuse_too_many(len(tasks) * len(variants) * len(seeds), where)
    cells = [
        cell
        for task, fields in tasks
        for variant in variants
        for cell in _cells(
            variant, {**shared, **fields, **variant.fields, **run_overrides}, task, seeds
        )
    ]
    _refuse_doubles([cell.name for cell in cells], where)
    return cells


class _Variant(NamedTuple):
    name: str
    fields: dict[str, Any]  # of the run, `hyperparameters` among them
    where: str


def _cells(
    variant: _Variant, fields: dict[str, Any], task: str, seeds: Sequence[int]
) -> Iterator[Cell]:
    """Those of a task and a variant, read once for all seeds."""
    plain = {**fields, "env": task, "seed": seeds[0]}
    first = config_file.from_mapping(plain, where=variant.where)
    for seed in seeds:
        try:
            yield Cell(variant.name, dataclasses.replace(first, seed=seed))
        except UserError as error:
            raise UserError(f"{variant.where}: {error}") from error


def _refuse_too_many(cells: int, where: str) -> None:
    if cells > MOST_CELLS:
        raise UserError(f"{where}: a suite has at most {MOST_CELLS:,} cells, this one {cells:,}")


def _tasks(data: object, where: str) -> list[tuple[str, dict[str, Any]]]:
    where = f"{where}: tasks"
    if isinstance(data, Mapping) and data:
        tasks = [(str(task), _mapping(fields, f"{where}: {task}")) for task, fields in data.items()]
    else:
        tasks = [(str(task), {}) for task in _list(data, where)]
    for task, fields in tasks:
        _refuse_elsewhere(fields, f"{where}: {task}")
    return tasks


def _seeds(data: object, where: str) -> list[int]:
    where = f"{where}: seeds"
    given = data if isinstance(data, list) else None
    try:
        if given is None:
            number = coerce(data, int)
            _refuse_too_many(number, where)
            return list(range(number)) or _list([], where)
        return [coerce(seed, int) for seed in _list(given, where)]
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _variants(data: object, where: str) -> Iterator[_Variant]:
    where = f"{where}: variants"
    if isinstance(data, Mapping) and data:
        given = list(data.items())
    else:
        given = [(name, None) for name in _list(data, where)]
    for name, fields in given:
        yield from _crossed(str(name), _mapping(fields, f"{where}: {name}"), f"{where}: {name}")


def _crossed(name: str, fields: dict[str, Any], where: str) -> Iterator[_Variant]:
    """A variant once for every point of its grid."""
    if not re.fullmatch(r"[\w.+=,-]*\w[\w.+=,-]*", name):
        raise UserError(
            f"{where}: a variant's name is part of a folder's: letters, digits and _ . + - = , only"
        )
    grid = _mapping(fields.pop("grid", None), f"{where}: grid")
    fields = {"algo": name, **fields}
    _refuse_elsewhere(fields, where, but=("algo", "hyperparameters"))
    _refuse_elsewhere(grid, f"{where}: grid", but=())
    axes = [
        [(key, value) for value in _list(values, f"{where}: grid: {key}")]
        for key, values in grid.items()
    ]
    _refuse_too_many(math.prod(map(len, axes)), where)
    for point in itertools.product(*axes):
        own = dict(_mapping(fields.get("hyperparameters"), f"{where}: hyperparameters"))
        run = dict(fields)
        for key, value in point:
            (run if key in RUN_FIELDS else own)[key] = value
        labels = [f"{key}={_label(value)}" for key, value in point]
        yield _Variant(",".join([name, *labels]), {**run, "hyperparameters": own}, where)


def _label(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_label, value))
    return re.sub(r"[^\w.+-]", "", f"{value:g}" if isinstance(value, float) else str(value))


def _mapping(data: object, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected `key: value` lines, got {data!r}")
    return dict(data)


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list) or not data:
        raise UserError(f"{where}: expected a list of one or more, got {data!r}")
    return data


def _refuse_elsewhere(fields: Mapping[str, Any], where: str, but: Sequence[str] = ()) -> None:
    for key in fields:
        if key in ELSEWHERE and key not in but:
            raise UserError(f"{where}: {key} is given by {ELSEWHERE[key]}")


def _refuse_doubles(names: Sequence[str], where: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: the cell {name} is there twice")
        seen.add(name)
