"""Ten physics steps of an island under contacts, and whether the robot would have any.

What all robots have in common: the boxes, and the order of things. How a kind of robot moves, and
what it touches, is its `Mechanics`.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.compilation import one_kernel
from smpo_envs.safety_gym import batched, contact, gremlins
from smpo_envs.safety_gym.boxes import Body
from smpo_envs.safety_gym.broadphase import Outline
from smpo_envs.safety_gym.contact import LENGTH
from smpo_envs.safety_gym.island import Island, Spring, Surroundings, rotated
from smpo_envs.safety_gym.robot import Timing
from smpo_envs.safety_gym.scalars import rotation_matrices
from smpo_envs.safety_gym.solver import Inertia

GRAVITY = 9.81
# Environments up to which it pays to step them, and to look ahead, in one kernel on a CPU: it takes
# longer to compile, and with more of them it is computing that takes time.
FEW, _FEW_AHEAD = 32, 16


class Acting(NamedTuple):
    """What acts at a state.

    Attributes:
        boxes: accelerations of the boxes (twists, solver units).
        robot: what its own `advance` needs.
        warm: a guess for the next step's contacts.
        felt: acceleration of the robot, as its sensors take it but in world axes.
        touching_fixed: contact points of the robot with each fixed thing.
        touching: contact points of the robot with each box.
    """

    boxes: Float[Array, "6 K B"]
    robot: Any
    warm: Any
    felt: Float[Array, "3 B"]
    touching_fixed: Int[Array, "F B"]
    touching: Int[Array, "K B"]


class Mechanics(Protocol):
    """How a kind of robot moves among things. Batches come last, but where said otherwise."""

    @property
    def timing(self) -> Timing:
        """Physics steps."""
        ...

    @property
    def outline(self) -> Outline:
        """The robot as seen from above."""
        ...

    def gather(self, robot: Any) -> Any:
        """Coordinates in world axes, about where it started, of states with the batch in front."""
        ...

    def scatter(self, robot: Any, begin: Any, end: Any) -> Any:
        """The state, batch in front, with what happened between two of its coordinates."""
        ...

    def felt(self, robot: Any, acceleration: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
        """An acceleration in world axes, as the sensors take it."""
        ...

    def controls(self, action: Float[Array, "2 B"]) -> Any:
        """What an action does to the actuators."""
        ...

    def unwarmed(self, island: Island) -> Any:
        """`Acting.warm` before the first step."""
        ...

    def act(
        self, surroundings: Surroundings, island: Island, boxes: "Boxes", control: Any, warm: Any
    ) -> Acting:
        """Accelerations under contacts."""
        ...

    def advance(self, coordinates: Any, control: Any, acting: Acting) -> Any:
        """The robot after a physics step."""
        ...

    @property
    def steps_in_one_kernel(self) -> bool:
        """Whether a CPU is to step a group in one kernel, rather than `act` having its own ones.

        That takes a CPU's compiler long if there are many operations, and no product of matrices
        can be in it, which XLA leaves to a library.
        """
        ...

    @property
    def grazing(self) -> float:
        """A little more than a free step and `path` differ by, m."""
        ...

    def path(self, begin: Any, end: Any, control: Any) -> Any:
        """Coordinates before each physics step of an environment step without contacts, and after.

        They have one more axis in front. `end` is where the step leads.
        """
        ...

    def gap(
        self, surroundings: Surroundings, island: Island, rotation: Float[Array, "3 3 K B"]
    ) -> Float[Array, " B"]:
        """Distance of what is nearest to the robot, as far as that is within reach."""
        ...


class Boxes(NamedTuple):
    """The boxes of an island without contacts, and how they resist them.

    Attributes:
        rotation: body to world.
        free: accelerations without contacts (twists, solver units).
        inertia: as the solver takes it.
    """

    rotation: Float[Array, "3 3 K B"]
    free: Float[Array, "6 K B"]
    inertia: Inertia


def _boxes(
    surroundings: Surroundings, island: Island, target: Float[Array, "3 K B"] | None
) -> Boxes:
    """The boxes at a state; `target` is where springs would have them, if there are any."""
    rotation = rotation_matrices(island.quaternion)
    if surroundings.body is None:
        free = jnp.concatenate([island.velocity, island.spin])  # of no boxes
        return Boxes(rotation, free, Inertia(island.position[0], rotation))
    if surroundings.spring is None:
        return _free_fall(surroundings.body, island, rotation)
    assert target is not None
    return _spring_held(surroundings.spring, target, island, rotation)


def _free_fall(body: Body, island: Island, rotation: Float[Array, "3 3 K B"]) -> Boxes:
    """Boxes under gravity; one whose moments of inertia differ precesses."""
    spin = island.spin
    across, upright = body.inertia
    precession = (upright - across) / across
    turning = precession * spin[2] * jnp.stack([-spin[1], spin[0], jnp.zeros_like(spin[0])])
    fall = jnp.zeros_like(island.velocity).at[2].set(-GRAVITY)
    up = rotation[:, 2]
    eye = jnp.eye(3, dtype=spin.dtype)[:, :, None, None]
    unit = contact.MASS * LENGTH**2
    angular = (across * eye + (upright - across) * batched.outer(up, up)) / unit
    mass = jnp.full(spin.shape[1:], body.mass / contact.MASS, spin.dtype)
    return Boxes(rotation, _twist(fall, turning, rotation), Inertia(mass, angular))


def _spring_held(
    spring: Spring, target: Float[Array, "3 K B"], island: Island, rotation: jax.Array
) -> Boxes:
    """Gremlins under gravity and their springs."""
    turn = gremlins.rotation_between(island.quaternion, spring.quaternion)
    error = target - island.position
    (pull, turning), (mass, angular) = gremlins.spring_response(
        error, island.velocity, turn, island.spin
    )
    # From body to world axes: R A Rᵀ.
    half_way = batched.total(rotation[:, i][:, None] * angular[i] for i in range(3))
    angular = batched.total(half_way[:, i][:, None] * rotation[:, i] for i in range(3))
    return Boxes(rotation, _twist(pull, turning, rotation), Inertia(mass, angular))


def _twist(linear: jax.Array, turning: jax.Array, rotation: jax.Array) -> Float[Array, "6 K B"]:
    """Accelerations of boxes; `turning` is along their own axes."""
    return jnp.concatenate([linear, LENGTH * batched.apply(rotation, turning)])


def _integrate(
    mechanics: Mechanics, island: Island, control: Any, boxes: Boxes, acting: Acting
) -> Island:
    """One semi-implicit Euler step."""
    h = mechanics.timing.timestep
    velocity = island.velocity + h * acting.boxes[:3]
    angular = acting.boxes[3:] / LENGTH
    spin = island.spin + h * batched.apply_transposed(boxes.rotation, angular)
    return Island(
        mechanics.advance(island.robot, control, acting),
        island.position + h * velocity,
        rotated(island.quaternion, h * spin),
        velocity,
        spin,
    )


class IslandMotion(NamedTuple):
    """What came of an environment step on an island.

    Attributes:
        end: the new state.
        acceleration: of the robot there, world axes.
        touching_fixed: contact points of the robot with each fixed thing there.
        touching: contact points of the robot with each box there.
    """

    end: Island
    acceleration: Float[Array, "B 3"]
    touching_fixed: Int[Array, "B F"]
    touching: Int[Array, "B K"]


def simulate_contacts(
    mechanics: Mechanics, surroundings: Surroundings, island: Island, action: Float[Array, "B 2"]
) -> IslandMotion:
    """Ten physics steps."""
    control = mechanics.controls(action.T)
    start = (island, mechanics.unwarmed(island))
    small = island.position.shape[-1] <= FEW and mechanics.steps_in_one_kernel
    (island, _), seen = one_kernel(_steps, mechanics, surroundings, control, start, pays=small)
    felt, touching_fixed, touching = (x[-1] for x in seen)
    return IslandMotion(island, felt.T, touching_fixed.T, touching.T)


def _steps(
    mechanics: Mechanics, surroundings: Surroundings, control: Any, start: Any
) -> tuple[Any, Any]:
    # After the last step the accelerations are wanted once more; a scan of its own length keeps the
    # contact code to a single copy, which halves the time to compile.
    def substep(carry: Any, now: Any) -> tuple[Any, Any]:
        island, warm = carry
        moves, target = now
        boxes = _boxes(surroundings, island, target)
        acting = mechanics.act(surroundings, island, boxes, control, warm)
        after = _integrate(mechanics, island, control, boxes, acting)
        island = jax.tree.map(lambda old, new: jnp.where(moves, new, old), island, after)
        return (island, acting.warm), (acting.felt, acting.touching_fixed, acting.touching)

    substeps = mechanics.timing.substeps
    moves = jnp.arange(substeps + 1) < substeps
    return jax.lax.scan(
        substep, start, (moves, surroundings.spring.target if surroundings.spring else None)
    )


def would_touch(
    mechanics: Mechanics,
    surroundings: Surroundings,
    island: Island,
    free: Any,
    displacement: Float[Array, "3 B"],
    action: Float[Array, "B 2"],
) -> Bool[Array, " B"]:
    """Whether the robot would touch something within an environment step if nothing moved it.

    Args:
        mechanics: of the robot.
        surroundings: what is around.
        island: the state.
        free: coordinates of the robot after the step, if it touches nothing.
        displacement: by which all boxes are taken to move, steadily, m.
        action: of the step.
    """
    path = mechanics.path(island.robot, free, mechanics.controls(action.T))
    near = _Near(surroundings, island, displacement, rotation_matrices(island.quaternion))
    few = island.position.shape[-1] <= _FEW_AHEAD
    # A CPU is faster with what fits into its cache, an accelerator with one wide look.
    gaps = one_kernel(_gaps_in_turn, mechanics, near, path, elsewhere=_gaps_at_once, pays=few)
    return gaps.min(0) <= mechanics.grazing


class _Near(NamedTuple):
    """What the robot might touch, before anything has moved."""

    surroundings: Surroundings
    island: Island
    displacement: Float[Array, "3 B"]  # of all boxes, by the end
    rotation: Any  # of the boxes


def _gaps_in_turn(mechanics: Mechanics, near: _Near, path: Any) -> Float[Array, "T B"]:
    """How far the robot is from touching anything, in each physics step."""
    return jax.lax.map(partial(_gap, mechanics, near), _numbered(mechanics, near, path))


def _gaps_at_once(mechanics: Mechanics, near: _Near, path: Any) -> Float[Array, "T B"]:
    return jax.vmap(partial(_gap, mechanics, near))(_numbered(mechanics, near, path))


def _numbered(mechanics: Mechanics, near: _Near, path: Any) -> tuple[Float[Array, " T"], Any]:
    return jnp.arange(mechanics.timing.substeps + 1, dtype=near.displacement.dtype), path


def _gap(mechanics: Mechanics, near: _Near, now: tuple[Any, Any]) -> Float[Array, " B"]:
    number, robot = now
    moved = number * (near.displacement[:, None] / mechanics.timing.substeps)
    island = near.island._replace(robot=robot, position=near.island.position + moved)
    return mechanics.gap(near.surroundings, island, near.rotation)
