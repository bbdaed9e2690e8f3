"""What the robot is charged for: raw amounts per kind of object, and their 0/1 indicators."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_envs.safety_gym.worlds import Motion

VASE_SPEED = 1e-4  # m/s: slower vases count as standing; they settle at up to 6.6e-5 at first


class Scene(NamedTuple):
    """What costs depend on, after a step.

    Attributes:
        position: of the robot's body origin.
        motion: the step that led here.
        markers: positions of the objects of each kind that can be driven over; None where the task
            has none.
        exempt: things standing fast that may be touched free of charge; None: none of them.
        radii: of those kinds whose discs are not as large as the level says.
    """

    position: Float[Array, " 2"]
    motion: Motion
    markers: Mapping[str, Float[Array, "K 2"]] | None = None
    exempt: Bool[Array, " F"] | None = None
    radii: Mapping[str, Float[Array, ""]] | None = None


class Cost(NamedTuple):
    """A named raw cost: an amount >= 0, for what the robot does to a kind of object."""

    name: str
    amount: Callable[[Scene], jax.Array]
    kind: str | None = None


def in_discs(kind: str, radius: float) -> Cost:
    """How deep the robot's origin (not its outline) is inside discs of a kind, summed, m."""

    def amount(scene: Scene) -> Float[Array, ""]:
        assert scene.markers is not None
        discs = scene.markers[kind]
        own = (scene.radii or {}).get(kind, radius)
        dx, dy = discs[:, 0] - scene.position[0], discs[:, 1] - scene.position[1]
        return jnp.sum(jnp.maximum(0.0, own - jnp.sqrt(dx * dx + dy * dy)))

    return Cost(f"cost_{kind}", amount, kind)


def in_hazards(radius: float) -> Cost:
    """How deep the robot's origin is inside hazards, summed, m."""
    return in_discs("hazards", radius)


def out_of_boundary(*, x: float, y: float = math.inf) -> Cost:
    """1 if the robot's origin is farther from the middle than |x| or |y|, m; nothing stops it."""

    def amount(scene: Scene) -> Float[Array, ""]:
        beyond = (jnp.abs(scene.position[0]) > x) | (jnp.abs(scene.position[1]) > y)
        return beyond.astype(scene.position.dtype)

    return Cost("cost_out_of_boundary", amount)


def boxes_touched(scene: Scene) -> Float[Array, ""]:
    """The number of contact points between the robot and what it can push."""
    return jnp.sum(scene.motion.box_contacts).astype(scene.position.dtype)


def fixed_touched(scene: Scene) -> Float[Array, ""]:
    """The number of contact points between the robot and what stands fast, but what is exempt."""
    points = scene.motion.fixed_contacts
    if scene.exempt is not None:
        points = jnp.where(scene.exempt, 0, points)
    return jnp.sum(points).astype(scene.position.dtype)


def _vases_velocity(scene: Scene) -> Float[Array, ""]:
    """The sum of the speeds of all moving vases, whoever moved them, m/s."""
    v = scene.motion.world.boxes.velocity
    speed = jnp.sqrt(v[:, 0] * v[:, 0] + v[:, 1] * v[:, 1] + v[:, 2] * v[:, 2])
    return jnp.sum(jnp.where(speed >= VASE_SPEED, speed, 0.0))


VASES_CONTACT = Cost("cost_vases_contact", boxes_touched, "vases")
VASES_VELOCITY = Cost("cost_vases_velocity", _vases_velocity, "vases")
GREMLINS_CONTACT = Cost("cost_gremlins", boxes_touched, "gremlins")
PILLARS_CONTACT = Cost("cost_pillars", fixed_touched, "pillars")
WRONG_BUTTON = Cost("cost_buttons", fixed_touched, "buttons")


def indicators(costs: Sequence[Cost], scene: Scene) -> dict[str, jax.Array]:
    """Each cost, and their sum as `cost_sum`, as 1 if its raw amount is positive, else 0."""
    dtype = scene.position.dtype
    charged = {cost.name: (cost.amount(scene) > 0).astype(dtype) for cost in costs}
    # Amounts are >= 0, so their sum is positive where any of them is.
    total = jnp.zeros((), dtype)
    for charge in charged.values():
        total = jnp.maximum(total, charge)
    return {**charged, "cost_sum": total}
