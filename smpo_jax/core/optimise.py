"""Minibatch passes over a batch, with early stopping, and the gradient step they take."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from smpo_jax.types import Key, Metrics, Params, Scalar

State = TypeVar("State")
Batch = TypeVar("Batch")  # a pytree whose leaves have a leading axis [B]
Tree = TypeVar("Tree")

HALVINGS = 20  # of a step, at most: the divergence, about quadratic in it, falls by 1e12


def never(before: State, after: State) -> tuple[State, Bool[Array, ""], Metrics]:
    """The `check` that takes every pass as it is, and goes on to the last."""
    del before
    return after, jnp.zeros((), bool), {}


def minibatch_passes(
    step: Callable[[State, Batch], tuple[State, Metrics]],
    state: State,
    batch: Batch,
    key: Key,
    *,
    minibatches: int,
    passes: int,
    shards: int = 1,
    check: Callable[[State, State], tuple[State, Bool[Array, ""], Metrics]] = never,
) -> tuple[State, Metrics]:
    """Takes `step` on every minibatch of a freshly shuffled batch, at most `passes` times.

    After each pass `check` sees the states before and after it and says which one to go on from,
    and whether to stop; passes that are not taken cost nothing (under `vmap`, the slowest member
    sets the number, the others' states are frozen). `B` must be a multiple of `minibatches` times
    `shards`, equal parts of the batch that are shuffled each by itself (see `shuffle`).

    Returns:
        The state, and metrics: means of `step`'s over the last pass, `check`'s after it, and
        `passes`, the number taken.
    """

    def one_pass(carry):
        done, before, key, _, _ = carry
        key, shuffle_key = jax.random.split(key)
        # Shuffled once per pass and then cut in contiguous pieces: one gather instead of many.
        shuffled = split(shuffle(batch, shuffle_key, shards), minibatches, shards)
        state, metrics = jax.lax.scan(step, before, shuffled)
        state, stop, checks = check(before, state)
        return done + 1, state, key, stop, {**jax.tree.map(jnp.mean, metrics), **checks}

    def go_on(carry):
        done, _, _, stop, _ = carry
        return (done < passes) & ~stop

    unknown = jax.eval_shape(lambda: one_pass((0, state, key, False, {}))[-1])
    metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), unknown)
    start = (jnp.zeros((), jnp.int32), state, key, jnp.zeros((), bool), metrics)
    done, state, _, _, metrics = jax.lax.while_loop(go_on, one_pass, start)
    return state, {**metrics, "passes": done.astype(float)}


def retreat(
    before: Params,
    after: Params,
    divergence: Callable[[Params], Float[Array, ""]],
    *,
    bound: Scalar,
) -> tuple[Params, Float[Array, ""]]:
    """From `after` back towards `before`, half the way at a time, until within the bound.

    `after` to the last bit where its divergence is within the bound already, and where it is NaN,
    which is for others to report; `before` where `HALVINGS` do not help.

    Returns:
        The parameters, and their divergence.
    """

    def too_far(carry):
        tries, _, distance = carry
        return (tries <= HALVINGS) & (distance > bound)

    def halve(carry):
        tries, params, _ = carry
        params = jax.tree.map(
            lambda old, new: jnp.where(tries < HALVINGS, 0.5 * (old + new), old), before, params
        )
        return tries + 1, params, divergence(params)

    start = (jnp.zeros((), jnp.int32), after, divergence(after))
    _, params, distance = jax.lax.while_loop(too_far, halve, start)
    return params, distance


def shuffle(batch: Batch, key: Key, shards: int = 1) -> Batch:
    """The batch in random order, the same for all leaves.

    Of several `shards`, equal parts that lie one after the other, each is shuffled within itself:
    devices that hold one each do so without a word to the others.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    order = _random_order(key, shards, size // shards)

    def shuffled(x: jax.Array) -> jax.Array:
        parts = x.reshape(*order.shape, *x.shape[1:])
        taken = jax.vmap(lambda part, order: jnp.take(part, order, axis=0, unique_indices=True))
        return taken(parts, order).reshape(x.shape)

    return jax.tree.map(shuffled, batch)


def _random_order(key: Key, shards: int, length: int) -> Int[Array, "S L"]:
    """Of each shard's members.

    One sort of random bits: `jax.random.permutation` sorts twice to break ties, but members that
    tie are neighbours then, and hardly ever does a minibatch end between them.
    """
    bits = jax.random.bits(key, (shards, length))
    low = (length - 1).bit_length()
    if low > 16:
        return jnp.argsort(bits)
    # A number that carries its member with it: to sort pairs takes a CPU six times as long.
    members = jnp.arange(length, dtype=bits.dtype)[None]
    numbers = (bits >> low << low) | members
    return (jnp.sort(numbers) & ((1 << low) - 1)).astype(jnp.int32)


def split(batch: Batch, pieces: int, shards: int = 1) -> Batch:
    """`[B, ...] -> [pieces, B / pieces, ...]`: contiguous; of several shards each in all pieces."""

    def cut(x: jax.Array) -> jax.Array:
        parts = x.reshape(shards, pieces, -1, *x.shape[1:])
        return jnp.swapaxes(parts, 0, 1).reshape(pieces, -1, *x.shape[1:])

    return jax.tree.map(cut, batch)


def mean_over_shards(f: Callable[[Batch], Tree], batch: Batch, shards: int = 1) -> Tree:
    """The mean of what `f` gives on each of the equal shards of a batch that lie one after another.

    For a gradient of a mean it is that of the whole batch, but for rounding. It is added up as one
    vector: devices that hold a shard each wait for each other once, where compilers have them wait
    for every array. With two cores of a CPU that took 85 us an array, half of a minibatch's time.
    """
    if shards == 1:
        return f(batch)
    parts = in_shards(batch, shards)
    shapes = jax.eval_shape(lambda: f(jax.tree.map(lambda x: x[0], parts)))
    _, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    return unravel(jnp.mean(jax.vmap(lambda part: ravel_pytree(f(part))[0])(parts), axis=0))


def in_shards(batch: Batch, shards: int) -> Batch:
    """`[B, ...] -> [shards, B / shards, ...]` in every leaf."""
    return jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), batch)


