"""Bodies made of boxes that can be pushed: they lie on the floor or hover, and move freely."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safety_gym.collision import Half


class Corners(NamedTuple):
    """Four boxes fixed to a body around its corners, upright with it."""

    offset: float  # of their centres from the body's, along both of its axes, m
    half: Half


@dataclass(frozen=True)
class Body:
    """A kind of body: an upright box, perhaps with others around its corners (SI units).

    Attributes:
        core: the box in the middle.
        mass: of the whole.
        inertia: about a horizontal axis through the centre, and about the vertical.
        height: of the centre at reset.
        weight: translational inverse weight, which the contact law takes for how easily the body
            gives way, 1/kg.
        on_floor: whether it ever touches the floor.
        collide_with_each_other: whether two of them ever touch each other.
        most_at_once: how many are simulated with contacts at once, at most. Deviation: if more are
            moving or near the robot, those of the least priority wait.
        activity: share of an episode in which one moves or may be touched, roughly; decides on
            speed, not on results.
        resting_speed: m/s below which a body that the robot does not touch is put to rest; None: as
            soon as arithmetic allows.
        initial_fall: m/s with which it begins to settle; 0 if it needn't.
        corners: the others.
    """

    core: Half
    mass: float
    inertia: tuple[float, float]
    height: float
    weight: float
    on_floor: bool = True
    collide_with_each_other: bool = True
    most_at_once: int = 2
    activity: float = 1 / 256
    resting_speed: float | None = None
    initial_fall: float = 0.0
    corners: Corners | None = None

    @property
    def outline(self) -> float:
        """Half width of the square around the body, m."""
        if self.corners is None:
            return self.core.x
        return max(self.core.x, self.corners.offset + self.corners.half.x)

    @property
    def is_cube(self) -> bool:
        """Whether it looks the same whichever of its faces it stands on."""
        return self.corners is None and self.core.x == self.core.z


def cube(half: float, mass: float, **fields) -> Body:
    """A cube; fields as of `Body`."""
    inertia = mass * (2 * half) ** 2 / 6  # about any axis through the centre
    return Body(Half(half, half, half), mass, (inertia, inertia), weight=1 / mass, **fields)


# Deviation: the original lets vases settle for ever; a rest at a fifth of the speed that is charged
# for keeps most of them out of the solver. They begin 4e-5 m deep in the floor.
VASE = cube(0.1, 8e-6, height=0.09996, most_at_once=3, resting_speed=2e-5)


def _push_box(half: float, mass: float, inertia: tuple[float, float], weight: float) -> Body:
    """A cube with four posts of half its width around its corners.

    It begins exactly on the floor, into which it then sinks; what stands still is not looked after,
    so it begins with a fall too slow to matter.
    """
    return Body(
        core=Half.square(half, half),
        corners=Corners(half, Half.square(half / 2, half)),
        mass=mass,
        inertia=inertia,
        height=half,
        weight=weight,
        initial_fall=1e-9,
        collide_with_each_other=False,
        activity=1 / 16,  # pushed all the time once a policy has learnt to
    )


PUSH_BOX = _push_box(0.2, 1.28e-4, (5.333333333333333e-6, 7.253333333333333e-6), weight=7812.5)
# As the Car is given it.
SMALL_PUSH_BOX = _push_box(
    0.125, 1.5625e-5, (2.5431315104166666e-7, 3.4586588541666664e-7), weight=64000.0
)


class FreeBoxes(NamedTuple):
    """`V` bodies of one kind; `V` may be 0.

    Attributes:
        position: world position of the centres.
        quaternion: orientation, w x y z.
        velocity: of the centres, world axes.
        angular_velocity: body axes.
    """

    position: Float[Array, "V 3"]
    quaternion: Float[Array, "V 4"]
    velocity: Float[Array, "V 3"]
    angular_velocity: Float[Array, "V 3"]


def at_rest(
    body: Body, position_xy: Float[Array, "*b V 2"], rotation: Float[Array, "*b V"]
) -> FreeBoxes:
    """Bodies as they stand at reset, turned about the vertical by `rotation`."""
    zeros = jnp.zeros_like(rotation)
    return FreeBoxes(
        position=jnp.concatenate([position_xy, (zeros + body.height)[..., None]], axis=-1),
        quaternion=yaw_quaternion(rotation),
        velocity=jnp.stack([zeros, zeros, zeros - body.initial_fall], axis=-1),
        angular_velocity=jnp.zeros((*rotation.shape, 3), rotation.dtype),
    )


def yaw_quaternion(rotation: Float[Array, "*s"]) -> Float[Array, "*s 4"]:
    """The quaternion of a rotation about the vertical, rad."""
    half, zero = rotation / 2, jnp.zeros_like(rotation)
    return jnp.stack([jnp.cos(half), zero, zero, jnp.sin(half)], axis=-1)


def poses(boxes: FreeBoxes) -> Float[Array, "V 3"]:
    """Position in the plane and heading, whichever face a box stands on."""
    w, x, y, z = (boxes.quaternion[:, i] for i in range(4))
    # Of two body axes, the horizontal part of the less upright one: a cube looks alike along both.
    along_x = jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z)])
    along_y = jnp.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z)])
    x_is_up = jnp.sum(along_x**2, axis=0) < jnp.sum(along_y**2, axis=0)
    axis = jnp.where(x_is_up, along_y, along_x)
    return jnp.stack([*boxes.position[:, :2].T, jnp.arctan2(axis[1], axis[0])], axis=1)


def count(boxes: FreeBoxes) -> int:
    """How many bodies there are."""
    return boxes.position.shape[0]
