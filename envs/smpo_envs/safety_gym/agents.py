"""The robots that tasks can have, as values: an environment is an agent, a task and a level.

A third one is a state that is a `robot.Robot` and a line here; to run into things it needs a
`dynamics.Mechanics` and a line in `physics`, too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jaxtyping import Array, Float

from smpo_envs.safe_env import Reading
from smpo_envs.safety_gym import car, car_body, point
from smpo_envs.safety_gym.levels import SMALL_PUSH_BOXES, Kind, Level
from smpo_envs.safety_gym.lidar import BINS


@dataclass(frozen=True)
class Agent:
    """A kind of robot, as tasks put one into an arena.

    Attributes:
        name: what it is called, also in the original.
        at_rest: the state as an episode begins, of a place and a heading.
        readings: of its sensors, in order.
        step_seconds: what an environment step takes in the world, s.
        action_size: how many commands it takes, each within [-1, 1].
        instead: kinds of objects that it is given in place of others of the same name.
    """

    name: str
    at_rest: Callable[[Float[Array, " 2"], Float[Array, ""]], Any]
    readings: tuple[Reading, ...]
    step_seconds: float
    action_size: int = 2
    instead: tuple[Kind, ...] = ()

    def fitted(self, level: Level) -> Level:
        """A level with the kinds of objects that this agent is given."""
        own = {kind.name: kind for kind in self.instead}
        objects = tuple((own.get(kind.name, kind), number) for kind, number in level.objects)
        return dataclasses.replace(level, objects=objects)

    @property
    def sensors(self) -> int:
        """Entries of an observation that are its own."""
        return sum(reading.size for reading in self.readings)

    def observation_size(self, seen: int) -> int:
        """Length of an observation, given how many kinds of objects are seen."""
        return self.sensors + BINS * seen


POINT = Agent("Point", point.at_rest, point.READINGS, point.TIMING.seconds)
CAR = Agent(
    "Car",
    car.at_rest,
    car.READINGS,
    car_body.TIMING.seconds,
    instead=(SMALL_PUSH_BOXES,),
)
AGENTS: Mapping[str, Agent] = MappingProxyType({agent.name: agent for agent in (POINT, CAR)})


def named(name: str) -> Agent:
    """The agent of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in AGENTS:
        raise ValueError(f"agent={name!r} is unknown: known are {', '.join(AGENTS)}")
    return AGENTS[name]
