"""Small vectors, matrices and systems of equations whose components are arrays of their own.

What every environment computes at every step is written with these: under `vmap` each component
becomes one contiguous array over the batch, and everything between them is straight-line code.
(`batched`, for the rarer work, keeps components together in one array.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Any  # an array without axes, or a number
Vector = tuple[Scalar, Scalar, Scalar]
Matrix = tuple[Vector, Vector, Vector]  # rows
Quaternion = tuple[Scalar, Scalar, Scalar, Scalar]  # of unit length, w x y z
Sparse = Mapping[int, Scalar]  # what is not there is 0
Symmetric = dict[tuple[int, int], Scalar]  # of the lower triangle, what is not there is 0


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


def rotation_matrices(quaternion: Float[Array, "4 *s"]) -> Float[Array, "3 3 *s"]:
    """`rotation_matrix` of arrays, components first."""
    w, x, y, z = quaternion
    return jnp.stack([jnp.stack(row) for row in rotation_matrix((w, x, y, z))])


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
    """Adds `factor` a aᵀ."""
    for i, x in a.items():
        scaled = factor * x
        for j in a:
            if j <= i:
                _add(matrix, (i, j), scaled * a[j])


def add_mixed(matrix: Symmetric, a: Sparse, b: Sparse) -> None:
    """Adds a bᵀ + b aᵀ."""
    for i in a:
        for j in b:
            both = a[i] * b[j]
            _add(matrix, (max(i, j), min(i, j)), 2 * both if i == j else both)


def subtract_outer(matrix: Symmetric, a: Sparse, b: Sparse) -> None:
    """Subtracts a bᵀ, where a and b are parallel."""
    for i in a:
        for j in b:
            if j <= i:
                _add(matrix, (i, j), -a[i] * b[j])


def _add(matrix: Symmetric, at: tuple[int, int], x: Scalar) -> None:
    matrix[at] = matrix[at] + x if at in matrix else x


def block(matrix: Symmetric, rows: Sequence[int], columns: Sequence[int]) -> Matrix:
    """Three rows and columns of a matrix."""
    x, y, z = (tuple(matrix.get((max(i, j), min(i, j)), 0.0) for j in columns) for i in rows)
    return x, y, z


def inverse(matrix: Matrix) -> Matrix:
    """The inverse of a symmetric positive definite matrix, by Cramer's rule."""
    (a, f, e), (_, b, d), (_, _, c) = matrix
    xx, xy, xz = b * c - d * d, e * d - f * c, f * d - e * b
    over = 1 / (a * xx + f * xy + e * xz)
    xx, xy, xz = over * xx, over * xy, over * xz
    yy, yz, zz = over * (a * c - e * e), over * (e * f - a * d), over * (a * b - f * f)
    return (xx, xy, xz), (xy, yy, yz), (xz, yz, zz)
