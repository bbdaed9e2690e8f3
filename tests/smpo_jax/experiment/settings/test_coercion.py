from pathlib import Path

import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.coercion import coerce, coerce_argument


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3e-4", float, 3e-4),  # YAML reads this as text
        (3, float, 3.0),
        ("1e3", int, 1000),
        ([64, "2e1"], tuple[int, ...], (64, 20)),
        ([1, 2.5], tuple[int, float], (1, 2.5)),
        (None, float | None, None),
        ("2", float | None, 2.0),
    ],
)
def test_coerce_accepts_what_yaml_makes_of_good_values(value, kind, expected):
    result = coerce(value, kind)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("3", bool), ([1], tuple[int, float]), ("inf", int), (None, float), (3, str)],
)
def test_coerce_refuses(value, kind):
    with pytest.raises(ValueError, match="expected"):
        coerce(value, kind)


@pytest.mark.parametrize("text", ["1e99999999", "9" * 5000, 10**30])
def test_a_number_beyond_64_bits_is_refused_at_once(text):
    with pytest.raises(ValueError, match="is too large"):
        coerce(text, int)


def test_a_number_that_python_does_not_even_write_is_refused_in_our_words():
    with pytest.raises(UserError, match=r"^steps: a number of too many digits$"):
        coerce_argument("steps", 10**6000, int)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_no_path(text):
    with pytest.raises(ValueError, match="expected a path"):
        coerce(text, Path)


def test_the_users_home_is_found_in_a_path():
    assert coerce("~/runs", Path) == Path.home() / "runs"
