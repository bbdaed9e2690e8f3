"""A state as arrays under their paths, as files hold it, and back."""

import hashlib
from typing import Any

import jax
import numpy as np

from smpo_jax.experiment.errors import UserError

Leaves = dict[str, np.ndarray]


def to_leaves(state: Any) -> Leaves:
    """The arrays of a state under their paths; PRNG keys as their integers."""
    return {
        path: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in _with_paths(state)
    }


def from_leaves(leaves: Leaves, template: Any, part: str, where: str) -> Any:
    """The state that `to_leaves` took apart, in the structure of the template.

    Raises:
        UserError: a leaf is missing, left over, or of another shape or type.
    """
    wanted = {f"{part}/{path}" if part else path: leaf for path, leaf in _with_paths(template)}
    below = {path for path in leaves if not part or path.startswith(f"{part}/")}
    for path in sorted(wanted.keys() ^ below):
        raise UserError(
            f"{where} does not fit: {path} is only in the "
            f"{'run' if path in wanted else 'checkpoint'}"
        )
    restored = []
    for path, like in wanted.items():
        data = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
        leaf = leaves[path]
        if (leaf.shape, leaf.dtype) != (data.shape, data.dtype):
            raise UserError(
                f"{where} does not fit: {path} is {leaf.dtype}{list(leaf.shape)} there "
                f"and {data.dtype}{list(data.shape)} here"
            )
        # A copy, since a state may be donated; `jnp.array` compiles a program for each shape.
        array = jax.device_put(leaf, may_alias=False)
        restored.append(jax.random.wrap_key_data(array) if _is_key(like) else array)
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def signature(leaves: Leaves) -> dict[str, list[Any]]:
    """Shape and type of each array, in the order of the paths."""
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in sorted(leaves.items())}


def digest(leaves: Leaves) -> str:
    """SHA-256 of all arrays under their paths, as hexadecimal digits."""
    found = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        found.update(path.encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def _with_paths(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
