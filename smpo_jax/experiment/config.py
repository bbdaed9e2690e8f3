"""What a run is: one frozen record, filled from four layers.

Lowest to highest: the dataclass defaults, the preset of the algorithm, the YAML file, the command
line. A YAML file is read strictly: a key nobody knows, a key given twice or a value of the wrong
type is an error that names the file, the key and, for unknown keys, the nearest one that exists.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
import yaml

from smpo_envs.registry import TASKS, resolve
from smpo_jax.algorithms import registry
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import shifts
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.names import suggest

CONFIG_FILE = "config.json"
# Fields that say how a run is watched and kept; they have no influence on its numbers.
HOST_FIELDS = {"report_every", "checkpoint_every", "keep_checkpoints", "tensorboard", "wandb"}


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
        env: the task; `smpo-jax list` names them all.
        algo: the algorithm; `smpo-jax list` names them all.
        seed: seed of everything random in the run.
        steps: environment steps to train for, over all environments, rounded up to whole
            iterations.
        num_envs: environments stepped at the same time.
        devices: how many devices share the environments; on a CPU, cores. It pays where stepping
            them is most of the work.
        rollout_length: steps of each environment between two updates.
        cost_limit: the bound d on the expected cost of an episode.
        hazard_shift: how the hazards differ from the task's own: NAME=VALUE of hazards (their
            number), size (radius, m) and extent (half width of the square they are in, m), or
            NAME=VALUE@STEP,VALUE@STEP, linear in the environment step.
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        report_every: seconds between two reports; 0 reports every iteration.
        checkpoint_every: seconds between two checkpoints; 0 saves after every report.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        tensorboard: also write TensorBoard event files (extra: tensorboard).
        wandb: also log to Weights & Biases (extra: wandb).
        hyperparameters: the algorithm's own fields that differ from its defaults and preset.
    """

    env: str = "PointGoal1"
    algo: str = "smpo"
    seed: int = 0
    steps: int = 10_000_000
    num_envs: int = 128
    devices: int = 1
    rollout_length: int = 250
    cost_limit: float = 25.0
    hazard_shift: tuple[str, ...] = ()
    out: Path | None = None
    report_every: float = 2.0
    checkpoint_every: float = 30.0
    keep_checkpoints: int = 3
    tensorboard: bool = False
    wandb: bool = False
    hyperparameters: Annotated[dict[str, Any], tyro.conf.Suppress] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Refuses what cannot be run, naming the field."""
        object.__setattr__(self, "env", _task(self.env))
        check_algorithm(self.algo)
        for name in ("steps", "num_envs", "devices", "rollout_length", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("cost_limit", "report_every", "checkpoint_every"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: must not be negative, got {getattr(self, name)}")
        check_shift(self.env, shifts.schedule(self.hazard_shift))
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed: must be between 0 and 2**32 - 1, got {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return self.out or Path("runs") / f"{self.env}-{self.algo}-seed{self.seed}"

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps between two updates."""
        return self.num_envs * self.rollout_length

    @property
    def total_iterations(self) -> int:
        """Updates in the whole run."""
        return -(-self.steps // self.steps_per_iteration)

    @property
    def total_steps(self) -> int:
        """Environment steps in the whole run."""
        return self.total_iterations * self.steps_per_iteration


def _task(name: str) -> str:
    """The registered name of a task, also of its Safety-Gymnasium id."""
    try:
        return resolve(name)
    except ValueError as error:
        raise UserError(f"env: {one_line(error)}") from error


def check_shift(env: str, given: Mapping[str, Any]) -> None:
    """Raises a `UserError` if a task without hazards is to have others."""
    if given and not TASKS[env].has_hazards:
        able = ", ".join(name for name, task in TASKS.items() if task.has_hazards)
        raise UserError(f"hazard_shift: {env} has no hazards; the tasks that have some are {able}")


def check_algorithm(name: str) -> None:
    """Raises a `UserError` with the nearest name if there is no such algorithm."""
    if name not in ALGORITHMS:
        raise UserError(f"algo: there is no algorithm {name!r}{suggest(name, ALGORITHMS)}")


def hyperparameter_class(algo: str) -> type:
    """The dataclass of an algorithm's own fields."""
    check_algorithm(algo)
    return registry.settings_class(algo)


def hyperparameters(algo: str, given: Mapping[str, Any], *, where: str) -> Any:
    """The algorithm's hyperparameter record: its defaults, then what was given.

    Args:
        algo: a registered algorithm.
        given: field name -> value, of any spelling that YAML gives (`"3e-4"` is a float).
        where: what to blame in error messages.
    """
    kind = hyperparameter_class(algo)
    values = _coerce_fields(kind, given, where=where, noun=f"{algo} has no hyperparameter")
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}: {one_line(error)}") from error


