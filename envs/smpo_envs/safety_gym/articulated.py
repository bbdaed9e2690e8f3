"""The accelerations of a robot with any freedoms and some boxes under all their contacts.

The same energy and the same method as in `solver`, for robots that are more than one rigid body in
the plane: a contact is six rows over the unknowns of the bodies that it is between, written out.
Array layout as in `batched`, but that contact slots come first of all.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.compilation import stored
from smpo_envs.safety_gym import solver
from smpo_envs.safety_gym.batched import Tree, apply, dot, outer, total


class Slots(NamedTuple):
    """Contact slots (solver units, see `contact`).

    Attributes:
        rows: the normal, two tangents, spin and two rolls over the unknowns of the two bodies,
            friction coefficients included.
        bias: these six at zero unknown, minus those of the reference acceleration.
        stiffness: 1/ρ; 0 in a slot without contact.
    """

    rows: Float[Array, "*S 6 n B"]
    bias: Float[Array, "*S 6 B"]
    stiffness: Float[Array, "*S B"]


class Contacts(NamedTuple):
    """All contacts between the same bodies.

    Attributes:
        unknowns: those of the two bodies, begin and end.
        slots: the contacts.
        number: of slots, behind which there is no contact in any member of the batch.
    """

    unknowns: tuple[tuple[int, int], ...]
    slots: Slots
    number: Int[Array, ""] | int


class System(NamedTuple):
    """What is to be solved.

    Attributes:
        mass: of all unknowns.
        contacts: of all bodies.
    """

    mass: Float[Array, "N N B"]
    contacts: list[Contacts]


def newton(system: System, start: Float[Array, "N B"]) -> Float[Array, "N B"]:
    """What contacts add to the accelerations without them: the minimiser of the energy.

        ½ yᵀ M y + Σ 1/(2ρ) min(0, n ± g)²,  (n, g) = rows y + bias

    Newton's method with a line search ends after finitely many changes of the active rows; after
    `solver.MAX_ITERATIONS` it stops where it is.
    """
    eps = jnp.finfo(start.dtype).eps
    most = [jnp.abs(at.slots.bias[:, 0]).max(0) for at in system.contacts]
    tolerance = (100 * eps * jnp.stack(most).max(0)) ** 2

    def unfinished(carry):
        _, done, iterations = carry
        return ~done.all() & (iterations < solver.MAX_ITERATIONS)

    def improve(carry):
        y, done, iterations = carry
        table = stored(_equations(system, y))
        step = stored(solver.eliminate(table))
        decrement = dot(table[:, -1], step)
        t, exact = _line_search(system, y, step, decrement)
        y = y + jnp.where(done, 0, t) * step
        return y, done | (decrement <= tolerance) | exact, iterations + 1

    done = jnp.zeros(start.shape[1:], bool)
    y, *_ = jax.lax.while_loop(unfinished, improve, (start, done, jnp.int32(0)))
    return y


def of_each(slot: Callable[[Tree], Slots], number: Int[Array, ""] | int, places: Tree) -> Slots:
    """`slot(place)` of all places, whose first axis is that of the slots.

    A CPU takes as many as there are in turn, an accelerator all at once.
    """
    every = jax.vmap(slot)

    def in_turn(number: Int[Array, ""], places: Tree) -> Slots:
        def one(s: Int[Array, ""], found: Slots) -> Slots:
            pick = partial(jax.lax.dynamic_index_in_dim, index=s, keepdims=False)
            put = partial(jax.lax.dynamic_update_index_in_dim, index=s, axis=0)
            return jax.tree.map(put, found, slot(jax.tree.map(pick, places)))

        shapes = jax.eval_shape(every, places)
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, number, one, none)

    def at_once(number: Int[Array, ""], places: Tree) -> Slots:
        del number
        return every(places)

    number = jnp.asarray(number, jnp.int32)
    return jax.lax.platform_dependent(number, places, cpu=in_turn, default=at_once)


def _summed(term: Callable[..., jax.Array], contacts: Contacts, *others: jax.Array) -> jax.Array:
    """The sum over slots of `term(slot, *others)`; as `of_each`."""

    def in_turn(number: Int[Array, ""], slots: Slots, *others: jax.Array) -> jax.Array:
        def add(s: Int[Array, ""], sum_so_far: jax.Array) -> jax.Array:
            pick = partial(jax.lax.dynamic_index_in_dim, index=s, keepdims=False)
            return sum_so_far + term(jax.tree.map(pick, slots), *others)

        shape = jax.eval_shape(term, jax.tree.map(lambda x: x[0], slots), *others)
        return jax.lax.fori_loop(0, number, add, jnp.zeros(shape.shape, shape.dtype))

    def at_once(number: Int[Array, ""], slots: Slots, *others: jax.Array) -> jax.Array:
        del number
        return jax.vmap(lambda slot: term(slot, *others))(slots).sum(0)

    number = jnp.asarray(contacts.number, jnp.int32)
    return jax.lax.platform_dependent(number, contacts.slots, *others, cpu=in_turn, default=at_once)


def some(unknowns: tuple[tuple[int, int], ...], y: Float[Array, "N B"]) -> Float[Array, "n B"]:
    """Of all unknowns, those."""
    return jnp.concatenate([y[begin:end] for begin, end in unknowns])


def _values(slot: Slots, y: Float[Array, "n B"]) -> Float[Array, "6 B"]:
    """The six components, without bias.

    Not `batched.apply`: a short sum inside a loop over slots takes a CPU a third of the time. Of
    more members than a group has XLA would leave it to a library.
    """
    return jnp.sum(slot.rows * y, axis=1)


def _short(value: Float[Array, "6 B"]) -> tuple[jax.Array, jax.Array]:
    """How far the ten rows fall short of their reference: min(0, n ± g), each [5, B]."""
    return jnp.minimum(value[0] + value[1:], 0), jnp.minimum(value[0] - value[1:], 0)


def _equations(system: System, y: Float[Array, "N B"]) -> Float[Array, "N N+1 B"]:
    """Second derivative of the energy and, as its last column, minus the first."""
    table = jnp.concatenate([system.mass, -apply(system.mass, y)[:, None]], axis=1)
    for contacts in system.contacts:
        block = _summed(_pull, contacts, some(contacts.unknowns, y))
        table = _added(table, contacts.unknowns, block)
    return table


def _pull(slot: Slots, y: Float[Array, "n B"]) -> Float[Array, "n n+1 B"]:
    """A slot's part in `_equations`.

    Over its active rows, Σ (n ± g)(n ± g)ᵀ = n wᵀ + w nᵀ + Σ count g gᵀ,
    w = Σ count/2 n + Σ ± g.
    """
    plus, minus = _short(stored(_values(slot, y) + slot.bias))
    falls = ((x < 0).astype(y.dtype) for x in (plus, minus))
    stiff_plus, stiff_minus = (slot.stiffness * x for x in falls)
    counts, signs = stiff_plus + stiff_minus, stiff_plus - stiff_minus
    along = slot.stiffness * total(plus + minus)
    forces = jnp.concatenate([along[None], slot.stiffness * (plus - minus)])
    half, counts, signs, forces = stored((total(counts) / 2, counts, signs, forces))
    normal, others = slot.rows[0], slot.rows[1:]
    w = half * normal + total(signs[:, None] * others)
    left = stored(jnp.concatenate([normal[None], w[None], others]))
    right = stored(jnp.concatenate([w[None], normal[None], counts[:, None] * others]))
    curvature = total(outer(a, b) for a, b in zip(left, right, strict=True))
    pushed = total(forces[:, None] * slot.rows)
    return jnp.concatenate([curvature, -pushed[:, None]], axis=1)


def _added(
    table: Float[Array, "N N+1 B"],
    unknowns: tuple[tuple[int, int], ...],
    block: Float[Array, "n n+1 B"],
) -> Float[Array, "N N+1 B"]:
    """The table with the equations of some unknowns added."""
    last = table.shape[1] - 1
    columns = (*unknowns, (last, last + 1))
    row = 0
    for begin, end in unknowns:
        column = 0
        for first, behind in columns:
            part = block[row : row + end - begin, column : column + behind - first]
            sum_there = table[begin:end, first:behind] + part
            table = jax.lax.dynamic_update_slice(table, sum_there, (begin, first, 0))
            column += behind - first
        row += end - begin
    return table


def _line_search(
    system: System,
    y: Float[Array, "N B"],
    step: Float[Array, "N B"],
    decrement: Float[Array, " B"],
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """How far to go, and whether that is the minimum; as `solver` does it."""
    momentum = stored(apply(system.mass, step))
    inertia = dot(momentum, step)
    terms = [
        _summed(_line_terms, at, some(at.unknowns, y), some(at.unknowns, step))
        for at in system.contacts
    ]
    slope, bend, flips = stored(total(terms))
    slope, bend = slope + dot(momentum, y) + inertia, bend + inertia
    full = jnp.abs(slope) <= 0.1 * decrement
    bend = jnp.maximum(bend, jnp.finfo(bend.dtype).tiny)
    t = jnp.where(full, bend, jnp.where(slope < bend, bend - slope, bend / 2)) / bend
    return t, full & (flips == 0)


def _line_terms(
    slot: Slots, y: Float[Array, "n B"], step: Float[Array, "n B"]
) -> Float[Array, "3 B"]:
    """Slope and bend of a slot's penalty after a full step, and its number of rows that flip."""
    value, change = stored((_values(slot, y) + slot.bias, _values(slot, step)))
    (was_plus, was_minus), (plus, minus) = _short(value), _short(value + change)
    normal, others = change[0], change[1:]
    slope = total(plus * (normal + others) + minus * (normal - others))
    bend = jnp.where(plus < 0, (normal + others) ** 2, 0)
    bend = total(bend + jnp.where(minus < 0, (normal - others) ** 2, 0))
    flips = ((plus < 0) != (was_plus < 0)).astype(y.dtype)
    flips = total(flips + ((minus < 0) != (was_minus < 0)).astype(y.dtype))
    flips = jnp.where(slot.stiffness > 0, flips, 0)
    return jnp.stack([slot.stiffness * slope, slot.stiffness * bend, flips])
