"""Where things stand: rejection sampling of positions that keep their distance.

Every object has a *keepout*: two objects may not be placed closer than the sum of theirs, and an
object stays that far inside the square it is placed in. Objects are placed one after another; an
object that finds no room sends the whole layout back to the start. That order matters: the result
is not uniform over all valid layouts (specification, section 5.1).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

CANDIDATES = 100  # draws for one object before the layout is dropped
ATTEMPTS = 10_000  # layouts begun before giving up
REDRAWS = 10_000  # draws for one object among others that stand still
ABSENT = 1e3  # m, both coordinates of what is left out: out of reach of lidars, costs and keepouts

# Candidates are drawn in blocks of which the first valid one is taken. That is the same as drawing
# one at a time, with fewer and wider operations: nearly every object is placed by its first block.
_BLOCK = 10
_REDRAW_BLOCK = 20


# In a crowded square most attempts fail, so that many are under way side by side: as many as pay on
# a CPU, and on an accelerator, where another round takes longer than many attempts in this one.
_ATTEMPTS_AT_ONCE = 16
_ATTEMPTS_IN_A_ROUND = 128
_CROWDED = 0.3  # share of the square that the discs of all keepouts cover


class Subset(NamedTuple):
    """Which of the objects are placed, and where; may be traced.

    Attributes:
        present: the others are left out, as if they had not been asked for; never the first.
        extent: half width of the square that each is placed in, m.
    """

    present: Bool[Array, " K"]
    extent: Float[Array, " K"]


class _Request(NamedTuple):
    """What is to be placed where: the arguments of `sample` that are known beforehand."""

    keepout: np.ndarray  # [K]
    extent: float
    crowded: bool


class _Search(NamedTuple):
    """Attempts under way, `L` at a time; objects before `index` are placed.

    Every attempt has a number, and the first one by number that succeeds is the layout, however
    long it and others take: those that finish soonest are no fair sample.
    """

    key: PRNGKeyArray
    position: Float[Array, "2 K L"]
    index: Int[Array, " L"]
    blocks: Int[Array, " L"]  # of candidates already refused for this object
    number: Int[Array, " L"]
    begun: Int[Array, ""]
    first: Int[Array, ""]  # number of the first that has succeeded so far
    layout: Float[Array, "K 2"]  # its positions


def sample(
    key: PRNGKeyArray, keepout: Sequence[float], extent: float, subset: Subset | None = None
) -> Float[Array, "K 2"]:
    """Positions of `K` objects in the square of half width `extent`, in placement order.

    With a `subset`, objects have squares of their own, and those that are left out stand at
    `ABSENT`: the others get the very positions that they would have if those did not exist.

    The same key gives another layout on an accelerator than on a CPU, of the same distribution.

    Deviation: where the original raises an error after 10 000 attempts, the positions are NaN.
    """
    covered = math.pi * sum(r * r for r in keepout) / (2 * extent) ** 2
    request = _Request(np.asarray(keepout, jnp.result_type(float)), extent, covered > _CROWDED)
    return jax.lax.platform_dependent(
        key, subset, cpu=partial(_search, request), default=partial(_search_in_rounds, request)
    )


def _search(request: _Request, key: PRNGKeyArray, subset: Subset | None) -> Float[Array, "K 2"]:
    """Each attempt goes on with its next block of candidates, or is replaced by the next one."""
    extent, keepouts = request.extent, jnp.asarray(request.keepout)
    size = len(keepouts)
    lanes = _ATTEMPTS_AT_ONCE if request.crowded else 1
    rows, order = jnp.arange(size), jnp.arange(_BLOCK)
    following = None if subset is None else _following(subset.present)

    def extend(search: _Search) -> _Search:
        key, draw_key = jax.random.split(search.key)
        own = keepouts[search.index]
        room = extent if subset is None else subset.extent[search.index]
        candidate = (room - own) * _uniform(draw_key, (2, _BLOCK, lanes))
        # Reductions, which the compiler does once, unlike a chain of selections.
        offset = candidate[:, None] - search.position[:, :, None]
        far = _square(offset) >= (own + keepouts[:, None])[:, None] ** 2
        clear = jnp.all(far | (rows[:, None] >= search.index)[:, None], axis=0)
        which = jnp.min(jnp.where(clear, order[:, None], _BLOCK), axis=0)
        found = which < _BLOCK
        chosen = jnp.sum(jnp.where(order[:, None] == which, candidate, 0), axis=1)
        placed = (rows[:, None] == search.index) & found
        position = jnp.where(placed, chosen[:, None], search.position)
        index = search.index + found
        if following is not None:
            index = jnp.where(found, following[search.index], search.index)
        complete = index == size
        # No room in the last block of candidates: this attempt is dropped.
        over = complete | (~found & (search.blocks + 1 == CANDIDATES // _BLOCK))
        succeeded = jnp.where(complete, search.number, ATTEMPTS)
        best = jnp.argmin(succeeded)
        earlier = succeeded[best] < search.first
        rank = jnp.cumsum(over, dtype=jnp.int32)
        return _Search(
            key=key,
            position=position,
            index=jnp.where(over, 0, index),
            blocks=jnp.where(found | over, 0, search.blocks + 1),
            number=jnp.where(over, search.begun + rank - 1, search.number),
            begun=search.begun + rank[-1],
            first=jnp.where(earlier, succeeded[best], search.first),
            layout=jnp.where(earlier, position[:, :, best], search.layout),
        )

    nothing = jnp.zeros((2, size), keepouts.dtype)
    blank = nothing if subset is None else jnp.where(subset.present, nothing, ABSENT)
    zeros = jnp.zeros(lanes, jnp.int32)
    start = _Search(
        key=key,
        position=jnp.broadcast_to(blank[:, :, None], (2, size, lanes)),
        index=zeros,
        blocks=zeros,
        number=jnp.arange(lanes, dtype=jnp.int32),
        begun=jnp.int32(lanes),
        first=jnp.int32(ATTEMPTS),
        layout=nothing * jnp.nan,
    )
    end = jax.lax.while_loop(lambda search: search.number.min() < search.first, extend, start)
    return end.layout.T


def _search_in_rounds(
    request: _Request, key: PRNGKeyArray, subset: Subset | None
) -> Float[Array, "K 2"]:
    """Many whole attempts at once, object by object, in straight-line code.

    An accelerator spends its time on beginning operations, and on telling whether there is another
    round, not on the width of either.
    """
    attempts = _ATTEMPTS_IN_A_ROUND if request.crowded else 1
    keepout, size = request.keepout, len(request.keepout)
    present = jnp.ones(size, bool) if subset is None else subset.present
    extent = jnp.full(size, request.extent) if subset is None else subset.extent
    rank = jnp.cumsum(present)  # what is left out takes no draws from the others
    order = jnp.arange(CANDIDATES)[:, None]

    def attempt(search):
        key, rounds, _, _ = search
        key, draw_key = jax.random.split(key)
        placed = jnp.zeros((2, 0, attempts), keepout.dtype)
        possible = jnp.ones(attempts, bool)
        for i in range(size):
            draws = _uniform(jax.random.fold_in(draw_key, rank[i]), (2, CANDIDATES, attempts))
            candidate = (extent[i] - keepout[i]) * draws
            offset = candidate[:, :, None] - placed[:, None]
            far = _square(offset) >= ((keepout[i] + keepout[:i]) ** 2)[:, None]
            which = jnp.min(jnp.where(jnp.all(far, axis=1), order, CANDIDATES), axis=0)
            chosen = jnp.sum(jnp.where(order == which, candidate, 0), axis=1)
            chosen = jnp.where(present[i], chosen, ABSENT)
            placed = jnp.concatenate([placed, chosen[:, None]], axis=1)
            possible &= (which < CANDIDATES) | ~present[i]
        # The first one by number: they are all as long, so any rule would be fair.
        return key, rounds + 1, placed[:, :, jnp.argmax(possible)].T, jnp.any(possible)

    def unfinished(search):
        _, rounds, _, found = search
        return ~found & (rounds < ATTEMPTS // attempts)

    nowhere = jnp.full((size, 2), jnp.nan, keepout.dtype)
    start = (key, jnp.int32(0), nowhere, jnp.bool_(False))
    _, _, layout, found = jax.lax.while_loop(unfinished, attempt, start)
    return jnp.where(found, layout, nowhere)


def _following(present: Bool[Array, " K"]) -> Int[Array, " K"]:
    """Of each object, the index of the next one that is present; `K` after the last."""
    size = len(present)
    index = jnp.where(present, jnp.arange(size, dtype=jnp.int32), size)
    last = jnp.full((1,), size, jnp.int32)
    return jnp.concatenate([jax.lax.cummin(index, reverse=True)[1:], last])


def place(
    key: PRNGKeyArray,
    others: Float[Array, "K 2"],
    others_keepout: Sequence[float],
    keepout: float,
    extent: float,
) -> tuple[Float[Array, " 2"], Bool[Array, ""]]:
    """A position for one more object among `others`, and whether 10 000 draws sufficed.

    The others may stand anywhere; only their distances count.
    """
    clearance = keepout + jnp.asarray(others_keepout, others.dtype)
    present = jnp.ones(len(others_keepout), bool)

    def draw(carry):
        key, blocks, _, _ = carry
        key, draw_key = jax.random.split(key)
        candidate = (extent - keepout) * _uniform(draw_key, (_REDRAW_BLOCK, 2))
        return key, blocks + 1, *_first(candidate, _clears(candidate, others, clearance, present))

    def unfinished(carry):
        _, blocks, _, found = carry
        return ~found & (blocks < REDRAWS // _REDRAW_BLOCK)

    start = (key, jnp.int32(0), jnp.zeros(2, jnp.result_type(float)), jnp.bool_(False))
    _, _, position, found = jax.lax.while_loop(unfinished, draw, start)
    return position, found


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*s"]:
    # Drawn as one long axis, which XLA compiles several times faster than a few short ones.
    size = math.prod(shape)
    draws = jax.random.uniform(key, (size,), jnp.result_type(float), minval=-1.0, maxval=1.0)
    return draws.reshape(shape)


def _square(offset: Float[Array, "2 *s"]) -> Float[Array, "*s"]:
    return offset[0] * offset[0] + offset[1] * offset[1]


def _clears(
    candidate: Float[Array, "B 2"],
    others: Float[Array, "K 2"],
    clearance: Float[Array, " K"],
    present: Bool[Array, " K"],
) -> Bool[Array, " B"]:
    dx = candidate[:, None, 0] - others[None, :, 0]
    dy = candidate[:, None, 1] - others[None, :, 1]
    far = dx * dx + dy * dy >= (clearance * clearance)[None]
    return jnp.all(far | ~present[None], axis=1)


def _first(
    candidate: Float[Array, "B 2"], valid: Bool[Array, " B"]
) -> tuple[Float[Array, " 2"], Bool[Array, ""]]:
    """The first valid candidate (0 if there is none), and whether there is one."""
    first = valid & (jnp.cumsum(valid) == 1)
    return jnp.sum(jnp.where(first[:, None], candidate, 0), axis=0), jnp.any(valid)
