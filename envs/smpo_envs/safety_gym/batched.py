"""Arithmetic on small vectors and matrices, batch last.

Throughout the contact code the *first* axes of an array are components (x, y, z; rows, columns) and
the last is the batch of environments, so that each operation is one long vector operation over the
batch. `*s` in a shape stands for the axes in between (contact slots, vases) and the batch. Sums are
written out, because XLA's CPU backend runs a reduction over a short leading axis as a scalar loop.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def total(terms: jax.Array | Iterable[jax.Array], axis: int = 0) -> jax.Array:
    """The sum of some arrays, or of one array over an axis."""
    if isinstance(terms, jax.Array):
        terms = jnp.unstack(terms, axis=axis)
    return functools.reduce(operator.add, terms)


def repeated(times: int, f: Callable[[int, Tree], Tree], start: Tree) -> Tree:
    """`f(times - 1, ... f(1, f(0, start)))`; a loop on a CPU, elsewhere written out.

    A CPU runs the loop as fast, and its compiler is done sooner; an accelerator is told of each
    turn of it, while all of them written out are one program.
    """
    loop = functools.partial(jax.lax.fori_loop, 0, times, f)
    written_out = functools.partial(loop, unroll=times)
    return jax.lax.platform_dependent(start, cpu=loop, default=written_out)


def passed_through(times: int, f: Callable[[Tree], Tree], start: Tree) -> Tree:
    """`start`, `f(start)`, `f(f(start))`, ..., `times` of them, stacked.

    A loop on a CPU, elsewhere written out, as `repeated`.
    """

    def walk(start: Tree, unroll: int = 1) -> Tree:
        return jax.lax.scan(lambda now, _: (f(now), now), start, length=times, unroll=unroll)[1]

    written_out = functools.partial(walk, unroll=times)
    return jax.lax.platform_dependent(start, cpu=walk, default=written_out)


def dot(a: Float[Array, "n *s"], b: Float[Array, "n *s"]) -> Float[Array, "*s"]:
    """Inner products."""
    return total(a * b)


def outer(a: Float[Array, "n *s"], b: Float[Array, "m *s"]) -> Float[Array, "n m *s"]:
    """Outer products."""
    return a[:, None] * b[None]


def apply(matrix: Float[Array, "n m *s"], vector: Float[Array, "m *s"]) -> Float[Array, "n *s"]:
    """Products of matrices and vectors."""
    return total(matrix * vector[None], axis=1)


def apply_transposed(
    matrix: Float[Array, "m n *s"], vector: Float[Array, "m *s"]
) -> Float[Array, "n *s"]:
    """Products of the matrices' transposes and vectors."""
    return total(matrix * vector[:, None])


def cross(a: Float[Array, "3 *s"], b: Float[Array, "3 *s"]) -> Float[Array, "3 *s"]:
    """Cross products."""
    (ax, ay, az), (bx, by, bz) = jnp.unstack(a), jnp.unstack(b)
    return jnp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
