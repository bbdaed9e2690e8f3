"""Rare, costly work in vectorised code: a `cond` whose cost under `vmap` follows the hits.

`jax.vmap` turns `lax.cond` into a select that runs the costly branch for every member of the batch.
Resets, goal draws and contacts concern a few environments in a hundred at any step, so here the
members that need the work are gathered into small groups, worked on, and scattered back.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Tree = TypeVar("Tree")


def apply_where(
    f: Callable[[Tree], Tree], predicate: jax.Array, operand: Tree, *, grouped: bool = False
) -> Tree:
    """`f(operand)` if `predicate` else `operand`; under `vmap`, `f` runs only where it is needed.

    Semantics of `lax.cond(predicate, f, lambda x: x, operand)`. Under any nesting of `vmap` the
    batch is flattened and processed in groups, so the cost is that of the hits, rounded up to a
    group. Forward only: there is no reverse-mode derivative through a batched call. `f` must keep
    shapes and dtypes and must not close over traced values: pass them in `operand`.

    With `grouped`, `f` is written for a whole group: its leaves have one more leading axis, the
    members. (A memory layout of its own choosing can be much faster than that of `vmap`.)
    """
    leaves, treedef = jax.tree.flatten(operand)
    # Key arrays travel as their data: gathers and selects on extended dtypes are not universal.
    impls = [jax.random.key_impl(x) if _is_key(x) else None for x in leaves]

    on_group = f if grouped else jax.vmap(f)

    def on_leaves(*flat: jax.Array) -> tuple[jax.Array, ...]:
        wrapped = [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(flat, impls, strict=True)
        ]
        return tuple(_unwrap(x) for x in jax.tree.leaves(on_group(treedef.unflatten(wrapped))))

    result = _sparse(on_leaves)(jnp.asarray(predicate, bool), *map(_unwrap, leaves))
    return treedef.unflatten(
        [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(result, impls, strict=True)
        ]
    )


def group_size(batch: int) -> int:
    """Members worked on at once: an eighth of the batch, between 1 and 64.

    Small groups waste less on padding, large ones amortise the fixed cost of a pass.
    """
    return max(1, min(64, batch // 8))


def _is_key(x: jax.Array) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _unwrap(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if _is_key(x) else x


def _sparse(f: Callable[..., tuple[jax.Array, ...]]) -> Callable[..., tuple[jax.Array, ...]]:
    """The sparse cond of `f`, which works on leaves that have the members of a group in front."""

    def alone(leaves: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(y[0] for y in f(*(x[None] for x in leaves)))

    @custom_vmap
    def single(predicate: jax.Array, *leaves: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.cond(predicate, alone, lambda xs: xs, leaves)

    @single.def_vmap
    def _(size, batched, predicate, *leaves):
        full = _broadcast(size, batched, (predicate, *leaves))
        return many(*full), (True,) * len(leaves)

    @custom_vmap
    def many(predicate: jax.Array, *leaves: jax.Array) -> tuple[jax.Array, ...]:
        return _in_groups(f, predicate, leaves)

    @many.def_vmap
    def _(size, batched, predicate, *leaves):
        full = _broadcast(size, batched, (predicate, *leaves))
        # Sizes spelled out: a leaf may be empty.
        flat = many(*(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in full))
        out = tuple(y.reshape(x.shape) for y, x in zip(flat, full[1:], strict=True))
        return out, (True,) * len(leaves)

    return single


def _broadcast(size: int, batched: list[bool], leaves: tuple[jax.Array, ...]) -> list[jax.Array]:
    return [
        x if is_batched else jnp.broadcast_to(x, (size, *jnp.shape(x)))
        for x, is_batched in zip(leaves, batched, strict=True)
    ]


def _in_groups(
    f: Callable[..., tuple[jax.Array, ...]], predicate: jax.Array, leaves: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    batch = predicate.shape[0]
    size = group_size(batch)
    total = jnp.sum(predicate, dtype=jnp.int32)
    # The indices of the hits, in order; what lies behind them is padding, its results are dropped.
    rank = jnp.cumsum(predicate, dtype=jnp.int32) - 1
    hits = jnp.full((batch + size,), batch, jnp.int32)
    hits = hits.at[jnp.where(predicate, rank, batch + size)].set(
        jnp.arange(batch, dtype=jnp.int32), mode="drop"
    )

    def body(carry):
        start, values = carry
        index = jax.lax.dynamic_slice(hits, (start,), (size,))
        members = [x.at[index].get(mode="clip") for x in values]
        results = f(*members)
        return start + size, tuple(
            x.at[index].set(y, mode="drop") for x, y in zip(values, results, strict=True)
        )

    _, out = jax.lax.while_loop(lambda c: c[0] < total, body, (jnp.int32(0), tuple(leaves)))
    return out
