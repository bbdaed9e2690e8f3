"""Rare, costly work in vectorised code: a `cond` whose cost under `vmap` follows the hits.

`jax.vmap` turns `lax.cond` into a select that runs the costly branch for every member of the batch.
Resets, goal draws and contacts concern a few environments in a hundred at any step, so here the
members that need the work are gathered into small groups, worked on, and scattered back.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from smpo_envs.compilation import one_kernel

Tree = TypeVar("Tree")
Leaves = tuple[jax.Array, ...]

LARGEST_GROUP = 32  # on a CPU


def apply_where(
    f: Callable[..., Tree],
    predicate: jax.Array,
    operand: Tree,
    *context: Any,
    grouped: bool = False,
    rate: float = 1 / 16,
    lanes: int = 1,
) -> Tree:
    """`f(operand, *context)` if `predicate` else `operand`; under `vmap`, only where needed.

    Semantics of `lax.cond`. Under any nesting of `vmap` the batch is flattened and processed in
    groups, so the cost is that of the hits, rounded up to a group. Forward only: there is no
    reverse-mode derivative through a batched call.

    Args:
        f: must keep shapes and dtypes of `operand` and must not close over traced values.
        predicate: whether the work is needed.
        operand: what changes.
        context: trees that `f` only reads, which saves writing them back.
        grouped: `f` is written for a whole group: its leaves have one more leading axis, the
            members. (A memory layout of its own choosing can be much faster than that of `vmap`.)
        rate: the share of hits to be expected; decides on the size of groups, not on results.
        lanes: how many members a CPU works on in the time of one, as `f` is written.
    """
    operand_leaves, operand_def = jax.tree.flatten(operand)
    context_leaves, context_def = jax.tree.flatten(context)
    leaves = [*operand_leaves, *context_leaves]
    # Key arrays travel as their data: gathers and selects on extended dtypes are not universal.
    impls = [jax.random.key_impl(x) if _is_key(x) else None for x in leaves]

    def wrap(flat) -> list[jax.Array]:
        return [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(flat, impls, strict=False)
        ]

    on_group = f if grouped else jax.vmap(f)
    number = len(operand_leaves)

    def on_leaves(*flat: jax.Array) -> Leaves:
        wrapped = wrap(flat)
        inputs = operand_def.unflatten(wrapped[:number])
        result = on_group(inputs, *context_def.unflatten(wrapped[number:]))
        return tuple(_unwrap(x) for x in jax.tree.leaves(result))

    sparse = _sparse(on_leaves, number, GroupSize(rate, lanes))
    return operand_def.unflatten(wrap(sparse(jnp.asarray(predicate, bool), *map(_unwrap, leaves))))


class GroupSize(NamedTuple):
    """How large groups are; see `apply_where`."""

    rate: float
    lanes: int

    def of(self, batch: int) -> int:
        """Members worked on at once: twice the hits to be expected, so mostly there is one group.

        On an accelerator each operation takes as long for a few thousand members as for a few, and
        the host reads whether there is another group: few groups are all that counts. Lanes are
        filled if more than half of them are.
        """
        size = max(1, math.ceil(2 * self.rate * batch))
        return math.ceil(size / self.lanes) * self.lanes if 2 * size > self.lanes else size

    def on_cpu(self, batch: int) -> int:
        """No more than 32: small groups waste less on padding."""
        return min(self.of(batch), LARGEST_GROUP)


def _is_key(x: jax.Array) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _unwrap(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if _is_key(x) else x


def _sparse(f: Callable[..., Leaves], number: int, size: GroupSize) -> Callable[..., Leaves]:
    """The sparse cond of `f`, which works on leaves that have the members of a group in front.

    The first `number` leaves change, the others are only read.
    """
    f = jax.jit(f, inline=True)  # traced once for groups of one and for single members

    def alone(leaves: Leaves) -> Leaves:
        return tuple(y[0] for y in f(*(x[None] for x in leaves)))

    @custom_vmap
    def single(predicate: jax.Array, *leaves: jax.Array) -> Leaves:
        return jax.lax.cond(predicate, alone, lambda xs: xs[:number], leaves)

    @single.def_vmap
    def _(batch, batched, predicate, *leaves):
        full = _broadcast(batch, batched, (predicate, *leaves))
        return many(*full), (True,) * number

    @custom_vmap
    def many(predicate: jax.Array, *leaves: jax.Array) -> Leaves:
        batch = len(predicate)
        large = partial(_in_groups, f, size.of(batch), number)
        if size.on_cpu(batch) == size.of(batch):
            return large(predicate, *leaves)
        small = partial(_in_groups, f, size.on_cpu(batch), number)
        return jax.lax.platform_dependent(predicate, *leaves, cpu=small, default=large)

    @many.def_vmap
    def _(batch, batched, predicate, *leaves):
        full = _broadcast(batch, batched, (predicate, *leaves))
        # Sizes spelled out: a leaf may be empty.
        flat = many(*(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in full))
        out = tuple(y.reshape(x.shape) for y, x in zip(flat, full[1:], strict=False))
        return out, (True,) * number

    return single


def _broadcast(size: int, batched: list[bool], leaves: Leaves) -> list[jax.Array]:
    return [
        x if is_batched else jnp.broadcast_to(x, (size, *jnp.shape(x)))
        for x, is_batched in zip(leaves, batched, strict=True)
    ]


def _in_groups(
    f: Callable[..., Leaves], size: int, number: int, predicate: jax.Array, *leaves: jax.Array
) -> Leaves:
    batch = predicate.shape[0]
    total = jnp.sum(predicate, dtype=jnp.int32)
    # The indices of the hits, in order; what lies behind them is padding, its results are dropped.
    rank = jnp.cumsum(predicate, dtype=jnp.int32) - 1
    hits = jnp.full((batch + size,), batch, jnp.int32)
    hits = hits.at[jnp.where(predicate, rank, batch + size)].set(
        jnp.arange(batch, dtype=jnp.int32), mode="drop"
    )
    context = leaves[number:]

    def body(carry):
        start, values = carry
        index = jax.lax.dynamic_slice(hits, (start,), (size,))
        results = f(*(x.at[index].get(mode="clip") for x in (*values, *context)))
        return start + size, tuple(
            x.at[index].set(y, mode="drop") for x, y in zip(values, results, strict=True)
        )

    start = (jnp.int32(0), tuple(leaves[:number]))
    _, out = jax.lax.while_loop(lambda carry: carry[0] < total, body, start)
    return out


def in_chunks(f: Callable[[Tree], Any], operand: Tree, size: int) -> Any:
    """`f(operand)`; under `vmap` with whole batches, on a CPU `size` members of them at a time.

    A chunk is one kernel there: if each operation on so few members had one of its own, starting
    them would take longer than what they do. Forward only, as `apply_where`.

    Args:
        f: is written for a whole batch: its leaves, and those of its result, have one more leading
            axis, the members. It must not close over traced values, nor scatter or sort.
        operand: of one member; no keys in it.
        size: of the chunks, such as fit into a core's cache.
    """
    leaves, structure = jax.tree.flatten(operand)

    @partial(jax.jit, inline=True)  # to be traced once for its shapes and for single members
    def on_batch(*leaves: jax.Array) -> Any:
        return f(jax.tree.unflatten(structure, leaves))

    out_structure = jax.tree.structure(jax.eval_shape(on_batch, *(x[None] for x in leaves)))
    batches = _in_chunks(
        lambda *leaves: tuple(jax.tree.leaves(on_batch(*leaves))), out_structure.num_leaves, size
    )
    return jax.tree.unflatten(out_structure, batches(*leaves))


def _in_chunks(f: Callable[..., Leaves], number: int, size: int) -> Callable[..., Leaves]:
    """As `in_chunks`, on leaves; `f` returns `number` of them."""
    kernel = partial(one_kernel, f)

    @custom_vmap
    def single(*leaves: jax.Array) -> Leaves:
        return tuple(y[0] for y in f(*(x[None] for x in leaves)))

    @single.def_vmap
    def _(batch, batched, *leaves):
        return many(*_broadcast(batch, batched, leaves)), (True,) * number

    def chunks(*leaves: jax.Array) -> Leaves:
        batch = len(leaves[0])
        rows = jnp.minimum(jnp.arange(-(-batch // size) * size), batch - 1).reshape(-1, size)
        out = jax.lax.map(lambda row: kernel(*(x[row] for x in leaves)), rows)
        return tuple(y.reshape(-1, *y.shape[2:])[:batch] for y in out)

    @custom_vmap
    def many(*leaves: jax.Array) -> Leaves:
        on_cpu = kernel if len(leaves[0]) <= size else chunks
        return jax.lax.platform_dependent(*leaves, cpu=on_cpu, default=f)

    @many.def_vmap
    def _(batch, batched, *leaves):
        full = _broadcast(batch, batched, leaves)
        flat = many(*(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in full))
        return tuple(y.reshape(*full[0].shape[:2], *y.shape[1:]) for y in flat), (True,) * number

    return single
