"""What a notebook must be like to be committed; nbmake runs them (see `notebooks/conftest.py`)."""

import inspect
import json
import re
from pathlib import Path

import pytest

from smpo_jax.algorithms import smpo

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def cells_of(notebook, kind):
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


def test_notebook_is_kept_without_outputs(notebook):
    for cell in cells_of(notebook, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "clear all outputs"


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
