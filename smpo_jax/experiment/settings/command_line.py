"""The command line, parsed by tyro, with every mistake told in one line."""

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import tyro

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.settings import config_file, presets
from smpo_jax.experiment.settings.coercion import coerce, integer, number, path
from smpo_jax.experiment.settings.config import Config, CostLimit, WhichCheckpoint, in_full
from smpo_jax.experiment.settings.env_options import EnvOption, from_word
from smpo_jax.experiment.settings.options import Cluster, TrainOptions
from smpo_jax.experiment.settings.shifts import Schedule, Sweep
from smpo_jax.names import suggest

T = TypeVar("T")

TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")


class TrainRequest(NamedTuple):
    """What `train` was asked to do."""

    config: Config
    resume: Path | None
    overwrite: bool
    steps: int | None = None  # in all, of a run that is resumed
    cluster: Cluster | None = None  # the processes to train with


def parse_train(arguments: Sequence[str]) -> TrainRequest:
    """The run that the command line, the YAML file it names and the defaults describe.

    The algorithm decides which hyperparameters there are, and the file may name the algorithm, so
    the arguments are read twice: first for these two, then for everything.
    """
    first, others = _first_pass(arguments)
    if first.options.resume is not None and not _asks_for_help(arguments):
        if others or first.algo or first.options.config or first.options.overwrite:
            raise UserError(
                "--resume goes on with the run as it is saved; the only other option is --steps, "
                "besides --distributed and those that belong to it"
            )
        steps = None if first.steps == _UNSAID else first.steps
        resume, cluster = first.options.resume, first.options.cluster
        return TrainRequest(Config(), resume, overwrite=False, steps=steps, cluster=cluster)
    overrides = {"algo": first.algo} if first.algo else {}
    if first.options.config is None:
        base = config_file.from_mapping({}, where="defaults", **overrides)
    else:
        file = presets.find(first.options.config, presets.runs())
        base = config_file.load_yaml(file, **overrides)
    shape = dataclasses.make_dataclass(
        "Train", [("source", TrainOptions), ("run", Config)], frozen=True
    )
    shape.__doc__ = f"Train a policy. The last group are the hyperparameters of {base.algo}."
    chosen = parse(shape, arguments, command="train", default=shape(first.options, base))
    source = chosen.source
    return TrainRequest(chosen.run, None, source.overwrite, cluster=source.cluster)


def parse(kind: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """The options of a command.

    Raises:
        UserError: an unknown option, with the nearest one that exists, or a bad value.
        SystemExit: 0, after printing the help that was asked for.
    """
    given = {} if default is None else {"default": default}
    parsed, unknown = _run_tyro(kind, arguments, prog=f"smpo-jax {command}", **given)
    _refuse(unknown, arguments, _option_names(kind, default))
    return parsed


_UNSAID = -(2**62)


@dataclasses.dataclass(frozen=True)
class _FirstPass:
    options: TrainOptions
    algo: str | None = None
    steps: int = _UNSAID  # not `None`: a value that is no number is told as that of a number


def _first_pass(arguments: Sequence[str]) -> tuple[_FirstPass, list[str]]:
    plain = [each for each in arguments if each not in ("-h", "--help")]
    return _run_tyro(_FirstPass, plain, prog="smpo-jax train")


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _run_tyro(kind: Any, arguments: Sequence[str], **options: Any) -> tuple[Any, list[str]]:
    swallowed = io.StringIO()
    try:
        with contextlib.redirect_stderr(swallowed), _told_to(_raise_message), NOTATIONS:
            return tyro.cli(
                kind,
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes,),
                return_unknown_args=True,
                **options,
            )
    except SystemExit as exit_:
        if exit_.code:  # of a kind that `_raise_message` does not know
            raise UserError(f"cannot read the arguments; see {options['prog']} --help") from None
        raise


def _told_to(hook: Callable[[Any], None]) -> contextlib.AbstractContextManager[None]:
    """Has tyro tell the hook what it refuses, as a record, before it draws its box."""
    try:
        from tyro import _errors  # not public, and so not in every version, but the only way
    except ImportError:
        return contextlib.nullcontext()
    return _errors.on_parse_error(hook)


def _raise_message(event: Any) -> None:
    """A `UserError` for what tyro refuses; of an unknown kind, nothing."""
    match type(event).__name__:
        case "MissingArgs":
            names = [each.arg.display_name() for each in event.missing_arguments]
            raise UserError(f"{' and '.join(names)} must be given; see {event.prog} --help")
        case "BadValue":
            raise UserError(f"{event.argument.display_name()} needs a value")
        case "InvalidChoice":
            name, choices = event.argument.display_name(), ", ".join(event.choices)
            raise UserError(f"{name}: expected one of {choices}, got {event.value!r:.80}")
        case "InstantiationFailure" if event.argument is not None:
            raise UserError(f"{event.argument.display_name()}: {one_line(event.message)}")
        case "InstantiationFailure":  # of a record that refuses its values
            raise UserError(one_line(event.message))


