"""Training programs: one run, several that differ in seed and settings, or one outside JAX."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smpo_envs import compilation
from smpo_envs.host import WorkerError
from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.problem import Problem, build
from smpo_jax.experiment.run import messages
from smpo_jax.experiment.run.chunk import Chunk, Report, compile_chunk, is_finite, make_chunk
from smpo_jax.experiment.run.messages import Order
from smpo_jax.experiment.settings.config import Config
from smpo_jax.training import host, loop
from smpo_jax.training.host import HostVectorEnv
from smpo_jax.types import Key, Metrics, TrainState, VectorEnv

Say = Callable[[str], None]

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

    def close(self) -> None:
        """Gives back what it holds outside JAX."""
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

    def close(self) -> None:
        """Holds nothing."""


class LeadingRun:
    """One run that other processes make together with this one."""

    def __init__(self, run: Program, whole: Callable[[TrainState], TrainState]) -> None:
        self._run = run
        self._whole = whole

    def iterate(self, counts: Mapping[int, int]) -> dict[int, Report]:
        """Goes on with the only run.

        Raises:
            LostError: another process is gone.
        """
        messages.tell(Order.ITERATE, counts[0])
        with messages.lost_told():
            return self._run.iterate(counts)

    def state(self, run: int) -> TrainState:
        """Where it is, from all of them."""
        return self._whole(self._run.state(run))

    def close(self) -> None:
        """Holds nothing."""


class HostRun:
    """One run in environments outside JAX, whose episodes begin anew with it."""

    def __init__(
        self, iteration: host.HostIterate, env: HostVectorEnv, state: TrainState, say: Say
    ) -> None:
        self._iteration = iteration
        self._env = env
        self._state = state
        self._say = say
        self._obs: np.ndarray | None = None

    def iterate(self, counts: Mapping[int, int]) -> dict[int, Report]:
        """Goes on with the only run.

        Raises:
            UserError: the environments failed.
        """
        rows: list[Metrics] = []
        finite = True
        while finite and len(rows) < counts[0]:
            try:
                if self._obs is None:
                    if self._state.learner.iteration > 0:
                        self._say("worlds outside JAX cannot be saved: its episodes begin anew")
                    self._obs = host.begin(self._env, self._state)
                self._state, self._obs, row = self._iteration(self._state, self._obs)
            except WorkerError as error:
                raise UserError(f"env: {one_line(error)}") from error
            finally:
                for notice in self._env.notices():
                    self._say(notice)
            rows.append(row)
            finite = bool(is_finite(row))
        metrics = jax.tree.map(lambda *values: jnp.stack(values), *rows)
        report = Report(metrics, jnp.int32(len(rows)), jnp.asarray(finite))
        return {0: jax.device_get(report)}

    def state(self, run: int) -> TrainState:
        """Where it is."""
        del run
        return self._state

    def close(self) -> None:
        """Ends the environments."""
        self._env.close()


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

    def close(self) -> None:
        """Holds nothing."""


Launch = Callable[[TrainState, Say], Program]


class Loop(NamedTuple):
    """How a run of a problem goes: all on the device, or in environments outside JAX.

    Attributes:
        shape: the shapes of a state.
        init: the state before the first iteration.
        going_on: a state that was saved, as a run goes on from it.
        whole: a state as it can be saved.
        compile: for states like this one, also of other seeds; what launches a run.
    """

    shape: Callable[[], TrainState]
    init: Callable[[Key], TrainState]
    going_on: Callable[[TrainState], TrainState]
    whole: Callable[[TrainState], TrainState]
    compile: Callable[[TrainState], Launch]


def loop_of(problem: Problem) -> Loop:
    """The one place where the kind of environments and devices decides how training goes."""
    if isinstance(problem.env, HostVectorEnv):
        return _outside(problem, problem.env)
    if problem.mesh is not None and problem.mesh.is_multi_process:
        return _leading(problem.mesh, on_the_device(problem, problem.env))
    return on_the_device(problem, problem.env)


def on_the_device(problem: Problem, env: VectorEnv) -> Loop:
    """All in JAX, by this process or by all of those that do it at the same time."""

    def compiled(state: TrainState) -> Launch:
        chunk = compile_chunk(_chunk(problem), state)
        sizes.require_program_fits(chunk)
        return lambda state, say: SingleRun(chunk, state)

    place = functools.partial(loop.placed, mesh=problem.mesh, num_envs=env.num_envs)
    init = functools.partial(loop.init, problem.algorithm, env, mesh=problem.mesh)
    return Loop(
        shape=_shape_of(init),
        init=init,
        going_on=jax.jit(place),
        whole=lambda state: state,
        compile=compiled,
    )


def _leading(mesh: Mesh, loop: Loop) -> Loop:
    """The same with other processes: each is told before this one begins, and does it as well."""

    def init(key: Key) -> TrainState:
        messages.tell(Order.INIT)
        with messages.lost_told():
            return loop.init(key)

    def going_on(state: TrainState) -> TrainState:
        messages.tell(Order.GO_ON)
        sent = messages.send_saved(state, loop.shape())
        with messages.lost_told():
            return loop.going_on(sent)

    def whole(state: TrainState) -> TrainState:
        messages.tell(Order.WHOLE)
        return messages.whole_state(state, mesh)

    def compiled(state: TrainState) -> Launch:
        messages.tell(Order.COMPILE)
        launch = loop.compile(state)
        return lambda state, say: LeadingRun(launch(state, say), whole)

    return loop._replace(init=init, going_on=going_on, whole=whole, compile=compiled)


def _outside(problem: Problem, env: HostVectorEnv) -> Loop:
    def compiled(state: TrainState) -> Launch:
        iteration = host.compile_iteration(
            problem.algorithm, env, problem.spec, state, compilation.options()
        )
        return lambda state, say: HostRun(iteration, env, state, say)

    init = jax.jit(functools.partial(host.init, problem.algorithm, env))
    return Loop(
        shape=_shape_of(init),
        init=init,
        going_on=functools.partial(host.going_on, env),
        whole=lambda state: state,
        compile=compiled,
    )


def _shape_of(init: Callable[[Key], TrainState]) -> Callable[[], TrainState]:
    return lambda: jax.eval_shape(init, jax.random.key(0))


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
