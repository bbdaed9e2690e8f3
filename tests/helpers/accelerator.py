"""The programs that accelerators are given, run here."""

import contextlib
from collections.abc import Iterator
from functools import partial
from unittest import mock

import jax

# A CPU's compiler drops the barriers that keep written out loops from being fused, works out what
# they share again and again, and needs half a minute for a step. Unfused they take a millisecond.
jit = partial(jax.jit, compiler_options={"xla_disable_hlo_passes": "fusion"})


@contextlib.contextmanager
def shaped_for_an_accelerator() -> Iterator[None]:
    """Where what is traced is what GPUs and TPUs get, though a CPU runs it."""

    def elsewhere(*args, default, **others):
        return default(*args)

    jax.clear_caches()  # of what was traced for a CPU
    with mock.patch.object(jax.lax, "platform_dependent", elsewhere):
        yield
    jax.clear_caches()
