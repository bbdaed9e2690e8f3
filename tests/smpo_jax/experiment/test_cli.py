import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro

import smpo_jax
from smpo_envs.naming import KINDS
from smpo_envs.registry import TASKS
from smpo_jax.algorithms import registry
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.presets import policies


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("trian", "there is no command 'trian'; did you mean train?"),
        ("train --algo toy --lerning-rate 3", "unknown option --lerning-rate"),
        ("train --algo toy --stpe 3", "unknown option --stpe; did you mean --step?"),
        ("train --algo toy --cost_limt=3", "unknown option --cost-limt; did you mean --cost-limit"),
        ("train --algo toy 3", "unexpected argument '3'"),
        ("train --algo smop", "algo: there is no algorithm 'smop'; did you mean smpo?"),
        ("train --algo toy --env PointGaol1", "did you mean 'PointGoal1'?"),
        ("train --algo toy --steps 1.5", "--steps: expected an integer, got '1.5'"),
        ("train --algo toy --steps many", "--steps: expected an integer, got 'many'"),
        ("train --algo toy --seed", "--seed needs a value"),
        ("train --algo toy --step x", "--step: expected a number, got 'x'"),
        ("train --algo toy --form x", "--form: expected one of plain, fancy, got 'x'"),
        ("train --algo toy --cost-limit -1", "cost_limit: must not be negative, got -1.0"),
        ("train --algo toy --cost-limit nan", "--cost-limit: expected a number, got 'nan'"),
        ("train --algo toy --seed -1", "seed: must be between 0 and 2**32 - 1, got -1"),
        ("train --algo toy --repeats 7", "128 envs are not divisible by 7"),
        ("train --algo ppo --minibatches 7", "is not divisible by minibatches=7"),
        ("train --algo ppo --minibatches 0", "minibatches=0 must be a whole number, 1 or more"),
        ("train --config missing.yaml", "cannot read config missing.yaml: No such file"),
        (
            "train --config PointGoal1/smop",
            "nor a preset, see `smpo-jax list`; did you mean PointGoal1/smpo?",
        ),
        (
            "suite comparsion",
            "neither a file nor a preset, see `smpo-jax list`; did you mean comparison?",
        ),
        ("train --config loop", "see `smpo-jax list`; allowed: PointGoal1/smpo, "),
        ("suite loop", "see `smpo-jax list`; allowed: baselines, "),
        (
            "evaluate pretrained:loop",
            f"no pretrained policy loop; allowed: {', '.join(policies())}",
        ),
        ("track", "there is no command 'track'; did you mean train?"),
        ("export run --to bogus", "--to: expected one of npz, onnx, stablehlo, got 'bogus'"),
        ("export run --to None", "--to: expected one of npz, onnx, stablehlo, got 'None'"),
        ("train --resume runs/x --seed 3", "--resume goes on with the run as it is saved"),
        ("evaluate missing", "missing is not the folder of a run: it has no config.json"),
        ("evaluate", "folder must be given; see smpo-jax evaluate --help"),
        ("plot missing --out a.png", "missing is not the folder of a run"),
        ("plot --out a.png", "plot needs the folder of at least one run"),
        ("plot missing", "--out"),
        ("bench --env Nowhere", "env: unknown environment 'Nowhere'"),
        ("bench --algos smop", "there is no algorithm 'smop'; did you mean smpo?"),
        ("bench --repeats 0", "repeats: must be at least 1, got 0"),
        ("list all", "unexpected argument 'all'"),
        ("train --lr 1e-4", "unknown option --lr; here it is called --learning-rate"),
        ("train --algo ppo --gamma 0.9", "unknown option --gamma; here it is called --discount"),
        ("train --total_timesteps 9", "--total-timesteps; here it is called --steps"),
        ("train --clip-ratio 0.1", "; here it is called clip, which cannot be set in this place"),
        ("train --algo CPPOPID", "no algorithm 'CPPOPID'; here it is called pid_lag"),
        ("train --max-episode-steps 500", "; here it is called --episode-length"),
        ("train --device cuda:0", "unknown option --device; JAX takes a GPU where there is one"),
        (
            "train --algo ppo --normalise-observations False",
            "--normalise-observations takes no value, got 'False': write "
            "--normalise-observations or --no-normalise-observations",
        ),
        ("train --no-wandb 1", "write --wandb or --no-wandb"),
        ("train --algo ppo --hidden 64 x", "--hidden: expected an integer, got 'x'"),
        ("train --algo ppo --hidden", "hidden=() must be one or more positive whole numbers"),
        ("suite a.yaml --batch x", "--batch: expected an integer, got 'x'"),
        ("suite a.yaml --seeds 0 x", "--seeds: expected an integer, got 'x'"),
        ("evaluate runs/x --on mars", "--on: expected one of native, safety-gymnasium, got 'mars'"),
        ("completion tcsh", "shell: expected one of bash, zsh, fish, got 'tcsh'"),
    ],
)
def test_mistake_is_one_line_on_stderr_and_exit_status_2(command, arguments, expected):
    result = command(arguments)
    assert result.status == 2
    assert expected in result.error
    assert not result.out
    assert not list(Path().iterdir())


