"""Which cells are trained by one program: how many fit, and how many are worth it."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path

import jax

from smpo_jax.experiment import checkpoint
from smpo_jax.experiment import config as config_file
from smpo_jax.experiment.config import HOST_FIELDS, Config
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.suite.folder import Suite
from smpo_jax.experiment.suite.grid import Cell
from smpo_jax.training import loop
from smpo_jax.training.rollout import collect

# Programs need this many times the memory of a run's state and rollout, at most; measured on a CPU:
# 3 with PPO, 7 with SMPO.
OVERHEAD = 8
SHARE = 0.5  # of the free memory that a program may take


def plan(before: Suite | None, cells: Sequence[Cell], folder: Path, batch: int | None) -> Suite:
    """The suite with every cell in a batch; one that has got anywhere stays in the one it is in.

    Args:
        before: the suite that is in the folder.
        cells: what it is to be now.
        folder: its folder.
        batch: most cells in a program; None for what `default_batch` says.
    """
    names = {cell.name for cell in cells}
    begun = {cell.name for cell in cells if checkpoint.newest(folder / cell.name)}
    kept = [
        tuple(names_)
        for names_ in (before.batches if before else [])
        if begun & set(names_) and names.issuperset(names_)
    ]
    placed = {name for names_ in kept for name in names_}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.name not in placed:
            # One whose batch is no longer whole goes on alone.
            key = cell.name if cell.name in begun else shape(cell.config)
            groups.setdefault(key, []).append(cell)
    new = [
        tuple(cell.name for cell in part)
        for group in groups.values()
        for part in split(group, default_batch(group[0].config) if batch is None else batch)
    ]
    order = {cell.name: i for i, cell in enumerate(cells)}
    return Suite(list(cells), sorted([*kept, *new], key=lambda names_: order[names_[0]]))


def shape(config: Config) -> str:
    """A text that is the same for configs that one program can serve.

    They differ in nothing but the seed, the cost limit, float hyperparameters and how the run is
    watched.
    """
    plain = config_file.as_plain(config)
    floats = can_vary(config)
    own = {k: v for k, v in plain.pop("hyperparameters").items() if k not in floats}
    free = {"seed", "cost_limit", "steps", *HOST_FIELDS}
    run = {k: v for k, v in plain.items() if k not in free}
    return json.dumps([run, own, config.total_iterations], sort_keys=True)


def split(cells: Sequence[Cell], size: int) -> list[Sequence[Cell]]:
    """Parts of at most that size, as few and as even as possible: sizes are compiled for."""
    number = -(-len(cells) // max(1, size))
    even = -(-len(cells) // number)
    return [cells[i : i + even] for i in range(0, len(cells), even)]


def default_batch(config: Config) -> int:
    """How many runs of this kind one program takes.

    On a CPU it is 1: there, a batch is no faster than its runs one after another, and a cell of a
    batch of one has the bits of `smpo-jax train`. Elsewhere it is what the memory has room for, as
    far as the device tells.
    """
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    if device.platform == "cpu" or "bytes_limit" not in stats:
        return 1
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return max(1, int(SHARE * free / run_memory(config)))


def run_memory(config: Config) -> int:
    """Bytes that one run takes in a program, from the shapes of its state and rollout."""
    problem = build(config)

    def first(key):
        state = loop.init(problem.algorithm, problem.env, key)
        policy = problem.algorithm.policy(state.learner)
        return state, collect(policy, problem.env, state.env_state, key, config.rollout_length)[1]

    leaves = jax.tree.leaves(jax.eval_shape(first, jax.random.key(0)))
    return OVERHEAD * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def can_vary(config: Config) -> set[str]:
    """Hyperparameters that may differ within a program."""
    kind = config_file.hyperparameter_class(config.algo)
    hints = typing.get_type_hints(kind)
    return {field.name for field in dataclasses.fields(kind) if hints[field.name] is float}
