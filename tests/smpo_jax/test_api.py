"""What a person finds who types `sx.` and asks for help."""

import inspect
import re
from types import ModuleType

import jax
import pytest

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms.registry import ALGORITHMS

PARTS = [
    getattr(package, name)
    for package, names in (
        (sx.core, sx.core.__all__),
        (sx.algorithms, sx.algorithms.__all__),
        (sx.smpo, ("critic", "weight", "gradient", "threshold", "settings")),
    )
    for name in names
]


def defined_in(module):
    """The public functions and classes that a module defines."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
            yield f"{module.__name__}.{name}", value


def public():
    for package in (sx, smpo_envs):
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)
    for module in PARTS:
        yield module.__name__, module
        yield from defined_in(module)


def test_every_public_name_says_what_it_is():
    tables = (dict, type(sx.Metrics))  # ALGORITHMS, TASKS, Metrics: values, told of by their module
    silent = [
        name
        for name, value in public()
        if not isinstance(value, tables) and name != "smpo_envs.TASKS" and not inspect.getdoc(value)
    ]
    assert silent == []


ARRAYS = ("returns", "surrogate", "episodes", "moments", "trust_region", "distributions")
MATHS = [
    *(getattr(sx.core, name) for name in ARRAYS),
    *(getattr(sx.smpo, name) for name in ("critic", "weight", "gradient", "threshold")),
]


@pytest.mark.parametrize("module", MATHS, ids=lambda module: module.__name__)
def test_functions_of_arrays_give_all_shapes(module):
    """Every argument and result has a type, and no array is just an array."""
    for name, function in defined_in(module):
        if not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        types = [signature.return_annotation]
        types += [parameter.annotation for parameter in signature.parameters.values()]
        assert not {inspect.Signature.empty, jax.Array} & set(types), name


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_method_names_its_source(name):
    """The module that makes it cites a paper by author and year."""
    path, _, _ = ALGORITHMS[name].make.partition(":")
    module = __import__(path, fromlist=["make"])
    assert isinstance(module, ModuleType) and module.__doc__
    assert re.search(r"[A-Z][a-z]+.*\b(19|20)\d\d\b", module.__doc__), path


def test_names_are_found_by_dir_and_unknown_ones_are_refused():
    assert {"Transition", "Rollout", "LearnerState", "core", "smpo", "algorithms"} <= set(dir(sx))
    with pytest.raises(AttributeError, match="nonsense"):
        sx.nonsense  # noqa: B018
