"""Whatever is in a file or on the command line: a record or one line, soon, in little memory.

`SMPO_TRIES` says how many inputs of each kind are tried.
"""

import json
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file, options
from smpo_jax.experiment.settings.command_line import parse, parse_train
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.suite import grid, suite_folder

SECONDS = 20.0  # of a core that an input may take; what takes longest, deep nesting, takes 2
MEBIBYTES = 600  # that all of them together may add to the process
KIB_IN_MIB = 1024
FEW = int(os.environ.get("SMPO_TRIES", "25"))  # of each kind
MAY_BE_INFINITE = {"target_kl", "max_gradient_norm", "report_every", "checkpoint_every"}

ALGORITHMS = sorted(set(registry.ALGORITHMS) - {"toy"})
RUN = sorted(Config.__dataclass_fields__)
OWN = sorted({n for a in ALGORITHMS for n in registry.settings_class(a).__dataclass_fields__})

# fmt: off
ODD_NUMBERS = [
    "1e99999999", "-1e99999999", "1e400", "-1e400", "1e39", "1e-40", "5e-324", "inf", "-inf", "nan",
    ".inf", "-.inf", ".nan", "0", "-0", "-1", "1e7", "1.5", "4294967296", "9223372036854775808",
"1_000", "0x10", "0o17", "0b1", "190:20:30", "١٢٣", "1e-99999999", "1e18", "1e",
    "99999999999999999999", "1e19", "1.7976931348623157e308", "3.4e38",
]
# fmt: on
ODD_TEXTS = [
    *("", " ", "~", "null", "true", "yes", "off", "*a", "&a b", "!!int abc", "!!float x", "? a"),
    *(
        "2001-13-45",
        "2001-01-01",
        "2001-01-01T99:99:99Z",
        "!!binary x",
        "!!timestamp 1",
        "!!set {}",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        "- ",
        "a: b: c",
        "%YAML 9.9",
        "---",
        "...",
        "\t",
        "'",
        '"',
        "|",
        ">",
        "@x",
    ),
    *("\0", "a\0b", "\ud800", "\udcff", "\ufeff", "\x07", "\x85", "\u2028", "é", "😀", "x" * 5000),
    *(
        "~/x",
        "~nobody/x",
        "/dev/zero",
        "/dev/stdin",
        "/dev/null",
        ".",
        "..",
        "/",
        "-",
        "--",
        "a" * 300,
    ),
    *("hazards=8", "hazards=1e400", "size=0.1@0,0.2@1e6", "hazards=8@5,9@1", "hazards=-1", "x=1"),
    *("!!python/object/apply:os.system [ls]", "<<: *a", "<<", "=", "!!omap [a: 1]", "!!pairs [a]"),
    "[" * 3000,
    "{a: " * 1500,
    "9" * 5000,
    "[[[[[[1]]]]]]",
]
words = st.sampled_from(
    [*ODD_NUMBERS, *ODD_TEXTS, *ALGORITHMS, "PointGoal1", "ProbeFollow", "tanh"]
)
words |= st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.dates() | st.binary()
scalars |= st.sampled_from([10**4000, -(10**4000), 2**63, 2**32])
keys = st.sampled_from([*RUN, *OWN, "tasks", "variants", "seeds", "grid", "algo_cfgs", "<<"])
keys = keys | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
configs = st.dictionaries(st.sampled_from(RUN) | keys, values, max_size=4)
methods = st.dictionaries(st.sampled_from(OWN), scalars, max_size=4)


@st.composite
def structures(draw):
    """What might be meant for a run's file."""
    data = draw(configs)
    if draw(st.booleans()):
        data["algo"] = draw(st.sampled_from(ALGORITHMS))
    if draw(st.booleans()):
        data["hyperparameters"] = draw(methods | values)
    return data


@st.composite
def suites(draw):
    """What might be meant for a suite's file."""
    names = st.lists(st.sampled_from(ALGORITHMS), min_size=1, max_size=2)
    cells = st.dictionaries(st.sampled_from(ALGORITHMS) | keys, configs | values, max_size=3)
    return {
        **draw(st.just({}) | configs),
        "tasks": draw(st.just(["ProbeFollow"]) | values),
        "seeds": draw(st.just(2) | scalars | st.lists(scalars, max_size=3)),
        "variants": draw(names | cells | values),
    }


@st.composite
def texts(draw, structure):
    """Files: of a structure, of odd lines, of both, cut or repeated."""
    try:
        whole = yaml.safe_dump(draw(structure), allow_unicode=True)
    except Exception:  # what no YAML can say
        whole = ""
    lines = draw(st.lists(st.tuples(keys, words).map(lambda pair: ": ".join(pair)), max_size=5))
    odd = draw(st.lists(words, max_size=3))
    parts = draw(st.permutations([*whole.splitlines(), *lines, *odd]))
    text = draw(st.sampled_from([whole, "\n".join(parts), "\n".join([*lines, *odd])]))
    text = text[: draw(st.integers(0, max(len(text), 1)))] if draw(st.booleans()) else text
    repeated = draw(st.sampled_from([1, 1, 1, 1, 2, 3000]))
    return "\n".join([text] * repeated if len(text) < 60 else [text])


