"""Observations of several parts, and pictures, as the vectors that everything else sees.

Parts are put one after the other in the order in which jax flattens them, which is by sorted key
for dictionaries. (Outside JAX it is Gymnasium's order, see `host.single`.)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Layout(NamedTuple):
    """How observations become vectors, and back.

    Attributes:
        size: entries of the vector.
        names: of the parts, each with its shape, in order; () if there is but one.
        shape: of a picture; () of anything else.
        flatten: what the environment gives -> `[O]`.
        restore: `[O]` -> what the environment gives.
    """

    size: int
    names: tuple[str, ...]
    shape: tuple[int, ...]
    flatten: Callable[[Any], Float[Array, " O"]]
    restore: Callable[[Float[Array, " O"]], Any]


def layout(what: str, like: Any) -> Layout:
    """How observations of these shapes and types become vectors.

    Args:
        what: what gave them, for errors.
        like: one of them, or its shapes and types.

    Raises:
        ValueError: it is no array of one axis or more, nor a tree of arrays of numbers.
    """
    parts = jax.tree_util.tree_leaves_with_path(like)
    leaves, tree = jax.tree.flatten(like)
    for path, leaf in parts:
        if not _is_number(leaf):
            place = f"{what}: obs{jax.tree_util.keystr(path)}"
            raise ValueError(f"{place}: expected an array of numbers, got a {type(leaf).__name__}")
    is_one = jax.tree_util.treedef_is_leaf(tree)
    if not leaves or (is_one and len(leaves[0].shape) == 0):
        found = "shape []" if leaves else f"a {type(like).__name__} with nothing in it"
        raise ValueError(f"{what}: obs: expected a vector, got {found}")
    shapes, dtypes = [leaf.shape for leaf in leaves], [leaf.dtype for leaf in leaves]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()

    def flatten(obs: Any) -> Float[Array, " O"]:
        dtype = jnp.result_type(float)
        parts = [jnp.ravel(jnp.asarray(leaf, dtype)) for leaf in jax.tree.leaves(obs)]
        return jnp.concatenate(parts)

    def restore(vector: Float[Array, " O"]) -> Any:
        parts = jnp.split(vector, ends[:-1])
        each = zip(parts, shapes, dtypes, strict=True)
        return tree.unflatten([part.reshape(shape).astype(dtype) for part, shape, dtype in each])

    return Layout(
        size=ends[-1],
        names=() if is_one else tuple(_name(path, leaf) for path, leaf in parts),
        shape=tuple(shapes[0]) if is_one and len(shapes[0]) > 1 else (),
        flatten=flatten,
        restore=restore,
    )


def _is_number(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and (jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_)


def _name(path: tuple[Any, ...], leaf: Any) -> str:
    keys = (getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path)
    return f"{'/'.join(map(str, keys))}{list(leaf.shape)}"
