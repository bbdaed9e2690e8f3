import pytest

from smpo_jax.experiment.settings.coercion import coerce


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
