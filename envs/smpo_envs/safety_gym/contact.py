"""The contact law: soft constraints with a friction pyramid, as the original's simulator has them.

A contact between two bodies sees their relative acceleration x and velocity v at the contact point
as six numbers: along the normal and two tangents, and about the normal (spin) and the tangents
(rolling). The pyramid has ten rows, normal ± μᵢ (i-th tangential or angular component), and the law
asks of each row that its acceleration reach at least a reference,

    a_ref = -b (row velocity) - k d r,

r < 0 being the distance and d(r) the impedance. It is a soft demand: the true acceleration
minimises the Gauss function plus the penalty Σ 1/(2ρ) min(0, row acceleration - a_ref)².

Units inside the solver: a vase's mass is the unit of mass, and its radius of gyration the unit of
length for angular quantities, so the mass matrix of a vase is the identity and all stiffnesses are
of the order of 1. That is what makes single precision work for bodies of 8e-6 kg.
Array layout as in `batched`: components first, batch last. A *twist* is a pair of vectors (linear
of a body's reference point, angular) stacked to six components, a *wrench* its dual.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.compilation import stored
from smpo_envs.safety_gym.batched import (
    apply,
    apply_transposed,
    cross,
    dot,
    outer,
    total,
)
from smpo_envs.safety_gym.boxes import VASE
from smpo_envs.safety_gym.collision import Touch

MASS = VASE.mass
LENGTH = (VASE.inertia[0] / VASE.mass) ** 0.5

DEFAULT_FRICTION = (1.0, 1.0, 0.005, 0.0001, 0.0001)  # two slides, spin, two rolls
SPHERE_FRICTION = (1.0, 1.0, 0.01, 0.01, 0.01)  # of the Point's sphere, which outdoes a vase's
# Translational inverse weight, 1/kg: how easily a body gives way. 0 for what stands fast.
POINT_WEIGHT = 128.482100905082

_TIME_CONSTANT = 0.02
_MIN_IMPEDANCE, _MAX_IMPEDANCE, _WIDTH = 0.9, 0.95, 0.001
DAMPING = 2 / (_MAX_IMPEDANCE * _TIME_CONSTANT)  # b
STIFFNESS = 1 / (_MAX_IMPEDANCE * _TIME_CONSTANT) ** 2  # k


class Rows(NamedTuple):
    """Contacts as the solver sees them: ten rows each, `slide[0]` ± one of the other five.

    Attributes:
        slide: rows of the normal and the two tangents; they multiply a whole twist.
        turn: rows of spin and the two rolls, friction coefficient and all; they multiply its
            angular half.
        bias: the six components at zero unknown, minus those of the reference acceleration.
        stiffness: 1/ρ; 0 in a slot without contact.
    """

    slide: Float[Array, "3 6 *s"]
    turn: Float[Array, "3 3 *s"]
    bias: Float[Array, "6 *s"]
    stiffness: Float[Array, "*s"]


def impedance(distance: jax.Array) -> jax.Array:
    """d(r): from 0.9 at touch to 0.95 at 1 mm depth and more, in two parabolas."""
    x = jnp.minimum(jnp.abs(distance) / _WIDTH, 1)
    rise = jnp.where(x <= 0.5, 2 * x * x, 1 - 2 * (1 - x) ** 2)
    return _MIN_IMPEDANCE + (_MAX_IMPEDANCE - _MIN_IMPEDANCE) * rise


def frame(normal: Float[Array, "3 *s"]) -> tuple[jax.Array, jax.Array]:
    """Two tangents: the y axis (for normals near y: the z axis) made orthogonal, and n × it."""
    near_y = jnp.abs(normal[1]) >= 0.5
    zero = jnp.zeros_like(normal[0])
    axis = jnp.stack([zero, jnp.where(near_y, 0, zero + 1), jnp.where(near_y, zero + 1, 0)])
    tangent = axis - normal * dot(axis, normal)
    tangent = tangent * jax.lax.rsqrt(dot(tangent, tangent))
    return tangent, cross(normal, tangent)


class Slots(NamedTuple):
    """Some contact slots, and what is known of the two bodies in each.

    Attributes:
        touch: where the bodies touch.
        friction: the five coefficients of the pair.
        weight: sum of the two bodies' translational inverse weights, 1/kg.
        reference: the point whose twist the rows multiply.
    """

    touch: Touch
    friction: Float[Array, "5 *#s"]
    weight: Float[Array, "*#s"]
    reference: Float[Array, "3 *s"]


def rows(slots: Slots, drift: Float[Array, "6 *s"]) -> Rows:
    """The rows of some contact slots.

    Args:
        slots: the slots.
        drift: relative twist a₀ + b v: acceleration without contact plus damped velocity.
    """
    touch = slots.touch
    slides, turns = slots.friction[0], slots.friction[2:]
    lever = (touch.point - slots.reference) / LENGTH
    lever, axes = stored((lever, (touch.normal, *frame(touch.normal))))
    slide = jnp.stack(
        [
            c * jnp.concatenate([e, cross(lever, e)])
            for c, e in zip((1.0, slides, slides), axes, strict=True)
        ]
    )
    turn = jnp.stack([c / LENGTH * e for c, e in zip(turns, axes, strict=True)])
    slide, turn = stored((slide, turn))

    d = impedance(touch.distance)
    bias = components(slide, turn, drift).at[0].add(STIFFNESS * d * touch.distance)
    # ρ = 2 μ₁² (1 - d)/d (w_A + w_B)(1 + μ₁²), and forces are in units of the vase's mass.
    softness = 2 * slides**2 * (1 + slides**2) * slots.weight * MASS
    stiffness = jnp.where(touch.distance < 0, d / ((1 - d) * softness), 0)
    return Rows(slide, turn, bias, stiffness)


def components(
    slide: Float[Array, "3 6 *s"], turn: Float[Array, "3 3 *s"], twist: Float[Array, "6 *s"]
) -> Float[Array, "6 *s"]:
    """The six components of a relative twist, friction coefficients included."""
    return jnp.concatenate([apply(slide, twist), apply(turn, twist[3:])])


def wrench(contacts: Rows, value: Float[Array, "6 *s"]) -> Float[Array, "6 *s"]:
    """Gradient of the penalty with respect to the relative twist, per slot.

    `value` are the six components, bias included.
    """
    plus, minus = violation(value)
    f = contacts.stiffness * (plus - minus)
    normal = contacts.stiffness * total(plus + minus)
    along, about = (normal, f[0], f[1]), f[2:]
    along, about = stored((jnp.stack(along), about))
    both = apply_transposed(contacts.slide, along)
    turning = apply_transposed(contacts.turn, about)
    return jnp.concatenate([both[:3], both[3:] + turning])


class Curvature(NamedTuple):
    """Blocks of a symmetric matrix on twists: linear-linear, linear-angular, angular-angular."""

    linear: Float[Array, "3 3 *s"]
    mixed: Float[Array, "3 3 *s"]
    angular: Float[Array, "3 3 *s"]


def curvature(contacts: Rows, value: Float[Array, "6 *s"]) -> Curvature:
    """Second derivative of the penalty with respect to the relative twist, per slot.

    Over the active rows (n ± g): Σ (n ± g)(n ± g)ᵀ = n wᵀ + w nᵀ + Σ count g gᵀ,
    w = Σ count/2 n + Σ ± g.
    """
    plus, minus = active(value)
    count, sign = contacts.stiffness * (plus + minus), contacts.stiffness * (plus - minus)
    half, count, sign = stored((total(count) / 2, count, sign))
    n, g = contacts.slide[0], contacts.slide[1:]
    w = half * n + sign[0] * g[0] + sign[1] * g[1]
    turning = apply_transposed(contacts.turn, sign[2:])
    w = stored(jnp.concatenate([w[:3], w[3:] + turning]))
    sides = ((n, w), (w, n), (count[0] * g[0], g[0]), (count[1] * g[1], g[1]))
    turns = ((count[2 + i] * contacts.turn[i], contacts.turn[i]) for i in range(3))
    return Curvature(
        linear=total(outer(a[:3], b[:3]) for a, b in sides),
        mixed=total(outer(a[:3], b[3:]) for a, b in sides),
        angular=total(outer(a, b) for a, b in (*((a[3:], b[3:]) for a, b in sides), *turns)),
    )


def violation(value: Float[Array, "6 *s"]) -> tuple[jax.Array, jax.Array]:
    """How far the ten rows fall short of their reference: min(0, n ± g), each [5, *s]."""
    return jnp.minimum(value[0] + value[1:], 0), jnp.minimum(value[0] - value[1:], 0)


def active(value: Float[Array, "6 *s"]) -> tuple[jax.Array, jax.Array]:
    """1 for the rows that fall short, 0 for the others."""
    one = jnp.ones((), value.dtype)
    return (
        jnp.where(value[0] + value[1:] < 0, one, 0),
        jnp.where(value[0] - value[1:] < 0, one, 0),
    )
