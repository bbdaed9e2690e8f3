"""Arguments of the function that makes an environment: `--env-option size=3`; in YAML a mapping.

Values are those of YAML: numbers, true and false, null, texts, lists and mappings of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.coercion import number, plain

PLAIN = (str, int, float, bool, type(None))


class EnvOption(NamedTuple):
    """An argument by name."""

    name: str
    value: Any

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def from_word(word: str) -> EnvOption:
    """The option that a word of the command line is.

    Raises:
        ValueError: it is none.
    """
    name, equals, text = word.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"expected NAME=VALUE, got {word!r:.80}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    return _option(name, value)


def from_mapping(given: Any) -> tuple[EnvOption, ...]:
    """The options that a mapping of plain values holds.

    Raises:
        UserError: it is no mapping, a name is none of Python's, or a value is not plain.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise UserError(f"env_options: expected `name: value` lines, got {given!r:.80}")
    try:
        return tuple(_option(name, value) for name, value in given.items())
    except ValueError as error:
        raise UserError(f"env_options: {error}") from error


def merged(options: Iterable[EnvOption]) -> tuple[EnvOption, ...]:
    """Each name once, with the value that was given last."""
    return tuple(EnvOption(*pair) for pair in dict(options).items())


def _option(name: Any, value: Any) -> EnvOption:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r:.80} is no name of an argument")
    if name == "episode_length":
        raise ValueError("episode_length is a field of the run itself")
    return EnvOption(name, _saved(name, value))


def _saved(name: str, value: Any) -> Any:
    """The value as JSON can hold it."""
    value = plain(value)
    if isinstance(value, list | tuple):
        return [_saved(name, each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _saved(name, each) for key, each in value.items()}
    if isinstance(value, str):
        return _number_or_text(value)
    if isinstance(value, PLAIN):
        return value
    raise ValueError(f"{name}: expected a number, text, list or mapping, got {value!r:.80}")


def _number_or_text(text: str) -> float | str:
    """YAML reads 3e-4, which it should not, as text."""
    if text[:1] in "+-.0123456789" and "e" in text.lower():
        try:
            return number(text)
        except ValueError:
            pass
    return text