@st.composite
def command_lines(draw):
    """Options there are, with values they might have or not, and others."""
    flags = [f"--{name.replace('_', '-')}" for name in (*RUN, *OWN)]
    flag = st.sampled_from(flags) | words.map(lambda word: f"--{word}")
    pair = st.tuples(flag, words | st.integers().map(str) | st.floats().map(str))
    joined = pair.map(lambda two: [f"{two[0]}={two[1]}"])
    given_words = draw(st.lists(pair.map(list) | joined | words.map(lambda w: [w]), max_size=4))
    algo = draw(st.just([]) | st.sampled_from(ALGORITHMS).map(lambda name: ["--algo", name]))
    return [*algo, *(word for each in given_words for word in each)]


def check(tell):
    """Runs what reads an input; whatever it is, it ends soon, with a record or one line."""
    began = time.process_time()
    try:
        found = tell()
    except UserError as error:
        message = str(error)
        assert message and "\n" not in message and "\r" not in message
        assert len(message) < 2100
    except SystemExit as exit_:  # --help
        assert not exit_.code
    else:
        for config in found if isinstance(found, list) else [found]:
            if isinstance(config, Config):
                check_values(config)
    assert time.process_time() - began < SECONDS


def check_values(config):
    """A config that was accepted is one whose numbers mean something, and can be saved."""
    for name, value in [*vars(config).items(), *vars(config.hyperparameters).items()]:
        if isinstance(value, float) and name not in MAY_BE_INFINITE:
            with np.errstate(over="ignore"):
                single = np.float32(value)
            assert math.isfinite(single), f"{name}={value}"
            assert value == 0 or abs(single) >= np.finfo(np.float32).tiny, f"{name}={value}"
    again = config_file.from_mapping(config_file.as_mapping(config), where="again")
    assert config_file.difference(again, config) is None
    assert config.total_iterations >= 1


def written(text, name):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return Path(name)


READERS = {
    "yaml": (texts(structures()), lambda x: config_file.load_yaml(written(x, "a.yaml"))),
    "structure": (structures(), lambda x: config_file.from_mapping(x, where="a")),
    "suite": (
        texts(suites()),
        lambda x: [cell.config for cell in grid.load(written(x, "s.yaml"))],
    ),
    "suite structure": (
        suites(),
        lambda x: [cell.config for cell in grid.expand(x, where="a")],
    ),
    "config.json": (
        structures().map(lambda x: json.dumps(x, default=str)) | texts(structures()),
        lambda x: config_file.load(written(x, "run/config.json").parent),
    ),
    "suite.json": (
        st.fixed_dictionaries(
            {"cells": st.lists(st.fixed_dictionaries({"variant": scalars, "config": structures()}))
             | values, "batches": values, "overrides": values}
        ).map(lambda x: json.dumps(x, default=str)) | texts(suites()),
        lambda x: suite_folder.load(written(x, "suite/suite.json").parent),
    ),
    "train": (command_lines(), lambda x: parse_train(x).config),
    "suite command": (command_lines(), lambda x: parse(options.SuiteOptions, x, command="suite")),
    "evaluate": (command_lines(), lambda x: parse(options.EvaluateOptions, x, command="evaluate")),
    "bench": (command_lines(), lambda x: parse(options.BenchOptions, x, command="bench")),
    "robustness": (
        command_lines(),
        lambda x: parse(options.RobustnessOptions, x, command="robustness"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_anything_is_a_record_or_one_line(kind, monkeypatch, capsys):
    _try(kind, FEW, monkeypatch)


@pytest.mark.parametrize("kind", ["config.json", "suite.json"])
def test_brackets_without_end_are_one_line(kind):
    with pytest.raises(UserError, match=rf"cannot read .*{kind}: it is nested too deeply$"):
        READERS[kind][1]("[" * 100_000)


@pytest.mark.parametrize("value", ["!!timestamp 1", "!!int ''"])
def test_a_value_that_is_not_what_its_tag_says_is_one_line(value):
    with pytest.raises(UserError, match=r"a\.yaml: not valid YAML: \S+.*$"):
        READERS["yaml"][1](f"seed: {value}")


@pytest.mark.slow
def test_ten_thousand_inputs_are_records_or_one_line(monkeypatch, capsys):
    for kind in READERS:
        _try(kind, -(-10_000 // len(READERS)), monkeypatch)


def _try(kind, examples, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    inputs, read = READERS[kind]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=os.environ.get("SMPO_RANDOM") is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def attempt(data):
        check(lambda: read(data))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / KIB_IN_MIB < MEBIBYTES