def from_mapping(data: object, *, where: str, **overrides: Any) -> Config:
    """The config that a mapping of plain values describes, the hyperparameters resolved in full.

    Args:
        data: what a YAML or JSON file holds.
        where: the file, for error messages.
        overrides: fields that replace those of the file before anything is checked.
    """
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected `field: value` lines, found {type(data).__name__}")
    own = data.get("hyperparameters") or {}
    if not isinstance(own, Mapping):
        raise UserError(f"{where}: hyperparameters: expected a mapping, got {own!r}")
    plain = {name: value for name, value in data.items() if name != "hyperparameters"}
    algo = str(overrides.get("algo", plain.get("algo", Config.algo)))
    check_algorithm(algo)
    misplaced = set(plain) & {
        field.name for field in dataclasses.fields(hyperparameter_class(algo))
    }
    if misplaced:
        raise UserError(f"{where}: {min(misplaced)} belongs under `hyperparameters:`")
    values = _coerce_fields(Config, plain, where=where, noun="unknown key") | overrides
    record = hyperparameters(algo, own, where=where)
    try:
        return Config(**values, hyperparameters=dataclasses.asdict(record))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def load_yaml(path: Path, **overrides: Any) -> Config:
    """The config of a YAML file."""
    return from_mapping(read_yaml(path), where=str(path), **overrides)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds (strict; nothing in it is executed)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read config {path}: {_reason(error)}") from error
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from error


def save(config: Config, folder: Path) -> None:
    """Writes `config.json`, whole or not at all. The folder's own name is not part of it."""
    target = folder / CONFIG_FILE
    partial = folder / f".{CONFIG_FILE}.partial"
    partial.write_text(json.dumps(as_plain(config), indent=2) + "\n", encoding="utf-8")
    partial.replace(target)


def load(folder: Path) -> Config:
    """The config of the run in a folder."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no {CONFIG_FILE}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    return from_mapping(data, where=str(path), out=folder)


def as_plain(config: Config) -> dict[str, Any]:
    """The config in JSON's types, without `out`."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name != "out"}
    return json.loads(json.dumps(values))


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """What makes two plain configs different runs, in words; None if they are the same run."""
    theirs, ours = _flat(theirs), _flat(ours)
    for field in sorted({*ours, *theirs} - HOST_FIELDS):
        if ours.get(field) != theirs.get(field):
            return f"{field} is {theirs.get(field)} there and {ours.get(field)} here"
    return None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the run and those of its algorithm side by side.

    A field that is younger than a saved config has its default there.
    """
    defaults = as_plain(Config())
    return {**defaults, **config, **config["hyperparameters"], "hyperparameters": None}


def _coerce_fields(
    kind: type, given: Mapping[str, Any], *, where: str, noun: str
) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    values = {}
    for name, value in given.items():
        if name not in names:
            raise UserError(f"{where}: {noun} {name!r}{suggest(str(name), names)}")
        try:
            values[name] = coerce(value, hints[name])
        except ValueError as error:
            raise UserError(f"{where}: {name}: {error}") from error
    return values


def coerce(value: Any, kind: Any) -> Any:
    """The value as a field of this type holds it.

    YAML reads `3e-4` as text and `3` as an integer, and both are good floats; it reads `1e7` as
    text, and that is a good integer. Nothing else is bent: `true` is no number, `1.5` no integer.

    Raises:
        ValueError: the value is no such thing.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for part in parts:
            try:
                return coerce(value, part)
            except ValueError:
                continue
        raise ValueError(f"expected {_describe(kind)}, got {value!r}")
    if origin is Literal and value in parts:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(each) == len(value):
            return tuple(coerce(item, part) for item, part in zip(value, each, strict=True))
    if kind is types.NoneType and value is None:
        return None
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if (
        kind in (int, float)
        and not isinstance(value, bool)
        and isinstance(value, str | int | float)
    ):
        return integer(value) if kind is int else number(value)
    raise ValueError(f"expected {_describe(kind)}, got {value!r}")


def integer(text: str | float) -> int:
    """An integer, also from its scientific spelling: `"1e7"` is 10000000."""
    try:
        value = Decimal(str(text))
        if value == value.to_integral_value():
            return int(value)
    except (InvalidOperation, OverflowError, ValueError):
        pass
    raise ValueError(f"expected an integer, got {text!r}")


def number(text: str | float) -> float:
    """A float that is not NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"expected a number, got {text!r}")
    return value


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each {_describe(get_args(kind)[0])}"
    plain = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "text",
        types.NoneType: "null",
        Path: "a path",
    }
    return plain.get(kind, str(kind))


def _reason(error: Exception) -> str:
    return one_line(error.strerror if isinstance(error, OSError) and error.strerror else error)


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
