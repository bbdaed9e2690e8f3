"""Files that are broken, odd or meant to do harm: one line each, soon."""

import time
from pathlib import Path

import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import strict_yaml

BROKEN = {
    "no such day": ("seed: 2001-13-45", "month must be in 1..12"),
    "no number": ("seed: !!int abc", "not valid YAML"),
    "no float": ("steps: !!float abc", "not valid YAML"),
    "a list as a key": ("? [1, 2]\n: 3", "a key must be a single word"),
    "an alias to itself": ("a: &x [*x]", r"the alias \*x refers to itself"),
    "nested brackets": ("a: " + "[" * 5000, "nested too deeply|not valid YAML"),
    "thousands of digits": ("seed: " + "9" * 6000, "not valid YAML: a number of too many digits$"),
    "a key twice": ("a: 1\na: 2", "the key 'a' is given twice"),
    "code": ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
    "an unknown alias": ("a: *b", "not valid YAML"),
    "more values than there are": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "its aliases stand for more than 100,000 values",
    ),
}


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_and_soon(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        strict_yaml.read(path)
    assert time.monotonic() - began < 20 and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_one_value_for_several_places_is_fine(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x [1, 2]\nb: *x\n")
    assert strict_yaml.read(path) == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("path", ["/dev/zero", ".", "a\0b", "\udcff\ud800"])
def test_what_is_no_file_is_one_line(path):
    with pytest.raises(UserError, match="cannot read config"):
        strict_yaml.read(Path(path))


def test_a_file_that_no_configuration_can_be_is_refused_unread(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("#" * 300_000)
    with pytest.raises(UserError, match="larger than 200,000 bytes"):
        strict_yaml.read(path)


def test_many_lines_of_one_key_are_refused_soon(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n" * 20_000)
    began = time.monotonic()
    with pytest.raises(UserError, match="given twice"):
        strict_yaml.read(path)
    assert time.monotonic() - began < 60
