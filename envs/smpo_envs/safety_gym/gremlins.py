"""Gremlins: light cubes that hover on circles about their place, each held by a soft spring.

Their targets all move in phase, so gremlins that nothing has touched do, too: one common motion is
followed for all of them, and a `FreeBoxes` of gremlins holds where they are beside it. A gremlin
that nobody has touched thus never changes, like a vase that stands.

The spring is the simulator's weld (specification, section 4.3): a soft constraint on position and
orientation, with the impedance of contacts and a damping of its own. Being quadratic, it acts like
more mass and another free acceleration, which is how the contact solver sees it.

Array layout of `spring_response` and `target` as in `batched`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_envs.safety_gym import contact
from smpo_envs.safety_gym.batched import cross, dot, outer, repeated
from smpo_envs.safety_gym.boxes import cube
from smpo_envs.safety_gym.robot import Timing

# Deviation: gremlins pass through each other. They are 0.2 m wide and their places 0.7 m apart or
# more; in the recordings none is ever further than 0.13 m beside the common motion.
GREMLIN = cube(0.1, 8e-6, height=0.1, on_floor=False, collide_with_each_other=False)
TRAVEL = 0.35  # radius of the circles, m
RISE = 0.1  # of the targets above where gremlins start: they hover
GRAVITY = 9.81

_DAMPING_RATIO = 1.5
_STIFFNESS = contact.STIFFNESS / _DAMPING_RATIO**2
# Version 2 of the simulator weighs turning, too, by a gremlin's inverse mass, where the inverse of
# its moment of inertia is meant (mended in 3.0.0): the spring resists it as many times as much.
_TURN_STIFFER = GREMLIN.mass / GREMLIN.inertia[0]


class Circling(NamedTuple):
    """What all gremlins do, and where each one would be.

    Attributes:
        step: environment steps since reset.
        offset: of an untouched gremlin from its place, m.
        velocity: of the same.
        home: the place and heading of each gremlin: x, y, rad.
    """

    step: Int[Array, ""]
    offset: Float[Array, " 3"]
    velocity: Float[Array, " 3"]
    home: Float[Array, "V 3"]


def start(home: Float[Array, "V 3"]) -> Circling:
    """As an episode begins; the targets jump onto their circles with the first step."""
    zero = jnp.zeros(3, home.dtype)
    return Circling(jnp.int32(0), zero, zero, home)


def simulate_free(circling: Circling, timing: Timing) -> Circling:
    """One environment step of the common motion."""
    goals = targets(circling.step, timing)

    def substep(i, carry):
        offset, velocity = carry
        error = goals[i] - offset
        yielding = 1 - contact.impedance(jnp.sqrt(dot(error, error)))
        velocity = velocity + timing.timestep * _spring_acceleration(error, velocity, yielding)
        return offset + timing.timestep * velocity, velocity

    carry = (circling.offset, circling.velocity)
    offset, velocity = repeated(timing.substeps, substep, carry)
    return circling._replace(step=circling.step + 1, offset=offset, velocity=velocity)


def targets(step: Int[Array, "*b"], timing: Timing) -> Float[Array, "T 3 *b"]:
    """Where the targets are, from their gremlins' places, in each physics step and after them.

    For what is felt after the last one they stay where that had them.
    """
    angle = step * jnp.asarray(timing.seconds, jnp.result_type(float))
    phases = [timing.timestep * min(k, timing.substeps - 1) for k in range(timing.substeps + 1)]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    steps = [
        jnp.stack(
            [
                TRAVEL * (sin * math.cos(phase) + cos * math.sin(phase)),
                TRAVEL * (cos * math.cos(phase) - sin * math.sin(phase)),
                jnp.full_like(sin, RISE),
            ]
        )
        for phase in phases
    ]
    return jnp.stack(steps)


def spring_response(
    error: Float[Array, "3 *s"],
    velocity: Float[Array, "3 *s"],
    turn: Float[Array, "4 *s"],
    spin: Float[Array, "3 *s"],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """What a gremlin does under gravity and its spring, and how it resists anything else.

    With D = d / (1 - d) times the mass, an acceleration a costs |a - g|² + D |J a - a_ref|²: the
    minimum is the acceleration, the curvature the apparent mass. Turning by q = (w, e) towards the
    target, the spring sees the vector part e, whose rate is J ω = -½ (w ω + ω × e); its D is
    `_TURN_STIFFER` times as much.

    Args:
        error: from the gremlin to its target, world axes.
        velocity: of the gremlin.
        turn: the unit quaternion q in the gremlin's axes.
        spin: its angular velocity ω, body axes.

    Returns:
        accelerations: linear (world axes) and angular (body axes).
        inertia: apparent mass, and inertia (body axes, 3 x 3), in units of its own.
    """
    w, e = turn[0], turn[1:]
    square = dot(e, e)
    impedance = contact.impedance(jnp.sqrt(dot(error, error) + square))
    yielding = 1 - impedance
    stiffer = _TURN_STIFFER * impedance / yielding
    # JᵀJ = ¼ (1 - e eᵀ), so the inertia is α - β e eᵀ; its inverse by Sherman and Morrison.
    alpha, beta = 1 + stiffer / 4, stiffer / 4
    torque = stiffer * (
        (_STIFFNESS / 2) * impedance * w * e - (contact.DAMPING / 4) * (spin - e * dot(e, spin))
    )
    turning = (torque + e * (beta * dot(e, torque) / (alpha - beta * square))) / alpha
    eye = np.eye(3).reshape(3, 3, *(1,) * (e.ndim - 1))
    angular = alpha * jnp.asarray(eye, e.dtype) - beta * outer(e, e)
    return (_spring_acceleration(error, velocity, yielding), turning), (1 / yielding, angular)


def rotation_between(quaternion: Float[Array, "4 *s"], target: Float[Array, "4 *s"]) -> jax.Array:
    """The rotation from one orientation to another, in the axes of the first."""
    w, v, tw, tv = quaternion[0], -quaternion[1:], target[0], target[1:]
    return jnp.concatenate([(w * tw - dot(v, tv))[None], w * tv + tw * v + cross(v, tv)])


def _spring_acceleration(
    error: jax.Array, velocity: jax.Array, yielding: jax.Array
) -> Float[Array, "3 *s"]:
    """Linear acceleration: (1 - d) g + d (k d e - b v)."""
    impedance = 1 - yielding
    pull = impedance * (_STIFFNESS * impedance * error - contact.DAMPING * velocity)
    return pull.at[2].add(-GRAVITY * yielding)