def flatten(tree: Batch, shards: int = 1) -> Batch:
    """`[T, N, ...] -> [T * N, ...]` in every leaf; shards of the N one after the other."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), by_shard(tree, shards))


def by_shard(tree: Batch, shards: int) -> Batch:
    """`[T, N, ...] -> [shards * T, N / shards, ...]` in every leaf: shards one after the other."""

    def apart(x: jax.Array) -> jax.Array:
        steps, envs, *rest = x.shape
        parts = x.reshape(steps, shards, envs // shards, *rest)
        return jnp.swapaxes(parts, 0, 1).reshape(shards * steps, envs // shards, *rest)

    return jax.tree.map(apart, tree)


def adam(max_gradient_norm: Scalar) -> optax.GradientTransformation:
    """Adam directions from gradients clipped per network; `descend` supplies the learning rate.

    Each entry of the (dict) parameters is a network with a norm of its own, so that a large value
    error does not shrink the policy's step.
    """

    def clip(gradients: Params) -> Params:
        return {name: clip_norm(g, max_gradient_norm) for name, g in gradients.items()}

    return optax.chain(optax.stateless(lambda g, _: clip(g)), optax.scale_by_adam())


def clip_norm(gradients: Params, max_norm: Scalar) -> Params:
    """Gradients scaled down, if need be, to the given global norm.

    Deviation: `optax.clip_by_global_norm` divides by the norm and multiplies with the maximum one
    after the other, which rounds differently, and takes no traced maximum.
    """
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(optax.tree.norm(gradients), 1e-12))
    return jax.tree.map(lambda g: g * scale, gradients)


def descend(
    optimiser: optax.GradientTransformation,
    gradients: Params,
    opt_state: Any,
    params: Params,
    *,
    learning_rate: Scalar,
) -> tuple[Params, Any]:
    """Parameters and optimiser state after one step against the gradients."""
    directions, opt_state = optimiser.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, directions), opt_state


def linear_decay(start: Scalar, iteration: Int[Array, ""], total: int) -> Float[Array, ""]:
    """`start` at iteration 0, falling on a line to 0 at iteration `total`, never below.

    Deviation: `optax.linear_schedule` is the same in another order, which XLA rounds differently by
    a last digit in some iterations: every run would be another.
    """
    return start * jnp.maximum(1.0 - iteration / total, 0.0)
