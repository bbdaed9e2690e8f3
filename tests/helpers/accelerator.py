"""The programs that accelerators are given, run here."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax


@contextlib.contextmanager
def shaped_for_an_accelerator() -> Iterator[None]:
    """Where what is traced is what GPUs and TPUs get, though a CPU runs it."""

    def elsewhere(*args, default, **others):
        return default(*args)

    jax.clear_caches()  # of what was traced for a CPU
    with mock.patch.object(jax.lax, "platform_dependent", elsewhere):
        yield
    jax.clear_caches()
