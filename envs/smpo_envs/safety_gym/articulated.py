"""The accelerations of a robot with any freedoms and some boxes under all their contacts.

The same energy and the same method as in `solver`, for robots that are more than one rigid body in
the plane: a contact is six rows over all unknowns, written out. Arrays have the batch in front, so
that the sums over rows are products of matrices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safety_gym import solver

_HIGHEST = jax.lax.Precision.HIGHEST  # accelerators would round to 10 bits or fewer


class System(NamedTuple):
    """What is to be solved (solver units, see `contact`).

    Attributes:
        mass: of all unknowns.
        rows: of each contact slot the normal, two tangents, spin and two rolls over the unknowns,
            friction coefficients included.
        bias: these six at zero unknown, minus those of the reference acceleration.
        stiffness: 1/ρ; 0 in a slot without contact.
    """

    mass: Float[Array, "B N N"]
    rows: Float[Array, "B S 6 N"]
    bias: Float[Array, "B S 6"]
    stiffness: Float[Array, "B S"]


def newton(system: System, start: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """What contacts add to the accelerations without them: the minimiser of the energy.

        ½ yᵀ M y + Σ 1/(2ρ) min(0, n ± g)²,  (n, g) = rows y + bias

    Newton's method with a line search ends after finitely many changes of the active rows; after
    `solver.MAX_ITERATIONS` it stops where it is.
    """
    eps = jnp.finfo(start.dtype).eps
    tolerance = (100 * eps * jnp.abs(system.bias[..., 0]).max(1)) ** 2

    def unfinished(carry):
        _, _, done, iterations = carry
        return ~done.all() & (iterations < solver.MAX_ITERATIONS)

    def improve(carry):
        y, value, done, iterations = carry
        gradient = _gradient(system, y, value)
        table = jnp.concatenate([_hessian(system, value), -gradient[..., None]], axis=-1)
        step = solver.solve_positive(jnp.moveaxis(table, 0, -1)).T
        change = _components(system, step)
        decrement = -jnp.sum(gradient * step, axis=-1)
        t, exact = _line_search(system, y, value, step, change, decrement)
        t = jnp.where(done, 0, t)
        y, value = y + t[:, None] * step, value + t[:, None, None] * change
        return y, value, done | (decrement <= tolerance) | exact, iterations + 1

    value = _components(system, start) + system.bias
    done = jnp.zeros(start.shape[:1], bool)
    y, *_ = jax.lax.while_loop(unfinished, improve, (start, value, done, jnp.int32(0)))
    return y


def _components(system: System, y: Float[Array, "B N"]) -> Float[Array, "B S 6"]:
    return jnp.einsum("bscn,bn->bsc", system.rows, y, precision=_HIGHEST)


def _short(value: Float[Array, "B S 6"]) -> tuple[jax.Array, jax.Array]:
    """How far the ten rows fall short of their reference: min(0, n ± g), each [B, S, 5]."""
    normal, others = value[..., :1], value[..., 1:]
    return jnp.minimum(normal + others, 0), jnp.minimum(normal - others, 0)


def _gradient(system: System, y: Float[Array, "B N"], value: jax.Array) -> Float[Array, "B N"]:
    """First derivative of the energy."""
    plus, minus = _short(value)
    along = jnp.sum(plus + minus, axis=-1, keepdims=True)
    force = system.stiffness[..., None] * jnp.concatenate([along, plus - minus], axis=-1)
    pushed = jnp.einsum("bscn,bsc->bn", system.rows, force, precision=_HIGHEST)
    return pushed + jnp.einsum("bnm,bm->bn", system.mass, y, precision=_HIGHEST)


def _hessian(system: System, value: Float[Array, "B S 6"]) -> Float[Array, "B N N"]:
    """Second derivative of the energy: of a slot, Σ (n ± g)(n ± g)ᵀ over its active rows."""
    plus, minus = (x < 0 for x in _short(value))
    k = system.stiffness[..., None]
    both = k * (plus.astype(value.dtype) + minus)
    sign = k * (plus.astype(value.dtype) - minus)
    normal, others = system.rows[:, :, :1], system.rows[:, :, 1:]
    first = both.sum(-1)[..., None, None] * normal
    first += jnp.sum(sign[..., None] * others, axis=2, keepdims=True)
    rest = sign[..., None] * normal + both[..., None] * others
    weighted = jnp.concatenate([first, rest], axis=2)
    squares = jnp.einsum("bscn,bscm->bnm", system.rows, weighted, precision=_HIGHEST)
    return system.mass + squares


def _line_search(
    system: System,
    y: Float[Array, "B N"],
    value: Float[Array, "B S 6"],
    step: Float[Array, "B N"],
    change: Float[Array, "B S 6"],
    decrement: Float[Array, " B"],
) -> tuple[jax.Array, jax.Array]:
    """How far to go, and whether that is the minimum; as `solver` does it."""
    momentum = jnp.einsum("bnm,bm->bn", system.mass, step, precision=_HIGHEST)
    inertia = jnp.sum(momentum * step, axis=-1)
    (was_plus, was_minus), (plus, minus) = _short(value), _short(value + change)
    normal, others = change[..., :1], change[..., 1:]
    slopes = plus * (normal + others) + minus * (normal - others)
    bends = jnp.where(plus < 0, (normal + others) ** 2, 0)
    bends += jnp.where(minus < 0, (normal - others) ** 2, 0)
    flips = ((plus < 0) != (was_plus < 0)) | ((minus < 0) != (was_minus < 0))
    slope = jnp.sum(momentum * y, axis=-1) + inertia
    slope += jnp.sum(system.stiffness[..., None] * slopes, axis=(1, 2))
    bend = inertia + jnp.sum(system.stiffness[..., None] * bends, axis=(1, 2))
    flipped = jnp.any(flips & (system.stiffness[..., None] > 0), axis=(1, 2))
    full = jnp.abs(slope) <= 0.1 * decrement
    bend = jnp.maximum(bend, jnp.finfo(bend.dtype).tiny)
    t = jnp.where(full, bend, jnp.where(slope < bend, bend - slope, bend / 2)) / bend
    return t, full & ~flipped
