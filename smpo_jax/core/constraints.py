"""Several constraints: what each of them has of its own.

A quantity that every constraint has (its cost, limit, multiplier, critic) is the plain value where
there is one constraint, and a dictionary by the cost's name where there are several. What is true
of one constraint is then written for one, and `each` does it for all; with one constraint there is
nothing around it. Both forms are pytrees, so they pass through `jit`, `scan` and checkpoints alike.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from smpo_jax.types import Key, Rollout

ONE = ("cost",)  # what the costs of an environment are called that has one, or says nothing


def each(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """What the function makes of each constraint's own; in the form of the arguments."""
    if isinstance(first, dict):
        return {name: function(first[name], *(x[name] for x in others)) for name in first}
    return function(first, *others)


def values(quantity: Any) -> list[Any]:
    """Those of all constraints, in the order of the form."""
    return list(quantity.values()) if isinstance(quantity, dict) else [quantity]


def in_order(quantity: Any, names: Sequence[str]) -> list[Any]:
    """Those of all constraints, in the order of the names."""
    return [quantity[name] for name in names] if isinstance(quantity, dict) else [quantity]


def total(quantity: Any) -> Any:
    """The sum over constraints."""
    return functools.reduce(operator.add, values(quantity))


def all_of(quantity: Any) -> Any:
    """Whether it is true of every constraint."""
    return functools.reduce(operator.and_, values(quantity))


def any_of(quantity: Any) -> Any:
    """Whether it is true of at least one constraint."""
    return functools.reduce(operator.or_, values(quantity))


def zipped(*quantities: Any) -> list[tuple[Any, ...]]:
    """Quantities side by side, constraint by constraint."""
    return values(each(lambda *own: own, *quantities))


def made(names: Sequence[str], make: Callable[[], Any]) -> Any:
    """A new value for each of these costs."""
    return make() if len(names) == 1 else {name: make() for name in names}


def named(prefix: str, like: Any) -> Any:
    """What each is called: `prefix`, or `prefix/NAME`."""
    if isinstance(like, dict):
        return {name: f"{prefix}/{name}" for name in like}
    return prefix


def labelled(prefix: str, quantity: Any) -> dict[str, Any]:
    """A flat dictionary: `prefix`, or `prefix/NAME` of each."""
    return dict(zipped(named(prefix, quantity), quantity))


def names(quantity: Any) -> tuple[str, ...]:
    """What the costs are called."""
    return tuple(quantity) if isinstance(quantity, dict) else ONE


def keys(key: Key, like: Any) -> Any:
    """A key for each; the key itself if there is one constraint."""
    if not isinstance(like, dict):
        return key
    return dict(zip(like, jax.random.split(key, len(like)), strict=True))


def views(rollout: Rollout) -> Any:
    """The rollout as each constraint sees it: with one cost."""
    transition, episodes = rollout.transition, rollout.episodes

    def view(cost: Any, so_far: Any, of_episodes: Any) -> Rollout:
        return rollout._replace(
            transition=transition._replace(cost=cost),
            cost_so_far=so_far,
            episodes=episodes._replace(cost=of_episodes),
        )

    return each(view, transition.cost, rollout.cost_so_far, episodes.cost)


def names_of(env: Any) -> tuple[str, ...]:
    """What the costs of environments are called; `cost` where they say nothing."""
    return tuple(getattr(env, "cost_names", ONE))


def count(cost_limit: Any) -> int:
    """How many limits are given: a number, several, or a dictionary by name."""
    if isinstance(cost_limit, Mapping):
        return len(cost_limit)
    shape = np.shape(cost_limit)
    return shape[0] if shape else 1


def limits(cost_limit: Any, names: Sequence[str]) -> Any:
    """The limit of each cost.

    Args:
        cost_limit: a number, several in the order of the names, or a dictionary by name.
        names: of the environment's costs.

    Raises:
        ValueError: there are not as many as there are costs, or of other names.
    """
    if isinstance(cost_limit, Mapping):
        if set(cost_limit) != set(names):
            raise ValueError(
                f"cost_limit is of {_listed(cost_limit)}, but the costs are {_listed(names)}"
            )
        given = [cost_limit[name] for name in names]
    else:
        number = count(cost_limit)
        if number != len(names):
            raise ValueError(
                f"cost_limit: {_counted(number, 'limit')} given, but the environment has "
                f"{_counted(len(names), 'cost')} ({_listed(names)}): give one limit for each, in "
                "this order"
            )
        given = [cost_limit[i] for i in range(number)] if np.ndim(cost_limit) else [cost_limit]
    rest = iter(given)
    return made(names, lambda: next(rest))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
