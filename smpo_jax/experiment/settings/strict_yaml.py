"""YAML files of plain values, read strictly: no key twice, and nothing is executed."""

from pathlib import Path
from typing import Any

import yaml

from smpo_jax.experiment.errors import UserError, reason

LARGEST = 200_000  # bytes of a file
MOST_VALUES = 100_000  # in it, aliases written out


def read(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: it cannot be read, or is not valid.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read config {path}: it is not a file")
        if path.stat().st_size > LARGEST:
            raise UserError(f"cannot read config {path}: it is larger than {LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path that can be
        raise UserError(f"cannot read config {path!s:.200}: {reason(error)}") from error
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, KeyError, OverflowError) as error:
        # Constructors of dates, numbers and tags raise what Python's own do.
        raise UserError(f"{path}: not valid YAML: {_short(error)}") from error
    except (AttributeError, IndexError) as error:  # `!!timestamp 1`, `!!int ''`
        raise UserError(f"{path}: not valid YAML: a value is not what its tag says") from error


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, no key twice, no alias that refers to itself or grows without end."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str] = []  # anchors of the values under way
        self._has_aliases = False

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and self._has_aliases and _size(node, {}) > MOST_VALUES:
            message = f"its aliases stand for more than {MOST_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, message, None)
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._has_aliases = True
            if event.anchor in self._open:
                message = f"the alias *{event.anchor} refers to itself"
                raise yaml.composer.ComposerError(None, None, message, None)
            return super().compose_node(parent, index)
        self._open.append(getattr(event, "anchor", None) or "")
        node = super().compose_node(parent, index)
        self._open.pop()
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a single word", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _short(error: Exception) -> str:
    return reason(error)[:300]


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = list(node.value)
        elif isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]
