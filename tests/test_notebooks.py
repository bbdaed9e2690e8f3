"""What a notebook must be like to be committed; nbmake runs them (see `notebooks/conftest.py`)."""

import inspect
import json
import re
from pathlib import Path

import pytest

from smpo_jax.algorithms import smpo

LARGEST = 300_000  # bytes of a notebook with its pictures
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def cells_of(notebook, kind):
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


def outputs_of(notebook):
    return [output for cell in cells_of(notebook, "code") for output in cell["outputs"]]


def test_notebook_is_kept_with_the_outputs_of_one_run(notebook):
    """`notebooks/save_outputs.py` makes them."""
    counts = [cell["execution_count"] for cell in cells_of(notebook, "code")]
    assert counts == list(range(1, len(counts) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs_of(notebook))
    for output in outputs_of(notebook):
        assert output["output_type"] != "error" and output.get("name") != "stderr", output


def test_outputs_are_small(notebook):
    assert notebook.stat().st_size < LARGEST


def test_outputs_tell_nothing_of_the_machine(notebook):
    texts = [
        str(output.get("text", "")) + str(output.get("data", "")) for output in outputs_of(notebook)
    ]
    for text in texts:
        assert not re.search(r"(?<![\w/+])/(home|root|tmp|work|usr|Users)/", text)


def test_notebook_runs_where_the_package_is_not_installed_yet_and_looks_for_a_gpu(notebook):
    install, device, *_ = ("".join(cell["source"]) for cell in cells_of(notebook, "code"))
    assert 'find_spec("smpo_jax") is None' in install and "%pip install" in install
    assert "jax.devices()" in device and "nvidia-smi" in device
    words = "".join("".join(cell["source"]) for cell in cells_of(notebook, "markdown"))
    assert "colab-badge.svg" in words


def test_notebook_says_first_what_it_shows_and_how_long_it_takes(notebook):
    first = json.loads(notebook.read_text())["cells"][0]
    assert first["cell_type"] == "markdown"
    title, _, paragraph = "".join(first["source"]).partition("\n\n")
    assert title.startswith("# ")
    assert "minute" in paragraph and "SMPO_SMOKE" in paragraph and "\n\n" not in paragraph


def test_notebook_has_no_absolute_paths(notebook):
    for cell in cells_of(notebook, "code"):
        assert not re.search(r"""["'](/\w|~|[A-Z]:)""", "".join(cell["source"]))


def test_readme_lists_the_notebook(notebook):
    assert f"(notebooks/{notebook.name})" in README


def test_step_by_step_says_of_every_line_of_update_which_equation_it_is():
    (notebook,) = (path for path in NOTEBOOKS if path.stem.endswith("step_by_step"))
    text = "".join("".join(cell["source"]) for cell in cells_of(notebook, "markdown"))
    _, _, table = text.partition("| line of `update` |")
    rows = table.partition("\n\n")[0].splitlines()
    named = {name for row in rows for name in re.findall(r"`(\w+\.\w+)`", row.split(" | ")[0])}
    _, _, update = inspect.getsource(smpo.make).partition("def update(")
    parts = "safety_critic|modulation|threshold|through_critic|gradient|improver"
    called = set(re.findall(rf"\b((?:{parts})\.\w+)\(", update))
    assert {name for name in named if not name.startswith("recipes.")} == called
    assert all(f"{name}(" in update for name in named)
