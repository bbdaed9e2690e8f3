"""What tasks know of a robot: its state tells where it is, what it feels and how it drives on."""

from typing import NamedTuple, Protocol, Self

import jax
from jaxtyping import Array, Float


class Timing(NamedTuple):
    """How time passes for a robot, and for all that is around it.

    Attributes:
        timestep: of a physics step, s.
        substeps: physics steps in an environment step.
    """

    timestep: float
    substeps: int

    @property
    def seconds(self) -> float:
        """What an environment step takes in the world."""
        return self.timestep * self.substeps


class Robot(Protocol):
    """The state of a robot: a pytree, of one robot."""

    @property
    def timing(self) -> Timing:
        """The same for all robots of a kind."""
        ...

    @property
    def start(self) -> Float[Array, " 2"]:
        """Where the body's origin was at reset."""
        ...

    @property
    def position(self) -> Float[Array, " 2"]:
        """World position of the body's origin."""
        ...

    @property
    def height(self) -> Float[Array, ""] | float:
        """Of the body's origin, m."""
        ...

    @property
    def pose(self) -> Float[Array, " 3"]:
        """World position, and the angle that the robot's front points in, rad."""
        ...

    @property
    def velocity(self) -> Float[Array, " 2"]:
        """World velocity of the body's origin."""
        ...

    @property
    def turning(self) -> Float[Array, ""]:
        """Rate about the vertical, rad/s."""
        ...

    def way_from(self, before: Self) -> Float[Array, " 2"]:
        """How the body's origin has moved since an earlier state, more exactly than positions."""
        ...

    def in_frame(self, target: Float[Array, "K 2"]) -> tuple[jax.Array, jax.Array]:
        """Coordinates along the body's x and y axes, each `[K]`, of places on the floor."""
        ...

    def sensors(self, acceleration: Float[Array, " 3"]) -> Float[Array, " S"]:
        """What the agent's `readings` say, given the acceleration that led here."""
        ...

    def standing(self) -> Float[Array, " 3"]:
        """The acceleration that the sensors take as an episode begins."""
        ...

    def simulate_free(self, action: Float[Array, " 2"]) -> tuple[Self, Float[Array, " 3"]]:
        """An environment step with nothing in reach, and the acceleration after it."""
        ...
