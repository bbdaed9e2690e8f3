"""What a shell needs to complete our commands, options and their choices."""

import contextlib
import dataclasses
import io
from typing import Any

import tyro

from smpo_envs.registry import TASKS
from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import options
from smpo_jax.experiment.settings.command_line import NOTATIONS
from smpo_jax.experiment.settings.config import Config


def script(shell: str) -> str:
    """The completion of `smpo-jax` for bash, zsh or fish; `train` completes all hyperparameters.

    Raises:
        UserError: the installed version of tyro knows no such shell.
    """
    written = io.StringIO()
    try:
        with contextlib.redirect_stdout(written), NOTATIONS:
            tyro.extras.subcommand_cli_from_dict(
                commands(),
                prog="smpo-jax",
                args=["--tyro-print-completion", shell],
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as exit_:
        if exit_.code:
            raise UserError(f"tyro {tyro.__version__} cannot complete in {shell}") from None
    # Where there is nothing of ours to complete, bash offers files.
    return written.getvalue().replace("complete -F ", "complete -o default -F ")


def commands() -> dict[str, Any]:
    """The record that each command's options are read into."""
    return {
        "train": _train(),
        "suite": options.SuiteOptions,
        "report": options.ReportOptions,
        "evaluate": options.EvaluateOptions,
        "robustness": options.RobustnessOptions,
        "plot": options.PlotOptions,
        "render": options.RenderOptions,
        "export": options.ExportOptions,
        "list": options.ListOptions,
        "bench": options.BenchOptions,
        "completion": options.CompletionOptions,
    }


def _train() -> type:
    """All that `train` may be given, whichever the algorithm; names have the choices there are."""
    kinds = {registry.settings_class(name): None for name in registry.ALGORITHMS}
    newest_first = sorted(kinds, key=lambda kind: -len(kind.__mro__))  # as bases have to stand
    every: Any = dataclasses.dataclass(frozen=True, kw_only=True)(
        type("Hyperparameters", tuple(newest_first), {})
    )
    names = [
        ("env", tyro.extras.literal_type_from_choices(TASKS), Config.env),
        ("algo", tyro.extras.literal_type_from_choices(registry.ALGORITHMS), Config.algo),
    ]
    run = dataclasses.make_dataclass("Run", names, bases=(Config,), frozen=True)
    fields = [("source", options.TrainOptions), ("run", run), ("own", every)]
    return dataclasses.make_dataclass("Train", fields, frozen=True)
