"""The engines that `--executor` names, and which options each takes."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.options import SuiteOptions
from smpo_jax.experiment.suite.jobs import Engine
from smpo_jax.experiment.suite.processes import Processes, ThisProcess
from smpo_jax.experiment.suite.ray_jobs import RayEngine
from smpo_jax.experiment.suite.slurm_jobs import SlurmEngine
from smpo_jax.experiment.suite.submitit_jobs import LocalEngine

MOST_JOBS = 1000  # submitted at a time unless --array says; SLURM's own limit of an array is 1001


class _Kind(NamedTuple):
    make: Callable[[SuiteOptions], Engine]
    takes: tuple[str, ...]  # of the options that not all of them take
    package: str = ""  # what it needs besides ours
    extra: str = ""


def _processes(options: SuiteOptions) -> Engine:
    return ThisProcess() if options.processes == 1 else Processes(options.processes)


def _local(options: SuiteOptions) -> Engine:
    return LocalEngine(room=options.array or os.cpu_count() or 1)


def _slurm(options: SuiteOptions) -> Engine:
    return SlurmEngine(MOST_JOBS, options.array or MOST_JOBS, parsed(options.resources))


def _ray(options: SuiteOptions) -> Engine:
    return RayEngine(options.array or MOST_JOBS, parsed(options.resources))


KINDS: dict[str, _Kind] = {
    "processes": _Kind(_processes, ("processes",)),
    "local": _Kind(_local, ("array",), "submitit", "slurm"),
    "slurm": _Kind(_slurm, ("array", "resources"), "submitit", "slurm"),
    "ray": _Kind(_ray, ("array", "resources"), "ray", "ray"),
}


def make_engine(options: SuiteOptions) -> Engine:
    """The engine that the options name; it is not reached for yet.

    Raises:
        UserError: its package is missing, or an option is not one of its own.
    """
    kind = KINDS[options.executor]
    defaults = {field.name: field.default for field in dataclasses.fields(SuiteOptions)}
    for name in {name for each in KINDS.values() for name in each.takes} - set(kind.takes):
        if getattr(options, name) != defaults[name]:
            takers = [other for other, each in KINDS.items() if name in each.takes]
            raise UserError(
                f"--{name} is an option of --executor {_listed(takers)}, not of {options.executor}"
            )
    if options.array is not None:
        require_count("array", options.array)
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise UserError(
            f"--executor {options.executor} needs the package {kind.package}: pip install "
            f'{kind.package}, or pip install -e ".[{kind.extra}]" in a clone'
        )
    return kind.make(options)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def parsed(resources: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as names and numbers, where they are numbers, or texts.

    Raises:
        UserError: one is not of that form.
    """
    found: dict[str, Any] = {}
    for word in resources:
        name, equals, value = word.partition("=")
        if not (name.isidentifier() and equals and value):
            raise UserError(f"resources: expected NAME=VALUE, got {word!r:.80}")
        found[name] = _value(value)
    return found


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
