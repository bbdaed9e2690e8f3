"""What each command accepts, parsed by tyro, with every mistake told in one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import tyro

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.settings import config as config_file
from smpo_jax.experiment.settings.config import Config, integer
from smpo_jax.names import suggest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where a run comes from.

    Attributes:
        config: a YAML file with some or all of the fields below; the command line wins over it.
        resume: the folder of a run that was stopped; takes no other option.
        overwrite: replace the run that is in the folder.
    """

    config: Path | None = None
    resume: Path | None = None
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Return and cost of a trained policy.

    Attributes:
        folder: the folder of a run; its newest checkpoint is used.
        episodes: how many episodes to play.
        on: the native environment, or the real Safety-Gymnasium.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
        json: print JSON.
        hazard_shift: play where hazards differ from the task's own: NAME=VALUE,VALUE of hazards
            (their number), size (radius, m) and extent (half width of the square they are in, m);
            every combination in turn. Unless given, what the run was trained on at its end.
    """

    folder: tyro.conf.Positional[Path]
    episodes: int = 100
    on: Literal["native", "safety-gymnasium"] = "native"
    deterministic: bool = False
    seed: int = 0
    json: bool = False
    hazard_shift: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Return, cost and the safety critic's calibration where hazards differ from the task's own.

    Attributes:
        folder: the folder of a run, or of a suite, whose finished cells are taken.
        out: the picture to write, with FILE.csv and FILE-calibration.csv beside it.
        task: which of a suite's tasks; needed if it has several.
        hazard_shift: what varies, one at a time, the rest being the task's own: NAME=VALUE,VALUE of
            hazards, size and extent. Calibration is drawn for the last value of each.
        episodes: how many to play at each point.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
    """

    folder: tyro.conf.Positional[Path]
    out: Path = Path("robustness.png")
    task: str | None = None
    hazard_shift: tuple[str, ...] = (
        "hazards=4,8,12,16",
        "size=0.1,0.2,0.3,0.4",
        "extent=1.5,1.2,0.9",
    )
    episodes: int = 100
    deterministic: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Learning curves: return and cost against environment steps, one column for each task.

    Attributes:
        folders: folders of runs; those of one algorithm on one task are averaged over seeds.
        out: the picture to write; its ending (png, pdf, svg) says which format.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """A trained policy seen from above: a film of episodes, or a picture of their paths.

    Attributes:
        folder: the folder of a run; its newest checkpoint is used.
        episodes: how many, one after another in a film, side by side in a picture.
        out: the file to write; its ending says whether a film (mp4, gif) or a picture (png, pdf,
            svg). Unless given, episodes.gif in the folder.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
        speed: of a film, in multiples of real time.
    """

    folder: tyro.conf.Positional[Path]
    episodes: int = 3
    out: Path | None = None
    deterministic: bool = False
    seed: int = 0
    speed: float = 2.0


@dataclasses.dataclass(frozen=True)
class SuiteOptions:
    """Trains every cell of a grid of tasks, variants and seeds.

    Attributes:
        file: the YAML file that describes the grid.
        out: the suite's folder; each cell is a run in TASK/VARIANT/seedN below it. Unless given,
            runs/ and the file's name.
        resume: go on with the suite in the folder; cells that are done are left as they are.
        batch: most cells that one program trains at the same time; they may differ in seed, cost
            limit and float hyperparameters. Unless given, 1 on a CPU, elsewhere what fits.
        processes: how many programs run at the same time, each in a process of its own.
    """

    file: tyro.conf.Positional[Path]
    out: Path | None = None
    resume: bool = False
    batch: int | None = None
    processes: int = 1


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Tables and figures of a suite: report.md, cells.csv, variants.csv and pictures.

    Attributes:
        folder: the folder of a suite; it need not be finished.
        out: the folder to write to; what an earlier report left there is replaced.
        published: also list and draw published results on the same tasks.
        window: how much of a run, counted from its end, is its final performance.
    """

    folder: tyro.conf.Positional[Path]
    out: Path = Path("report")
    published: bool = False
    window: float = 0.1


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Tasks and algorithms, one line each."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Steps per second on this machine, compilation apart; medians of several repeats.

    Attributes:
        env: the task.
        num_envs: numbers of environments to step at the same time.
        devices: how many devices share the environments; on a CPU, cores.
        algos: algorithms to time training with; none times the environment only.
        train_envs: environments while training.
        rollout_length: steps of each environment between two updates, while training.
        seeds: independent runs trained at the same time by one program.
        repeats: how often each measurement is made.
        json: print JSON.
    """

    env: str = "PointGoal1"
    num_envs: tuple[int, ...] = (1024, 4096)
    devices: int = 1
    algos: tuple[str, ...] = ("ppo", "smpo")
    train_envs: int = Config.num_envs
    rollout_length: int = Config.rollout_length
    seeds: int = 1
    repeats: int = 5
    json: bool = False


