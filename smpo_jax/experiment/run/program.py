"""Compiled training: of one run, or of several that differ only in seed and traced settings."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from smpo_envs import compilation
from smpo_jax.experiment import sizes
from smpo_jax.experiment.problem import Problem, build
from smpo_jax.experiment.run.chunk import Chunk, Report, compile_chunk, make_chunk
from smpo_jax.experiment.settings.config import Config
from smpo_jax.training import loop
from smpo_jax.types import TrainState

LARGEST_CHUNK = 128  # iterations between two reports, at most


class Program(Protocol):
    """Runs that go on side by side."""

    def iterate(self, counts: Mapping[int, int]) -> dict[int, Report]:
        """Goes on by that many iterations in each run, fewer in one that stops being finite.

        Runs that are not named, or with 0, are left where they are and report nothing.
        """
        ...

    def state(self, run: int) -> TrainState:
        """Where a run is."""
        ...


class SingleRun:
    """One run."""

    def __init__(self, chunk: Chunk, state: TrainState) -> None:
        self._chunk = chunk
        self._state = state

    def iterate(self, counts: Mapping[int, int]) -> dict[int, Report]:
        """Goes on with the only run."""
        self._state, report = self._chunk(self._state, jnp.int32(counts[0]))
        return {0: jax.device_get(report)}

    def state(self, run: int) -> TrainState:
        """Where it is."""
        del run
        return self._state


class VmappedRuns:
    """Several runs in one program, each in a lane of a `vmap`.

    A lane does not depend on what is in the others: one whose count is 0 stands still, and one that
    diverges stops alone.
    """

    def __init__(self, configs: Sequence[Config], states: Sequence[TrainState]) -> None:
        """Compiles.

        Args:
            configs: runs that differ in nothing but what `traceable` names, seeds and host fields.
            states: where they are.
        """
        self._values = differing_values(configs)
        self._state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self._lanes = len(configs)
        first, count = configs[0], jax.ShapeDtypeStruct((self._lanes,), jnp.int32)

        def lane(state, values, count):
            return _chunk(build(first, values))(state, count)

        batch = jax.jit(jax.vmap(lane), donate_argnums=0)
        self._chunk = batch.lower(self._state, self._values, count).compile(compilation.options())
        sizes.require_program_fits(self._chunk)

    def iterate(self, counts: Mapping[int, int]) -> dict[int, Report]:
        """Goes on with those that have something to do."""
        count = jnp.asarray([counts.get(i, 0) for i in range(self._lanes)], jnp.int32)
        self._state, reports = self._chunk(self._state, self._values, count)
        reports = jax.device_get(reports)
        return {
            i: jax.tree.map(lambda leaf, i=i: leaf[i], reports) for i in counts if counts[i] > 0
        }

    def state(self, run: int) -> TrainState:
        """Where a run is."""
        return jax.tree.map(lambda leaf: leaf[run], self._state)


def compile_run(problem: Problem, state: TrainState) -> Chunk:
    """The program of one run.

    Raises:
        LackOfMemoryError: it needs more than there is.
    """
    chunk = compile_chunk(_chunk(problem), state)
    sizes.require_program_fits(chunk)
    return chunk


def differing_values(configs: Sequence[Config]) -> Mapping[str, jax.Array]:
    """The cost limits and float hyperparameters in which runs differ, one value for each run."""
    settings = [{**vars(each.hyperparameters), "cost_limit": each.cost_limit} for each in configs]
    return {
        name: jnp.asarray([each[name] for each in settings], jnp.result_type(float))
        for name in settings[0]
        if any(each[name] != settings[0][name] for each in settings)
    }


def _chunk(problem: Problem) -> Chunk:
    iteration = loop.iteration(problem.algorithm, problem.env, problem.spec, problem.mesh)
    return make_chunk(iteration, LARGEST_CHUNK)
