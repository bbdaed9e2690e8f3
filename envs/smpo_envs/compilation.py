"""How programs are compiled that would otherwise take long."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.flatten_util import ravel_pytree

Tree = TypeVar("Tree")

_MARKS = (0, 8)  # the first jax whose XLA knows the marks of `one_kernel`
_OLDER_EMITTERS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def options() -> dict[str, str | bool]:
    """What to hand to `jax.jit` or `Lowered.compile` as `compiler_options`.

    With XLA's older code generator for CPUs programs compile in 0.75 to 0.85 of the time, and steps
    under contacts are as fast or faster: PPO's iterations 1.2 times on PointGoal2 (measured in
    processor time, in turn). Empty on other platforms, and where XLA knows it no more.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options=_OLDER_EMITTERS)
    except jax.errors.JaxRuntimeError:
        return {}
    return _OLDER_EMITTERS


def one_kernel(
    f: Callable[..., Tree],
    *args: Any,
    elsewhere: Callable[..., Tree] | None = None,
    pays: bool = True,
) -> Tree:
    """`f(*args)`; on a CPU compiled into one function, loops and all.

    XLA's CPU runtime begins every operation by itself, in about 50 ns. Where hundreds of operations
    work on a few environments in each turn of a loop, that is most of the time. A jax that knows
    nothing of this computes as always.

    Args:
        f: may do all that loops and `cond` can hold, but neither scatter nor sort nor draw random
            numbers, and must not close over traced values. No cores share it. Traced once where it
            is a function of a module.
        args: trees of floating-point arrays, and of whatever is hashable and not traced.
        elsewhere: what to compute on other platforms, if not `f`.
        pays: False leaves `f` on a CPU as it is.

    Raises:
        TypeError: an array is not of floating-point numbers, and would be rounded.
    """
    leaves, structure = jax.tree.flatten(args)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    for array in arrays:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"one_kernel takes floating-point arrays, and one is of {array.dtype}")
    rest = tuple(None if isinstance(leaf, jax.Array) else leaf for leaf in leaves)
    kinds = tuple(map(type, rest))

    def apart(function: Callable[..., Tree]) -> Callable[..., Tree]:
        return partial(_on_arrays, function, structure, kinds, rest)

    def marked(*arrays: jax.Array) -> Tree:
        # As a single array: of some that are constant or empty XLA 0.10 makes a call that it cannot
        # compile, and ends the process.
        packed, unpack = ravel_pytree(arrays)
        call = jax.jit(lambda packed: apart(f)(*unpack(packed)))
        first, *others = jax.tree.leaves(result := call(packed))
        # The marks are those that XLA puts itself on loops that it takes for small. They are of
        # the call that a leaf is a result of.
        first = set_xla_metadata(first, xla_cpu_small_call="true", inlineable="false")
        return jax.tree.unflatten(jax.tree.structure(result), [first, *others])

    on_cpu = marked if pays and jax.__version_info__ >= _MARKS else apart(f)
    return jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=apart(elsewhere or f))


def stored(values: Tree) -> Tree:
    """The same values, computed once and stored.

    XLA's CPU backend otherwise computes a shared intermediate result anew for every element of
    everything that uses it, and takes away what `lax.optimization_barrier` has put up before it
    begins. A call that is not inlined it leaves alone.
    """
    leaves, structure = jax.tree.flatten(values)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    if jax.__version_info__ < _MARKS or not arrays:
        return values

    def called(*arrays: jax.Array) -> Any:
        first, *others = jax.jit(lambda *same: same)(*arrays)
        return set_xla_metadata(first, inlineable="false"), *others

    kept = iter(jax.lax.platform_dependent(*arrays, cpu=called, default=lambda *same: same))
    whole = [next(kept) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, whole)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), inline=True)
def _on_arrays(
    function: Callable[..., Tree],
    structure: Any,
    kinds: tuple[type, ...],
    rest: tuple[Any, ...],
    *arrays: jax.Array,
) -> Tree:
    """`function` of trees of `rest`, with the arrays, in turn, where that has None.

    JAX keeps what it has traced: a function of a module is traced once for all platforms. `kinds`
    are the types of `rest`, since 1 and `np.float32(1)` are equal, and not computed with alike.
    """
    del kinds  # a part of what JAX finds the trace by
    each = iter(arrays)
    whole = [next(each) if leaf is None else leaf for leaf in rest]
    return function(*jax.tree.unflatten(structure, whole))
