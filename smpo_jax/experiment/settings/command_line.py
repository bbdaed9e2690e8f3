"""The command line, parsed by tyro, with every mistake told in one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import integer, path
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.env_options import EnvOption, from_word
from smpo_jax.experiment.settings.options import TrainOptions
from smpo_jax.experiment.settings.shifts import Schedule, Sweep
from smpo_jax.names import suggest

T = TypeVar("T")


class TrainRequest(NamedTuple):
    """What `train` was asked to do."""

    config: Config
    resume: Path | None
    overwrite: bool
    steps: int | None = None  # in all, of a run that is resumed


def parse_train(arguments: Sequence[str]) -> TrainRequest:
    """The run that the command line, the YAML file it names and the defaults describe.

    The algorithm decides which hyperparameters there are, and the file may name the algorithm, so
    the arguments are read twice: first for these two, then for everything.
    """
    first, others = _first_pass(arguments)
    if first.options.resume is not None and not _asks_for_help(arguments):
        if others or first.algo or first.options.config or first.options.overwrite:
            raise UserError(
                "--resume goes on with the run as it is saved; the only other option is --steps"
            )
        return TrainRequest(Config(), first.options.resume, overwrite=False, steps=first.steps)
    overrides = {"algo": first.algo} if first.algo else {}
    if first.options.config is None:
        base = config_file.from_mapping({}, where="defaults", **overrides)
    else:
        base = config_file.load_yaml(first.options.config, **overrides)
    shape = dataclasses.make_dataclass(
        "Train", [("source", TrainOptions), ("run", Config)], frozen=True
    )
    shape.__doc__ = f"Train a policy. The last group are the hyperparameters of {base.algo}."
    chosen = parse(shape, arguments, command="train", default=shape(first.options, base))
    return TrainRequest(chosen.run, None, chosen.source.overwrite)


def parse(kind: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """The options of a command.

    Raises:
        UserError: an unknown option, with the nearest one that exists, or a bad value.
        SystemExit: 0, after printing the help that was asked for.
    """
    given = {} if default is None else {"default": default}
    parsed, unknown = _run_tyro(kind, arguments, prog=f"smpo-jax {command}", **given)
    _refuse(unknown, _option_names(kind, default))
    return parsed


@dataclasses.dataclass(frozen=True)
class _FirstPass:
    options: TrainOptions
    algo: str | None = None
    steps: int | None = None


def _first_pass(arguments: Sequence[str]) -> tuple[_FirstPass, list[str]]:
    plain = [each for each in arguments if each not in ("-h", "--help")]
    return _run_tyro(_FirstPass, plain, prog="smpo-jax train")


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _run_tyro(kind: Any, arguments: Sequence[str], **options: Any) -> tuple[Any, list[str]]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _notations:
            return tyro.cli(
                kind,
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes,),
                return_unknown_args=True,
                **options,
            )
    except SystemExit as exit_:
        if exit_.code:
            raise UserError(_first_message(errors.getvalue())) from None
        raise


def _first_message(text: str) -> str:
    """What tyro says below the title of its box, up to the first rule, in one line."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        words = line.strip("│| ")
        if words.startswith("╭") or not words.strip("─-╰╯ "):
            blocks.append([])
        else:
            blocks[-1].append(words)
    message = one_line(" ".join(blocks[1]) if len(blocks) > 1 else text)
    # Of a hyperparameter record that refuses its values tyro names the group, which says nothing.
    return re.sub(r"^Error parsing (?!-)\S+: ", "", message)


def _refuse(unknown: Sequence[str], known: Sequence[str]) -> None:
    for argument in unknown:
        if argument.startswith("-"):
            name = argument.split("=", 1)[0].replace("_", "-")
            raise UserError(f"unknown option {name}{suggest(name, known)}")
    if unknown:
        raise UserError(f"unexpected argument {unknown[0]!r}")


def _option_names(kind: Any, default: Any) -> list[str]:
    names = []
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name, None)
        # Of which type the hyperparameters are, only the record says.
        inner = type(value) if field.type is Any else field.type
        if dataclasses.is_dataclass(inner) and inner not in (Schedule, Sweep):
            names += _option_names(inner, value)
        else:
            names.append("--" + field.name.replace("_", "-"))
    return names


# Types that are written in a way of their own.
_notations = tyro.constructors.ConstructorRegistry()


@_notations.primitive_rule
def _integer(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    """Whole numbers may be written 1e7."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: integer(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@_notations.primitive_rule
def _path(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """`~` is the user's home, also where a shell leaves it alone, as in --out=~/run."""
    if info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


@_notations.primitive_rule
def _shift(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Schedule | Sweep] | None:
    """Shifts are some words, one for each field."""
    kind = info.type
    if kind is not Schedule and kind is not Sweep:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[STR [STR ...]]",
        instance_from_str=lambda words: kind(tuple(words)),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: list(value.texts),
    )


@_notations.primitive_rule
def _env_option(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[EnvOption] | None:
    """An option of an environment is one word."""
    if info.type is not EnvOption:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME=VALUE",
        instance_from_str=lambda words: from_word(words[0]),
        is_instance=lambda value: isinstance(value, EnvOption),
        str_from_instance=lambda value: [str(value)],
    )
