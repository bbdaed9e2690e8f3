"""The command line `smpo-jax`.

Commands are looked up here and imported only when called: `--help` and `list` answer without
importing jax. A mistake of the user's is one line on stderr and exit status 2.
"""

import atexit
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import smpo_jax
from smpo_jax.experiment.errors import PROGRAM, UserError, exit_status

HELP = f"""usage: {PROGRAM} COMMAND [OPTIONS]

Safe reinforcement learning in JAX: SMPO and constrained baselines on native Safety-Gymnasium tasks.

commands:
  train      train a policy, or go on with a run that was stopped
  suite      train a whole grid of tasks, variants and seeds
  report     tables and figures of a suite
  evaluate   return and cost of a trained policy, in the native or the real environment
  robustness return, cost and critics' calibration where hazards differ from training
  plot       learning curves of one or more runs
  render     what a trained policy does, as a film or as a picture of its paths
  export     a trained policy as a file for programs without this package
  list       tasks and algorithms, one line each; presets
  bench      steps per second of environments and training on this machine
  completion what a shell needs to complete all this: eval "$({PROGRAM} completion bash)"

Every command has its own --help. Try: {PROGRAM} train --env PointGoal1 --algo smpo
--version says which one this is.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 if it succeeded, 1 if training diverged or a cell of a suite failed, 2 for a mistake of
        the user's or a disk that cannot be written, 130 after Ctrl-C, 143 after SIGTERM, 6 if
        another process of a distributed run was lost.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # JAX traces into a million objects that stay: to look for garbage among them again and again
    # takes a tenth of a short command's time, and half a second more before Python ends.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    return exit_status(lambda: _dispatch(given))


def _dispatch(arguments: list[str]) -> int:
    from smpo_jax.names import nearest

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"{PROGRAM} {smpo_jax.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    return COMMANDS[name](rest)


def _train(arguments: list[str]) -> int:
    _use_compilation_cache()
    from smpo_jax.experiment.settings.command_line import parse_train

    request = parse_train(arguments)
    from smpo_jax.experiment.run import together

    return together.train(request)


def _suite(arguments: list[str]) -> int:
    _use_compilation_cache()
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import SuiteOptions

    options = parse(SuiteOptions, arguments, command="suite")
    from smpo_jax.experiment.suite import main

    return main.main(options)


def _report(arguments: list[str]) -> int:
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import ReportOptions

    options = parse(ReportOptions, arguments, command="report")
    from smpo_jax.experiment.suite.report import report

    report.main(options)
    return 0


def _evaluate(arguments: list[str]) -> int:
    _use_compilation_cache()
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import EvaluateOptions

    options = parse(EvaluateOptions, arguments, command="evaluate")
    from smpo_jax.experiment.results import evaluate

    evaluate.main(options)
    return 0


def _robustness(arguments: list[str]) -> int:
    _use_compilation_cache()
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import RobustnessOptions

    options = parse(RobustnessOptions, arguments, command="robustness")
    from smpo_jax.experiment.suite import robustness

    robustness.main(options)
    return 0


def _plot(arguments: list[str]) -> int:
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import PlotOptions

    options = parse(PlotOptions, arguments, command="plot")
    from smpo_jax.experiment.results import plots

    plots.main(options)
    return 0


def _render(arguments: list[str]) -> int:
    _use_compilation_cache()
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import RenderOptions

    options = parse(RenderOptions, arguments, command="render")
    from smpo_jax.experiment.results import render

    render.main(options)
    return 0


def _export(arguments: list[str]) -> int:
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import ExportOptions

    options = parse(ExportOptions, arguments, command="export")
    from smpo_jax.experiment.results import export

    export.main(options)
    return 0


def _list(arguments: list[str]) -> int:
    if arguments:
        from smpo_jax.experiment.settings.command_line import parse
        from smpo_jax.experiment.settings.options import ListOptions

        parse(ListOptions, arguments, command="list")
    from smpo_envs.naming import KINDS, entry_points
    from smpo_envs.registry import TASKS
    from smpo_jax.algorithms.registry import ALGORITHMS
    from smpo_jax.experiment.settings import presets

    width = max(map(len, (*TASKS, *ALGORITHMS)))
    print("tasks")
    for name, task in TASKS.items():
        print(f"  {name:{width}}  {task.summary}")
    for name, reference in entry_points().items():
        print(f"  {name:{width}}  {reference}, of an installed package")
    print("tasks from outside")
    for kind in KINDS.values():
        if kind.form:
            print(f"  {kind.form:{width}}  {kind.summary}")
    print(
        f"  {'MODULE:FUNCTION':{width}}  your own, of a file in this folder or an installed module"
    )
    print("algorithms")
    for name, algorithm in ALGORITHMS.items():
        source = algorithm.paper.rpartition(", ")[2]  # as short as it can be looked up
        print(f"  {name:{width}}  {algorithm.summary} ({algorithm.year}, {source})")
    print("trained policies")
    for name, record in presets.policies().items():
        print(f"  {presets.PRETRAINED + name:{width}}  {presets.described(record)}")
    print("presets")
    print(f"  {'train --config':{width}}  {', '.join(presets.runs())}")
    print(f"  {'suite':{width}}  {', '.join(presets.suites())}")
    return 0


def _bench(arguments: list[str]) -> int:
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # compiling is one of the measurements
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import BenchOptions

    options = parse(BenchOptions, arguments, command="bench")
    from smpo_jax.experiment import bench

    bench.main(options)
    return 0


def _completion(arguments: list[str]) -> int:
    from smpo_jax.experiment.settings import completion
    from smpo_jax.experiment.settings.command_line import parse
    from smpo_jax.experiment.settings.options import CompletionOptions

    options = parse(CompletionOptions, arguments, command="completion")
    print(completion.script(options.shell))
    return 0


def _use_compilation_cache() -> None:
    """Lets jax keep compiled programs between runs, so that the second start is quick.

    Has to be called before jax is imported, which reads its environment only then. The user's own
    `JAX_COMPILATION_CACHE_DIR` and `JAX_ENABLE_COMPILATION_CACHE` (false: no cache) win. Where it
    cannot be written there is none; jax would tell so for every program.
    """
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(given) if given else caches / PROGRAM / "jax"
        if "://" in str(given):  # a bucket; jax knows how to reach it
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        print(f"{PROGRAM}: programs are compiled anew each time: {error}", file=sys.stderr)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "suite": _suite,
    "report": _report,
    "evaluate": _evaluate,
    "robustness": _robustness,
    "plot": _plot,
    "render": _render,
    "export": _export,
    "list": _list,
    "bench": _bench,
    "completion": _completion,
}
