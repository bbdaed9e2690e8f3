"""A `Config` from YAML, from `config.json` and from plain mappings, and back.

Files are read strictly: a key nobody knows, a key given twice or a value of the wrong type is an
error that names the file, the key and, for unknown keys, the nearest one that exists. What a file
leaves out has its default, the algorithm's own for its hyperparameters.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from smpo_envs.naming import OBJECT
from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError, one_line, reason, tell
from smpo_jax.experiment.settings import env_options, omnisafe, strict_yaml
from smpo_jax.experiment.settings.coercion import coerce, coerce_fields
from smpo_jax.experiment.settings.config import (
    HOST_FIELDS,
    Config,
    check_algorithm,
)
from smpo_jax.experiment.settings.shifts import Schedule

CONFIG_FILE = "config.json"


def from_mapping(data: object, *, where: str, **overrides: Any) -> Config:
    """The config that a mapping of plain values describes.

    Args:
        data: what a YAML or JSON file holds; the hyperparameters are a mapping in it.
        where: the file, for error messages.
        overrides: fields that replace those of the file before anything is checked.

    Raises:
        UserError: a key or a value that is not understood, or that nothing can be run with.
    """
    fields = _mapping({} if data is None else data, where)
    omnisafe.refuse(fields, where)
    own = fields.pop("hyperparameters", None) or {}
    if not isinstance(own, Mapping):
        raise UserError(f"{where}: hyperparameters: expected a mapping, got {own!r}")
    algo = _algorithm(str(overrides.get("algo", fields.get("algo", Config.algo))), own)
    record = _hyperparameters(algo, fields, own, where)
    shift = fields.pop("hazard_shift", ())
    options = fields.pop("env_options", None)
    values = coerce_fields(Config, fields, where=where, noun="unknown key") | overrides
    values |= {"algo": algo, "hyperparameters": record}
    try:
        values["env_options"] = env_options.from_mapping(options)
        return Config(**values, hazard_shift=_schedule(shift))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def from_saved(data: object, *, where: str, **overrides: Any) -> Config:
    """The config of a run as it was saved; see `from_mapping`.

    Older versions took a `checkpoint` without `init_from`, and made nothing of it.
    """
    fields = _mapping(data, where)
    if fields.get("init_from") is None:
        fields.pop("checkpoint", None)
    return from_mapping(fields, where=where, **overrides)


def as_mapping(config: Config) -> dict[str, Any]:
    """The config in JSON's types, without `out`; what `from_saved` reads."""
    plain = dataclasses.replace(config, env_object=None)  # which would be copied, leaf by leaf
    values: dict[str, Any] = dataclasses.asdict(plain)
    unsaid = [x for x in ("networks", "cost_names", "observations") if not values[x]]
    for name in ("out", "env_object", *unsaid):
        del values[name]
    values["env_options"] = dict(config.env_options)
    values["hazard_shift"] = config.hazard_shift.texts
    values["init_from"] = None if config.init_from is None else str(config.init_from)
    return json.loads(json.dumps(values))


def as_text(config: Config) -> str:
    """The config as `config.json` has it."""
    return json.dumps(as_mapping(config), indent=2) + "\n"


def load_yaml(path: Path, **overrides: Any) -> Config:
    """The config of a YAML file; see `from_mapping`."""
    return from_mapping(strict_yaml.read(path), where=str(path), **overrides)


def save(config: Config, folder: Path) -> None:
    """Writes `config.json`, whole or not at all. The folder's own name is not part of it."""
    target = folder / CONFIG_FILE
    partial = folder / f".{CONFIG_FILE}.partial"
    partial.write_text(as_text(config), encoding="utf-8")
    partial.replace(target)


def load(folder: Path, env: Any = None) -> Config:
    """The config of the run in a folder.

    Args:
        folder: of the run.
        env: the environment, where the run was given it as an object.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no {CONFIG_FILE}")
    return from_saved(read_json(path), where=str(path), out=folder, env_object=env)


def read_json(path: Path) -> Any:
    """What is in a file of JSON.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except RecursionError as error:
        raise UserError(f"cannot read {path}: it is nested too deeply") from error


def with_object(env: Any) -> dict[str, Any]:
    """The fields of a run on an environment that is given as an object."""
    return {"env": f"{OBJECT}:{type(env).__name__}", "env_object": env}


def flat(config: Config) -> dict[str, Any]:
    """What has an influence on the numbers: fields of the run and of its algorithm, as JSON."""
    plain = as_mapping(config)
    own = plain.pop("hyperparameters")
    return {name: value for name, value in {**plain, **own}.items() if name not in HOST_FIELDS}


def difference(theirs: Config, ours: Config) -> str | None:
    """What makes two configs different runs, in words; None if they are the same run."""
    there, here = flat(theirs), flat(ours)
    for field in sorted({*here, *there}):
        if here.get(field) != there.get(field):
            return f"{field} is {there.get(field)} there and {here.get(field)} here"
    return None


def _mapping(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected `field: value` lines, found {type(data).__name__}")
    return dict(data)


def _algorithm(name: str, given: Collection[str]) -> str:
    """What an algorithm is called today, from any name that it has had."""
    now, notice = registry.current(name, given)
    if notice:
        tell(notice)
    check_algorithm(now)
    return now


def _hyperparameters(
    algo: str, fields: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> Any:
    """The algorithm's record: its defaults, and what was given."""
    kind = registry.settings_class(algo)
    misplaced = set(fields) & {field.name for field in dataclasses.fields(kind)}
    if misplaced:
        raise UserError(f"{where}: {min(misplaced)} belongs under `hyperparameters:`")
    values = coerce_fields(kind, given, where=where, noun=f"{algo} has no hyperparameter")
    try:
        return registry.hyperparameters(algo, **values)
    except ValueError as error:
        raise UserError(f"{where}: {one_line(error)}") from error


def _schedule(plain: Any) -> Schedule:
    try:
        return Schedule(coerce(plain, tuple[str, ...]))
    except ValueError as error:
        raise UserError(f"hazard_shift: {error}") from error