def test_train_help_shows_the_hyperparameters_of_the_chosen_algorithm(command):
    result = command("train --algo toy --help")
    assert result.status == 0
    for expected in ("--step FLOAT", "of the random walk that the weights take", "--num-envs INT"):
        assert expected in result.out
    assert "--learning-rate" not in result.out
    assert "--learning-rate" in command("train --algo ppo --help").out


def test_errors_are_told_where_tyro_keeps_its_own_to_itself(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro._errors", None)
    monkeypatch.delattr(tyro, "_errors")
    result = command("train --seed")
    assert result.status == 2
    assert result.error == "cannot read the arguments; see smpo-jax train --help"
    assert command("train --seed 1 --lr 3").error.endswith("here it is called --learning-rate")


NO_OPTIONS = ("hyperparameters", "env_object", "earlier_lengths", "cost_names", "observations")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_setting_of_every_method_is_explained_with_its_choices(command, name):
    lines = command(f"train --algo {name} --help").out.splitlines()
    told = " ".join(" ".join(line.strip("│ ") for line in lines).split())
    settings = registry.settings_class(name).__dataclass_fields__
    for field in (*Config.__dataclass_fields__, *settings):
        if field not in NO_OPTIONS:
            flag = "--" + field.replace("_", "-")
            ((spelling, text),) = re.findall(
                rf" {flag}((?:, --no-\S+)?(?: [A-Z{{]\S*| \[.*?\]\])?) (.*?) ?\(default: ",
                told,
            )
            assert len(text) > 3 and not text.startswith("-"), f"{flag} has no text"
            if "Literal" in str(settings.get(field) and settings[field].type):
                assert "{" in spelling, f"{flag} does not show its choices"
    (env,) = re.findall(r" --env STR (.*?) \(default: ", told)
    forms = {kind.form for kind in KINDS.values() if kind.form}
    assert forms <= set(re.findall(r"[\w-]+:[A-Z]+", env))


@pytest.mark.parametrize(
    "name", ["suite", "report", "evaluate", "plot", "render", "export", "list", "bench"]
)
def test_every_command_has_help(command, name):
    result = command(f"{name} --help")
    assert result.status == 0 and f"smpo-jax {name}" in result.out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(command, arguments):
    result = command(*arguments) if arguments else command("")
    assert result.status == 0
    for name in (
        "train",
        "suite",
        "report",
        "evaluate",
        "plot",
        "render",
        "export",
        "list",
        "bench",
    ):
        assert f"\n  {name} " in result.out


def test_list_has_one_line_for_every_task_and_algorithm(command):
    lines = command("list").out.splitlines()
    for name in (*TASKS, *ALGORITHMS):
        assert len([line for line in lines if line.startswith(f"  {name} ")]) == 1
    headings = ["tasks", "tasks from outside", "algorithms", "trained policies", "presets"]
    outside = [kind for kind in KINDS.values() if kind.form]  # and a module of one's own
    assert [line for line in lines if not line.startswith(" ")] == headings
    named = len(TASKS) + len(ALGORITHMS) + len(policies())
    assert len(lines) == named + len(outside) + 1 + 2 + len(headings)
    of_runs, of_suites = lines[-2:]
    assert "PointGoal1/smpo" in of_runs
    assert "comparison, " in of_suites


@pytest.mark.parametrize("argument", ["--help", "list"])
def test_help_and_list_are_quick_because_they_import_no_jax(argument):
    program = (
        "import sys; from smpo_jax.experiment.cli import main; status = main()\n"
        "heavy = {'jax', 'numpy', 'tyro', 'yaml', 'matplotlib', 'brax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, argument], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1.0


def test_console_script_runs_the_command_line():
    script = Path(sys.executable).with_name("smpo-jax")
    result = subprocess.run([script, "trian"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "smpo-jax: error: there is no command 'trian'; did you mean train?\n"


def test_two_iterations_from_training_to_picture(command):
    Path("run.yaml").write_text("env: ProbeFollow\nalgo: ppo\nhyperparameters: {hidden: [8]}\n")
    result = command(
        "train --config run.yaml --num-envs 8 --rollout-length 10 --steps 1.6e2 --minibatches 2 "
        "--epochs 1 --out run"
    )
    assert result.status == 0 and not result.err
    assert "100%   steps 160   return" in result.out and "steps/s" in result.out
    config = json.loads(Path("run/config.json").read_text())
    assert config["steps"] == 160 and config["hyperparameters"]["hidden"] == [8]

    result = command("evaluate run --episodes 12 --json")
    assert result.status == 0
    assert json.loads(result.out)["steps"] == 160

    assert command("plot run --out curves.png").status == 0
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


def test_version_is_told_by_the_command_the_module_and_the_package(command):
    assert command("--version").out == f"smpo-jax {smpo_jax.__version__}\n"
    line = [sys.executable, "-m", "smpo_jax", "--version"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert told == f"smpo-jax {smpo_jax.__version__}\n"
