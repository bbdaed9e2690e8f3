"""The table of environments. Reading it imports neither JAX nor any environment."""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo_envs.safe_env import SafeEnv


@dataclass(frozen=True)
class Entry:
    """How to build an environment, and what it is.

    Attributes:
        factory: "module:function"; called with keyword arguments.
        summary: one line for people.
        arguments: the keyword arguments that make it this environment.
        task_id: the original's name; None where there is no original.
        has_hazards: its factory takes a shift (`smpo_envs.shift.Shift`).
        has_options: its factory takes other arguments, too, which `--env-option` gives it.
    """

    factory: str
    summary: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    has_hazards: bool = False
    has_options: bool = False


def _navigation(agent: str, task: str, level: int, summary: str) -> Entry:
    return Entry(
        f"smpo_envs.safety_gym.{task.lower()}:make",
        f"{agent} {summary}",
        MappingProxyType({"level": level, "agent": agent}),
        f"Safety{agent}{task}{level}-v0",
        has_hazards=task in ("Goal", "Button", "Push") and level > 0,
    )


_SUMMARIES: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("Goal", 0): "drives to goals in an empty arena",
        ("Goal", 1): "drives to goals among 8 hazards (cost) and a vase",
        ("Goal", 2): "drives to goals among 10 hazards, 10 vases (cost)",
        ("Button", 0): "presses the lit one of 4 buttons",
        ("Button", 1): "does the same; wrong buttons, 4 hazards, 4 gremlins that circle (cost)",
        ("Button", 2): "does the same; wrong buttons, 8 hazards, 6 gremlins that circle (cost)",
        ("Push", 0): "pushes a box to goals in an empty arena",
        ("Push", 1): "pushes a box past a pillar and 2 hazards (cost)",
        ("Push", 2): "pushes a box past 4 pillars, 4 hazards (cost)",
        ("Circle", 0): "circles, counter-clockwise",
        ("Circle", 1): "circles, partly outside of a strip (cost)",
        ("Circle", 2): "circles, partly outside of a square (cost)",
        ("Run", 0): "drives down a corridor (cost outside)",
    }
)

TASKS: Mapping[str, Entry] = MappingProxyType(
    {
        **{
            f"{agent}{task}{level}": _navigation(agent, task, level, summary)
            for agent in ("Point", "Car")
            for (task, level), summary in _SUMMARIES.items()
        },
        "StirredTank": Entry(
            "smpo_envs.plants.stirred_tank:make",
            "a reactor that follows set points between two temperatures (cost beyond them)",
            has_options=True,
        ),
        "FourTanks": Entry(
            "smpo_envs.plants.four_tanks:make",
            "two pumps hold two levels; the other two must not rise too high (cost above)",
            has_options=True,
        ),
        "ProbeTradeoff": Entry(
            "smpo_envs.probes:tradeoff", "test problem: reward a, cost max(a, 0)"
        ),
        "ProbeDiminishing": Entry(
            "smpo_envs.probes:diminishing", "test problem: reward 1 - (1 - a)², cost max(a, 0)"
        ),
        "ProbeFollow": Entry(
            "smpo_envs.probes:follow", "test problem: match a signal, where positive actions cost"
        ),
        "ProbeSpending": Entry(
            "smpo_envs.probes:spending", "test problem: two actions, each with a cost of its own"
        ),
        "ProbeExits": Entry(
            "smpo_envs.probes:exits", "test problem: a near exit that costs, a far one that is free"
        ),
        "ProbeChoice": Entry(
            "smpo_envs.probes:choice", "test problem: wait, walk or run, discrete actions that cost"
        ),
    }
)


def resolve(name: str) -> str:
    """The key in `TASKS` of a name or of an original's id such as `SafetyPointGoal1-v0`.

    Raises:
        ValueError: the name is unknown; the message has the nearest match and all names.
    """
    key = native_of(name) or name
    if key in TASKS:
        return key
    by_lower_case = {known.lower(): known for known in TASKS}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f"did you mean {by_lower_case[near[0]]!r}? " if near else ""
    raise ValueError(f"unknown environment {name!r}: {hint}Known are {', '.join(TASKS)}")


def native_of(task_id: str) -> str | None:
    """The key in `TASKS` of an original's id; None where it is not here."""
    return next((key for key, entry in TASKS.items() if entry.task_id == task_id), None)


def build(key: str, **options: Any) -> "SafeEnv":
    """The environment of that key in `TASKS`; `options` override what its factory takes."""
    entry = TASKS[key]
    module, _, function = entry.factory.partition(":")
    factory = getattr(importlib.import_module(module), function)
    return factory(**{**entry.arguments, **options})