class TrainRequest(NamedTuple):
    """What `train` was asked to do."""

    config: Config
    resume: Path | None
    overwrite: bool


def parse_train(arguments: Sequence[str]) -> TrainRequest:
    """The run that the command line, the YAML file it names and the defaults describe.

    The algorithm decides which hyperparameters there are, and the file may name the algorithm, so
    the arguments are read twice: first for these two, then for everything.
    """
    first, others = _first_pass(arguments)
    if first.options.resume is not None and not _asks_for_help(arguments):
        if others or first.options.config or first.options.overwrite:
            raise UserError(
                "--resume goes on with the run as it is saved and takes no other option"
            )
        return TrainRequest(config_file.Config(), first.options.resume, overwrite=False)
    overrides = {"algo": first.algo} if first.algo else {}
    if first.options.config is None:
        base = config_file.from_mapping({}, where="defaults", **overrides)
    else:
        base = config_file.load_yaml(first.options.config, **overrides)
    own = config_file.hyperparameters(base.algo, base.hyperparameters, where="config")
    shape = dataclasses.make_dataclass(
        "Train",
        [("source", TrainOptions), ("run", Config), (base.algo.replace("-", "_"), type(own))],
        frozen=True,
    )
    shape.__doc__ = f"Train a policy. The last group are the hyperparameters of {base.algo}."
    chosen = parse(shape, arguments, command="train", default=shape(first.options, base, own))
    source, run, own = (getattr(chosen, field.name) for field in dataclasses.fields(chosen))
    config = dataclasses.replace(run, hyperparameters=dataclasses.asdict(own))
    return TrainRequest(config, None, source.overwrite)


def parse(kind: type[T], arguments: Sequence[str], *, command: str, default: T | None = None) -> T:
    """The options of a command.

    Raises:
        UserError: an unknown option, with the nearest one that exists, or a bad value.
        SystemExit: 0, after printing the help that was asked for.
    """
    given = {} if default is None else {"default": default}
    parsed, unknown = _run_tyro(kind, arguments, prog=f"smpo-jax {command}", **given)
    _refuse(unknown, _option_names(kind))
    return parsed


@dataclasses.dataclass(frozen=True)
class _FirstPass:
    options: TrainOptions
    algo: str | None = None


def _first_pass(arguments: Sequence[str]) -> tuple[_FirstPass, list[str]]:
    plain = [each for each in arguments if each not in ("-h", "--help")]
    return _run_tyro(_FirstPass, plain, prog="smpo-jax train")


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _run_tyro(kind: Any, arguments: Sequence[str], **options: Any) -> tuple[Any, list[str]]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _integers:
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


def _option_names(kind: Any) -> list[str]:
    names = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            names += _option_names(field.type)
        elif field.name != "hyperparameters":
            names.append("--" + field.name.replace("_", "-"))
    return names


# Whole numbers may be written 1e7.
_integers = tyro.constructors.ConstructorRegistry()


@_integers.primitive_rule
def _integer_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: integer(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )
