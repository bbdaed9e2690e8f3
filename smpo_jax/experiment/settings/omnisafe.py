"""Configurations of OmniSafe's: recognised, and told in our words."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.config import Config
from smpo_jax.names import counterpart

GROUPS = {"train_cfgs", "algo_cfgs", "logger_cfgs", "model_cfgs", "lagrange_cfgs", "env_cfgs"}
MOST_KEYS = 100  # that are translated


def refuse(data: Mapping[Any, Any], where: str) -> None:
    """Raises a `UserError` with the translation of its keys if the mapping is OmniSafe's."""
    found = list(_leaves(data))
    if not any(GROUPS & set(path) for path in found):
        return
    run = {field.name for field in dataclasses.fields(Config)}
    own = _hyperparameters()
    at_the_top, below, unknown = [], [], []
    for path in found[:MOST_KEYS]:
        ours = path[-1] if path[-1] in run | own else counterpart(path[-1])
        words = f"{path[-1]} is {ours}" if ours != path[-1] else ours
        (at_the_top if ours in run else below if ours in own else unknown).append(words)
    parts = [f"{where}: this is a configuration of OmniSafe's. Here fields are flat"]
    for title, names in (("at the top", at_the_top), ("below `hyperparameters:`", below)):
        if names:
            parts.append(f"{title}: {', '.join(dict.fromkeys(names))}")
    if unknown:
        names = dict.fromkeys(path.partition(" ")[0] for path in unknown)
        parts.append(f"without a counterpart: {', '.join(names)}")
    raise UserError("; ".join(parts))


def _leaves(data: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are no mappings."""
    for key, value in data.items():
        below = (*path, str(key)[:40])
        if isinstance(value, Mapping):
            yield from _leaves(value, below)
        else:
            yield below


def _hyperparameters() -> set[str]:
    """Those of all methods."""
    kinds = {registry.settings_class(name) for name in registry.ALGORITHMS}
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}
