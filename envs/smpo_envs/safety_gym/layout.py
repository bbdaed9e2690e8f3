"""Where things stand: rejection sampling of positions that keep their distance.

Every object has a *keepout*: two objects may not be placed closer than the sum of theirs, and an
object stays that far inside the square it is placed in. Objects are placed one after another; an
object that finds no room sends the whole layout back to the start. That order matters: the result
is not uniform over all valid layouts (specification, section 5.1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

CANDIDATES = 100  # draws for one object before the layout is dropped
ATTEMPTS = 10_000  # layouts begun before giving up
REDRAWS = 10_000  # draws for one object among others that stand still

# Candidates are drawn in blocks of which the first valid one is taken. That is the same as drawing
# one at a time, with fewer and wider operations: nearly every object is placed by its first block.
_BLOCK = 10
_REDRAW_BLOCK = 20


class _Search(NamedTuple):
    """A layout under construction: objects before `index` are placed."""

    key: PRNGKeyArray
    position: Float[Array, "K 2"]
    index: jax.Array
    blocks: jax.Array  # of candidates already refused for this object
    attempts: jax.Array


def sample(key: PRNGKeyArray, keepout: Sequence[float], extent: float) -> Float[Array, "K 2"]:
    """Positions of `K` objects in the square of half width `extent`, in placement order.

    Deviation: where the original raises an error after 10 000 attempts, the positions are NaN.
    """
    number = len(keepout)
    keepouts = jnp.asarray(keepout, jnp.result_type(float))
    rows = jnp.arange(number)

    def extend(search: _Search) -> _Search:
        key, draw_key = jax.random.split(search.key)
        own = keepouts[search.index]
        candidate = _uniform(draw_key, _BLOCK, extent - own)
        clear = _clears(candidate, search.position, own + keepouts, rows < search.index)
        chosen, found = _first(candidate, clear)
        # No room in the last block of candidates: this attempt is dropped.
        dropped = ~found & (search.blocks + 1 == CANDIDATES // _BLOCK)
        placed = (rows == search.index) & found
        return _Search(
            key=key,
            position=jnp.where(placed[:, None], chosen[None, :], search.position),
            index=jnp.where(dropped, 0, search.index + found),
            blocks=jnp.where(found | dropped, 0, search.blocks + 1),
            attempts=search.attempts + dropped,
        )

    zero = jnp.int32(0)
    start = _Search(key, jnp.zeros((number, 2), keepouts.dtype), zero, zero, zero)
    unfinished = lambda search: (search.index < number) & (search.attempts < ATTEMPTS)  # noqa: E731
    end = jax.lax.while_loop(unfinished, extend, start)
    return jnp.where(end.index == number, end.position, jnp.nan)


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
        candidate = _uniform(draw_key, _REDRAW_BLOCK, extent - keepout)
        return key, blocks + 1, *_first(candidate, _clears(candidate, others, clearance, present))

    def unfinished(carry):
        _, blocks, _, found = carry
        return ~found & (blocks < REDRAWS // _REDRAW_BLOCK)

    start = (key, jnp.int32(0), jnp.zeros(2, jnp.result_type(float)), jnp.bool_(False))
    _, _, position, found = jax.lax.while_loop(unfinished, draw, start)
    return position, found


def _uniform(key: PRNGKeyArray, number: int, reach: float | jax.Array) -> Float[Array, "B 2"]:
    dtype = jnp.result_type(float)
    return reach * jax.random.uniform(key, (number, 2), dtype, minval=-1.0, maxval=1.0)


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
