import shutil
import subprocess

import pytest

from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli
from smpo_jax.experiment.settings import completion

ASK = """
source ./script
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p smpo-jax | sed 's/.*-F \\([^ ]*\\).*/\\1/')
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "script"
    path.write_text(completion.script("bash"))
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("smpo-jax ''", {*cli.COMMANDS, "-h", "--help"}),
        ("smpo-jax train --learning-rate-", {"--learning-rate-decay"}),
        ("smpo-jax train --fisher-s", {"--fisher-stride"}),
        ("smpo-jax train --env PointG", {"PointGoal0", "PointGoal1", "PointGoal2"}),
        ("smpo-jax train --algo trpo_s", {"trpo_saute", "trpo_simmer"}),
        ("smpo-jax evaluate run --on ''", {"native", "safety-gymnasium"}),
        ("smpo-jax export run --to ''", {"npz", "onnx", "stablehlo"}),
    ],
)
def test_bash_completes_commands_options_and_choices(script, words, expected):
    program = ["bash", "--norc", "-c", ASK.format(words=words)]
    answer = subprocess.run(program, capture_output=True, text=True, check=True, cwd=script.parent)
    assert not answer.stderr
    assert set(answer.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_names_every_method(command, shell):
    result = command(f"completion {shell}")
    assert result.status == 0 and not result.err
    assert all(f"'{name}'" in result.out for name in ALGORITHMS if name != "toy")


def test_every_command_can_be_completed():
    assert set(completion.commands()) == set(cli.COMMANDS)
