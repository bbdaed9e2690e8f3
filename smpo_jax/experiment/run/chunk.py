"""Several iterations of training in one call to the device, watched for NaN and infinity."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from smpo_envs import compilation
from smpo_jax.types import Metrics, TrainState

EPISODE = "episode/"  # metrics that are NaN where no episode finished
COUNT = "episode/count"  # of those that did


class Report(NamedTuple):
    """What a chunk computed.

    Attributes:
        metrics: one value per iteration, `[capacity]`; those from `done` on mean nothing.
        done: iterations made: as many as asked for, or up to the first that was not finite.
        finite: whether all metrics of the last of them are; `learner/norm`, one of them, stands
            for the parameters.
    """

    metrics: Metrics
    done: Int[Array, ""]
    finite: Bool[Array, ""]


Chunk = Callable[[TrainState, Int[Array, ""]], tuple[TrainState, Report]]


def make_chunk(
    iteration: Callable[[TrainState], tuple[TrainState, Metrics]], capacity: int
) -> Chunk:
    """Up to `capacity` iterations, as many as the second argument says.

    The count is an argument, and not a property of the compiled program as with `loop.chunk`, for
    two reasons: one compilation serves the short first report and the long later ones, and a run
    gives the same bits wherever it was cut into chunks, since XLA fuses (and so rounds) a loop of
    known length differently for different lengths.
    """

    def chunk(state: TrainState, count: Int[Array, ""]) -> tuple[TrainState, Report]:
        _, shapes = jax.eval_shape(iteration, state)
        metrics = {
            name: jnp.zeros((capacity, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()
        }

        def under_way(carry: tuple[TrainState, Report]) -> Bool[Array, ""]:
            _, report = carry
            return (report.done < count) & report.finite

        def step(carry: tuple[TrainState, Report]) -> tuple[TrainState, Report]:
            state, report = carry
            state, row = iteration(state)
            metrics = {
                name: values.at[report.done].set(row[name])
                for name, values in report.metrics.items()
            }
            return state, Report(metrics, report.done + 1, _is_finite(row))

        start = Report(metrics, jnp.zeros((), jnp.int32), jnp.ones((), bool))
        return jax.lax.while_loop(under_way, step, (state, start))

    return chunk


def compile_chunk(chunk: Chunk, state: TrainState) -> Chunk:
    """The chunk compiled for states like this one, which it consumes."""
    count = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = jax.jit(chunk, donate_argnums=0).lower(state, count)
    return lowered.compile(compilation.options())


def faults(row: Mapping[str, Any]) -> dict[str, Bool[Array, ""]]:
    """By metric, whether it is not finite and does not thereby say "no episode finished"."""
    some_finished = row.get(COUNT, 1) != 0  # also where the count is NaN
    return {
        name: ~jnp.isfinite(value) & (some_finished | (not name.startswith(EPISODE)))
        for name, value in row.items()
    }


def _is_finite(row: Metrics) -> Bool[Array, ""]:
    return ~jnp.any(jnp.stack(list(faults(row).values())))