def _refuse(unknown: Sequence[str], arguments: Sequence[str], known: Sequence[str]) -> None:
    for argument in unknown:
        if argument.startswith("-"):
            name = argument.split("=", 1)[0].replace("_", "-")
            raise UserError(f"unknown option {name:.80}{suggest(name, known)}")
    for argument in unknown:
        before = _option_before(argument, arguments)
        name = before.removeprefix("--").removeprefix("no-")
        if argument.lower() in TRUTHS and f"--{name}" in known:
            raise UserError(
                f"{before} takes no value, got {argument!r}: write --{name} or --no-{name}"
            )
        raise UserError(f"unexpected argument {argument!r:.80}")


def _option_before(argument: str, arguments: Sequence[str]) -> str:
    """The option that a word stands behind, also in --option=word; empty if there is none."""
    for before, word in itertools.pairwise(["", *arguments]):
        option, _, joined = word.partition("=")
        if word == argument or joined == argument:
            return (before if word == argument else option).replace("_", "-")
    return ""


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


# How values of our types are written.
NOTATIONS = tyro.constructors.ConstructorRegistry()


# As files are read: type -> what it is called in the help, and how it is read.
_WORDS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("INT", integer),  # may be written 1e7
    float: ("FLOAT", number),
    Path: ("PATH", path),
    str: ("STR", str),
}


@NOTATIONS.primitive_rule
def _word(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Values of a single word; of those that may be left out, `None` says so."""
    is_optional = get_origin(info.type) in (Union, UnionType) and NoneType in get_args(info.type)
    kind = get_args(info.type)[0] if is_optional else info.type
    if kind not in _WORDS or (is_optional and len(get_args(info.type)) > 2):
        return None
    metavar, read = _WORDS[kind]

    def from_words(words: list[str]) -> Any:
        return None if is_optional and words == ["None"] else read(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=from_words,
        is_instance=lambda value: isinstance(value, info.type) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@NOTATIONS.primitive_rule
def _optional_choice(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A choice that may be left out: `None` is none that one can write."""
    kinds = get_args(info.type)
    if len(kinds) != 2 or get_origin(kinds[0]) is not Literal or kinds[1] is not NoneType:
        return None
    choices = get_args(kinds[0])
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(choices)}}}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value is None or value in choices,
        str_from_instance=lambda value: [str(value)],
        choices=choices,
    )


@NOTATIONS.primitive_rule
def _checkpoint(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[WhichCheckpoint] | None:
    """Which checkpoint is meant."""
    if info.type != WhichCheckpoint:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="newest|best|INT",
        instance_from_str=lambda words: coerce(words[0], WhichCheckpoint),
        is_instance=lambda value: isinstance(value, int | str),
        str_from_instance=lambda value: [str(value)],
    )


@NOTATIONS.primitive_rule
def _limits(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A cost limit, or one for each cost: as words, or in one where other words may follow."""
    if info.type == CostLimit:
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="FLOAT [FLOAT ...]",
            instance_from_str=_limits_from,
            is_instance=lambda value: isinstance(value, float | tuple),
            str_from_instance=lambda value: list(map(str, in_full(value))),
        )
    if info.type == CostLimit | None:
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT[,FLOAT...]",
            instance_from_str=lambda words: None if words == ["None"] else _limits_from(words),
            is_instance=lambda value: value is None or isinstance(value, float | tuple),
            str_from_instance=lambda value: [str(value)],
        )
    return None


def _limits_from(words: list[str]) -> CostLimit:
    limits = tuple(number(part) for word in words for part in word.split(","))
    return limits[0] if len(limits) == 1 else limits


@NOTATIONS.primitive_rule
def _words(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[tuple[Any, ...]] | None:
    """Lists of any length."""
    kinds = get_args(info.type)
    is_list = get_origin(info.type) is tuple and kinds[1:] == (...,)
    if not is_list or kinds[0] not in _WORDS:
        return None
    metavar, read = _WORDS[kinds[0]]
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{metavar} [{metavar} ...]]",
        instance_from_str=lambda words: tuple(map(read, words)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(map(str, value)),
    )


@NOTATIONS.primitive_rule
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


@NOTATIONS.primitive_rule
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
