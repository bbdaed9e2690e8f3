"""Small vectors, matrices and systems of equations whose components are arrays of their own.

What every environment computes at every step is written with these: under `vmap` each component
becomes one contiguous array over the batch, and everything between them is straight-line code.
(`batched`, for the rarer work, keeps components together in one array.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from smpo_envs.safety_gym.batched import Tree

Scalar = Any  # an array without axes, or a number
Vector = tuple[Scalar, Scalar, Scalar]
Matrix = tuple[Vector, Vector, Vector]  # rows
Quaternion = tuple[Scalar, Scalar, Scalar, Scalar]  # of unit length, w x y z
Sparse = Mapping[int, Scalar]  # what is not there is 0
Symmetric = dict[tuple[int, int], Scalar]  # of the lower triangle, what is not there is 0


def separately(go: jax.Array, f: Callable[..., Tree], *operands: Any) -> Tree:
    """`f(*operands)`, whose results are computed once and stored.

    XLA's CPU backend otherwise computes a shared intermediate result anew for each result of all
    that uses it, and has no fence against that but control flow.

    Args:
        go: true, in a way that the compiler cannot know; the same for the whole batch.
        f: returns arrays alone.
        operands: of `f`, arrays and plain numbers.
    """
    leaves, structure = jax.tree.flatten(operands)
    is_array = [isinstance(x, jax.Array) for x in leaves]

    def on_arrays(*arrays):
        given = iter(arrays)
        full = [next(given) if array else x for x, array in zip(leaves, is_array, strict=True)]
        return f(*jax.tree.unflatten(structure, full))

    def skipped(*arrays):
        return jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(on_arrays, *arrays)
        )

    def fenced(*arrays):
        return jax.lax.cond(go, on_arrays, skipped, *arrays)

    arrays = [x for x in leaves if isinstance(x, jax.Array)]
    return jax.lax.platform_dependent(*arrays, cpu=fenced, default=on_arrays)


def add(*vectors: Vector) -> Vector:
    """The sum."""
    x, y, z = (sum(parts[1:], start=parts[0]) for parts in zip(*vectors, strict=True))
    return x, y, z


def scale(factor: Scalar, a: Vector) -> Vector:
    """A multiple."""
    return factor * a[0], factor * a[1], factor * a[2]


def dot(a: Vector, b: Vector) -> Scalar:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Cross product."""
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def apply(matrix: Matrix, a: Vector) -> Vector:
    """Matrix times vector."""
    return dot(matrix[0], a), dot(matrix[1], a), dot(matrix[2], a)


def transposed(matrix: Matrix) -> Matrix:
    """The transpose; of a rotation, the way back."""
    x, y, z = zip(*matrix, strict=True)
    return x, y, z


def rotation_matrix(quaternion: Quaternion) -> Matrix:
    """Rotation matrix of a unit quaternion: its columns are the body's axes."""
    w, x, y, z = quaternion
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


def product(first: Quaternion, second: Quaternion) -> Quaternion:
    """The product of two quaternions, of unit length again."""
    (w, a, b, c), (t, x, y, z) = first, second
    v = add(scale(w, (x, y, z)), scale(t, (a, b, c)), cross((a, b, c), (x, y, z)))
    s = w * t - dot((a, b, c), (x, y, z))
    norm = jax.lax.rsqrt(s * s + dot(v, v))
    return (s * norm, *scale(norm, v))


def small_turn(rotation: Vector) -> Quaternion:
    """The quaternion of a rotation whose length is its angle, for angles up to about 1 rad.

    Cosine and sine by their series, good to 1e-12 at 1 rad and to round-off below 0.3.
    """
    square = dot(rotation, rotation) / 4
    c = 1 - square * (1 / 2 - square * (1 / 24 - square * (1 / 720 - square / 40320)))
    s = 1 - square * (1 / 6 - square * (1 / 120 - square * (1 / 5040 - square / 362880)))
    return (c, *scale(s / 2, rotation))


def inner(a: Sparse, b: Sparse) -> Scalar:
    """Inner product."""
    terms = [a[i] * b[i] for i in a if i in b]
    return sum(terms[1:], start=terms[0]) if terms else 0.0


def add_square(matrix: Symmetric, factor: Scalar, a: Sparse) -> None:
    """Adds `factor` a aᵀ to a symmetric matrix, of which the lower triangle is kept."""
    scaled = {i: factor * x for i, x in a.items()}
    for i in a:
        for j in a:
            if j <= i:
                _add(matrix, (i, j), scaled[i] * a[j])


def add_mixed(matrix: Symmetric, factor: Scalar, a: Sparse, b: Sparse) -> None:
    """Adds `factor` (a bᵀ + b aᵀ)."""
    scaled = {i: factor * x for i, x in a.items()}
    for i in a:
        for j in b:
            _add(matrix, (max(i, j), min(i, j)), scaled[i] * b[j] * (2 if i == j else 1))


def _add(matrix: Symmetric, at: tuple[int, int], x: Scalar) -> None:
    matrix[at] = matrix[at] + x if at in matrix else x


def eliminated(
    matrix: Symmetric, right: Mapping[int, Scalar], *, first: Sequence[int]
) -> tuple[Symmetric, dict[int, Scalar]]:
    """What is left of a positive definite system once the unknowns `first` are eliminated.

    Args:
        matrix: of the system.
        right: its right side.
        first: unknowns that do not depend on each other.
    """
    left = dict(matrix)
    known = dict(right)
    for i in first:
        row = _row(matrix, i, first)
        share = {j: x / matrix[i, i] for j, x in row.items()}
        for j in row:
            for k in row:
                if k <= j:
                    _add(left, (j, k), -share[j] * row[k])
            known[j] = known[j] - share[j] * right[i]
    return (
        {at: x for at, x in left.items() if at[0] not in first and at[1] not in first},
        {i: x for i, x in known.items() if i not in first},
    )


def completed(
    matrix: Symmetric,
    right: Mapping[int, Scalar],
    rest: Mapping[int, Scalar],
    *,
    first: Sequence[int],
) -> dict[int, Scalar]:
    """The unknowns `first` of a system that `eliminated` has eliminated, given the `rest`."""
    return {i: (right[i] - inner(_row(matrix, i, first), rest)) / matrix[i, i] for i in first}


def _row(matrix: Symmetric, i: int, first: Sequence[int]) -> dict[int, Scalar]:
    """The row of an unknown, without `first`."""
    return {
        a if b == i else b: x
        for (a, b), x in matrix.items()
        if i in (a, b) and not (a in first and b in first)
    }
