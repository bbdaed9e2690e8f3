"""Which cells are trained by one program: how many fit, and how many are worth it."""

import dataclasses
import json
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax

from smpo_jax.experiment import sizes
from smpo_jax.experiment.problem import augmentation, build
from smpo_jax.experiment.run import checkpoint
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.suite import suite_folder
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.experiment.suite.suite_folder import Suite

T = TypeVar("T")

# Programs need this many times the memory of a run's state and rollout, at most; measured on a CPU:
# 3 with PPO, 7 with SMPO.
OVERHEAD = 8
SHARE = 0.5  # of the free memory that a program may take


def assign_batches(
    before: Suite | None,
    cells: Sequence[Cell],
    folder: Path,
    batch: int | None,
    default: Callable[[Config], int] | None = None,
) -> Suite:
    """The suite with every cell in a batch, those of `before` as far as they can stay.

    Args:
        before: the suite that is in the folder.
        cells: what it is to be now.
        folder: its folder.
        batch: most cells in a program; None for what is the default.
        default: how many that is for a config; `default_batch_size` unless given.
    """
    by_name = {cell.name: cell for cell in cells}

    def stays(names: Sequence[str]) -> bool:
        members = [by_name[name] for name in names if name in by_name]
        if len(members) < len(names) or len({program_key(cell.config) for cell in members}) > 1:
            return False
        if any(checkpoint.newest(folder / name) for name in names):
            return True  # the last digits of what is to come depend on the size of the batch
        failed = any(suite_folder.status(folder, cell) == "failed" for cell in members)
        return batch is None and not failed

    kept = [names for names in (before.batches if before else []) if stays(names)]
    placed = {name for names in kept for name in names}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.name not in placed:
            # One that has begun in a batch that is no longer whole goes on alone.
            has_begun = bool(checkpoint.newest(folder / cell.name))
            groups.setdefault(cell.name if has_begun else program_key(cell.config), []).append(cell)
    new = [
        tuple(cell.name for cell in part)
        for group in groups.values()
        for part in split_evenly(
            group, (default or default_batch_size)(group[0].config) if batch is None else batch
        )
    ]
    order = {cell.name: i for i, cell in enumerate(cells)}
    return Suite(list(cells), sorted([*kept, *new], key=lambda names: order[names[0]]))


def program_key(config: Config) -> str:
    """A text that is the same for configs that one program can serve.

    They differ in nothing but the seed, the cost limit, float hyperparameters and how the run is
    watched. Those whose environments show the limit have the same one, and those outside JAX have
    a program each.
    """
    free = {"seed", "steps", *vmappable(config)}
    if not augmentation(config, training=True).limits:
        free.add("cost_limit")
    free = set[str]() if config.source.is_outside else free
    fixed = {name: value for name, value in config_file.flat(config).items() if name not in free}
    return json.dumps([fixed, config.total_iterations], sort_keys=True)


def split_evenly(cells: Sequence[T], size: int) -> list[Sequence[T]]:
    """Parts of at most that size, as few and as even as possible: sizes are compiled for."""
    number = -(-len(cells) // max(1, size))
    even = -(-len(cells) // number)
    return [cells[i : i + even] for i in range(0, len(cells), even)]


def default_batch_size(config: Config) -> int:
    """How many runs of this kind one program takes.

    On a CPU it is 1: there, a batch is no faster than its runs one after another, and a cell of a
    batch of one has the bits of `smpo-jax train`. Elsewhere it is what the memory has room for, as
    far as the device tells.
    """
    if config.source.is_outside:
        return 1
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    if device.platform == "cpu" or "bytes_limit" not in stats:
        return 1
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return max(1, int(SHARE * free / run_memory(config)))


def one_each(config: Config) -> int:
    """A run in a program, where nothing is known of the machine that trains it."""
    del config
    return 1


def run_memory(config: Config) -> int:
    """Bytes that one run takes in a program, from the shapes of its state and rollout."""
    return int(OVERHEAD * sizes.run_bytes(config, build(config)).total(config))


def vmappable(config: Config) -> set[str]:
    """Hyperparameters that may differ within a program."""
    kind = type(config.hyperparameters)
    hints = typing.get_type_hints(kind)
    return {field.name for field in dataclasses.fields(kind) if hints[field.name] is float}
