"""From a config to the things that run: environment, specification and algorithm."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

import smpo_envs
from smpo_envs import own_code
from smpo_envs.adapters import as_safe_env
from smpo_envs.contract import check_shapes, check_values
from smpo_envs.host import HostTask, WorkerEnvs
from smpo_envs.shift import scheduled
from smpo_jax.algorithms import registry
from smpo_jax.augmentation import Augmentation, SingleEnv, augment
from smpo_jax.core import constraints
from smpo_jax.experiment.errors import UserError, one_line, tell
from smpo_jax.experiment.settings.config import Config
from smpo_jax.networks import Networks
from smpo_jax.training.devices import make_mesh
from smpo_jax.training.host import HostVectorEnv, augment_host
from smpo_jax.training.loop import make_spec
from smpo_jax.types import Algorithm, Key, Scalar, Spec, VectorEnv

THREADS = "PJRT_NPROC"  # the name by which XLA is told its number of threads on a CPU
MOST_CORES = max(64, 4 * (os.cpu_count() or 1))  # more would only fill the memory with threads
NOTHING: Mapping[str, Scalar] = MappingProxyType({})


AnyVectorEnv = Any  # a `VectorEnv` or a `HostVectorEnv`; which, is `run.program.loop_of`'s to ask


class Problem(NamedTuple):
    """What a training run needs besides its state.

    Attributes:
        env: what it acts in.
        spec: what the method knows of it.
        algorithm: the method.
        mesh: the devices that share the environments.
    """

    env: AnyVectorEnv
    spec: Spec
    algorithm: Algorithm
    mesh: Mesh | None = None

    @property
    def observations(self) -> tuple[str, ...]:
        """The parts of an observation in the order in which they are flattened; () if of one."""
        return getattr(self.env, "observation_names", ())

    @property
    def first_action(self) -> int:
        """What the environment calls the first of its choices."""
        return getattr(self.env, "first_action", 0)


def build(
    config: Config, traced: Mapping[str, Scalar] = NOTHING, *, devices: int | None = None
) -> Problem:
    """The environment and the algorithm of a run.

    Args:
        config: the run.
        traced: the cost limit and float hyperparameters that replace those of the config; inside a
            `vmap`, runs that differ only in these become one program.
        devices: how many make it together, if that is another number than the run began with. Where
            it divides that one, the run stays the same but for rounding; otherwise minibatches are
            drawn from as many parts as there are devices now.

    Raises:
        UserError: sizes that do not fit together, values the algorithm refuses, observations that
            are put together otherwise than the run's, or no device.
    """
    provide(config.devices)
    try:
        jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names a device that is not there
        raise UserError(one_line(error)) from error
    try:
        limit, _ = _settings(config, traced)
        there = config.devices if devices is None else devices
        if config.source.is_outside and there > 1:
            raise ValueError(f"devices: {config.env} is stepped outside JAX, which takes only 1")
        mesh = make_mesh(there, config.num_envs)
        env = _batch(config, traced)
        spec = make_spec(
            env,
            rollout_length=config.rollout_length,
            total_iterations=config.total_iterations,
            cost_limit=limit,
            shards=there if config.devices % there else config.devices,
        )
        method = algorithm(config, spec, traced)
    except ValueError as error:
        raise UserError(one_line(error)) from error
    problem = Problem(env, spec, method, mesh)
    noted(config, problem)
    return problem


def algorithm(config: Config, spec: Spec, traced: Mapping[str, Scalar] = NOTHING) -> Algorithm:
    """The method of a run, with networks of the user's own if the config names some.

    Raises:
        ValueError: values that the algorithm refuses.
        UserError: no networks can be made of their name.
    """
    _, hyperparameters = _settings(config, traced)
    return registry.build(config.algo, spec, hyperparameters, _networks(config, spec))


def _networks(config: Config, spec: Spec) -> Networks | None:
    name = config.networks
    if name is None:
        return None
    try:
        _announce(config, name, own_code.module_of(name))
        made = own_code.call(name, own_code.imported(name), spec)
    except ValueError as error:
        raise UserError(f"networks: {one_line(error)}") from error
    if not isinstance(made, Networks):
        raise UserError(
            f"networks: {name} returned {type(made).__name__}, which is no smpo_jax.Networks"
        )
    return made


def noted(config: Config, problem: Problem) -> Config:
    """The config with what the environment says of itself, for those who read the run's files.

    That is what its costs are called, and the order of what its observations are made of.

    Raises:
        UserError: the run has another order already.
    """
    if config.observations not in ((), problem.observations):
        raise UserError(
            f"env: {config.env} gives observations of {_parts(problem.observations)}, and the run "
            f"was trained on {_parts(config.observations)}: what it has learnt is of that order"
        )
    names = constraints.names(problem.spec.cost_limit)
    return dataclasses.replace(
        config,
        cost_names=names if len(names) > 1 else (),
        observations=problem.observations,
    )


def _parts(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "one part"


def provide(devices: int, threads: int | None = None) -> None:
    """Makes this many cores of the CPU devices of JAX's, unless it has begun to use them.

    Args:
        devices: their number.
        threads: with how many XLA then computes on a CPU, unless the environment says; None leaves
            it at the number of cores it sees. How it splits sums, and so rounds, depends on it.
    """
    before = jax.config.jax_num_cpu_devices  # pyrefly: ignore[missing-attribute]  (made by jax)
    number = devices if 1 < devices <= MOST_CORES else before
    with contextlib.suppress(RuntimeError):  # `make_mesh` tells those who come too late
        jax.config.update("jax_num_cpu_devices", number)
        if threads is not None:
            os.environ.setdefault(THREADS, str(threads))


def made_with() -> str:
    """What bit-for-bit continuation depends on besides the config."""
    device = jax.devices()[0]
    plain = f"jax {jax.__version__} on {device.device_kind}"
    return f"{plain}, {THREADS}={_threads()}" if device.platform == "cpu" else plain


def threads_of(made_with: str) -> int | None:
    """The number of threads in what `made_with` said, if it was on a CPU."""
    found = re.search(rf"{THREADS}=(\d+)$", made_with)
    return int(found[1]) if found else None


def _threads() -> int:
    """Threads that XLA computes with on a CPU: it reads the same, once, when it starts."""
    given = os.environ.get(THREADS) or os.environ.get("NPROC")
    if given and given.isdigit():
        return int(given)
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def vector_env(config: Config, traced: Mapping[str, Scalar] = NOTHING) -> VectorEnv | HostVectorEnv:
    """What a run is trained in, under its schedule of shifts if it has one.

    Environments take on the values of the step in which they begin an episode.

    Raises:
        UserError: no environment can be made of its name.
    """
    if config.source.is_outside:
        return host_env(config, config.num_envs, traced, training=True)
    schedule = config.hazard_shift
    if schedule.is_constant:
        # Of this package only a probe has several costs, and is traced at once.
        has_one = config.source.is_native and not getattr(task(config), "cost_names", ())
        known = constraints.ONE if has_one else None
        env = single_env(config, traced, training=True)
        return smpo_envs.VectorEnv(env, config.num_envs, known_costs=known)
    reached = [schedule.at(step) for step in schedule.steps]
    tasks = task_by_shift(config, reached, traced, training=True)

    def reset(key: Key, taken: Int[Array, ""]) -> smpo_envs.State:
        steps = jnp.asarray(taken, jnp.result_type(float)) * config.num_envs
        return tasks(scheduled(schedule.points, steps)).reset(key)

    curriculum = smpo_envs.Curriculum(reset, np.int32(0), lambda taken: taken + 1)
    last = tasks(smpo_envs.Shift(**schedule.at(config.total_steps)))
    return smpo_envs.VectorEnv(
        last, config.num_envs, curriculum=curriculum, known_costs=constraints.ONE
    )


def _batch(config: Config, traced: Mapping[str, Scalar]) -> AnyVectorEnv:
    if config.source.is_outside:
        return host_env(config, config.num_envs, traced, training=True)
    return vector_env(config, traced)


def host_env(
    config: Config, num_envs: int, traced: Mapping[str, Scalar] = NOTHING, *, training: bool = False
) -> HostVectorEnv:
    """A run's environments outside JAX, with what the algorithm adds to them; not yet started.

    In training their first episodes begin at all ages, so that they do not all end at once.

    Raises:
        UserError: no environment can be made of its name.
    """
    workers = host_workers(config, num_envs, stagger=training)
    return augment_host(workers, augmentation(config, traced, training=training))


def host_workers(config: Config, num_envs: int, **options: Any) -> WorkerEnvs:
    """A run's environments outside JAX, as they are; see `WorkerEnvs` for the options.

    Raises:
        UserError: no environment can be made of its name.
    """
    made = _made(config)
    assert isinstance(made, HostTask)
    return WorkerEnvs(made, num_envs, **options)


def task_by_shift(
    config: Config,
    points: Sequence[Mapping[str, float]],
    traced: Mapping[str, Scalar] = NOTHING,
    *,
    training: bool = False,
) -> Callable[[smpo_envs.Shift], SingleEnv]:
    """The run's task, with what the algorithm adds to it, as a function of the shift.

    Shifts may be traced; arrays have room for all that lie between `points`. A `step` is the same
    for all of them.

    Raises:
        ValueError: there is no layout for one of the points.
    """
    for point in points:
        _native(config, shift=smpo_envs.Shift(**point))
    numbers = [point["hazards"] for point in points if "hazards" in point]
    most = max(1, *map(round, numbers)) if numbers else None
    extra = augmentation(config, traced, training=training)
    return lambda shift: augment(_native(config, shift=shift, most=most), extra)


def task(config: Config) -> smpo_envs.SafeEnv:
    """The task as it is when the run's training ends.

    Raises:
        UserError: it is no task of this package's, and no environment can be made of its name.
    """
    at_the_end = config.hazard_shift.at(config.total_steps)
    if at_the_end:
        return _native(config, shift=smpo_envs.Shift(**at_the_end))
    made = _made(config)
    if isinstance(made, HostTask):
        raise UserError(f"env: {config.env} is stepped outside JAX, where this cannot be done")
    return made


def _made(config: Config) -> smpo_envs.SafeEnv | HostTask:
    try:
        if config.env_object is not None:
            return as_safe_env(config.env_object, episode_length=config.episode_length)
        source = config.source
        _announce(config, source.name, source.module, *_modules_of_costs(config))
        return source.make(config.episode_length, dict(config.env_options))
    except ValueError as error:
        raise UserError(f"env: {one_line(error)}") from error


def check_task(config: Config) -> None:
    """Plays some steps of an environment from outside, whose costs may be negative.

    Raises:
        UserError: they are, or something is not finite.
    """
    if config.source.is_native or config.source.is_outside:
        return  # of those outside JAX, each worker looks at each step
    env = task(config)
    try:
        check_shapes(env)
        check_values(env)
    except ValueError as error:
        raise UserError(f"env: {config.env}: {one_line(error)}") from error


def _native(config: Config, **options: Any) -> smpo_envs.SafeEnv:
    """A task of this package, with what only these take."""
    return smpo_envs.make(config.env, episode_length=config.episode_length, **options)


def _announce(config: Config, name: str, *modules: str | None) -> None:
    """Says whose code a run takes; never that which came with the run.

    Args:
        config: the run.
        name: what is made by that code.
        modules: where it is; None is no code of anyone else's.

    Raises:
        ValueError: the code is in the folder of the run.
    """
    for module in filter(None, modules):
        places = own_code.locations(module)
        for place in places:
            if Path(place).is_relative_to(config.folder.resolve()):
                raise ValueError(
                    f"{name} would be {place}, in the folder of the run itself, from which "
                    "no code is taken: start the command elsewhere, where a copy of it is"
                )
        if places:
            tell(f"{name} is code of {places[-1]}")


def _modules_of_costs(config: Config) -> list[str]:
    """The modules of the functions that a Gymnasium task has its costs of, if it has any."""
    costs = dict(config.env_options).get("cost") if config.source.is_outside else None
    places = [place.strip() for place in str(costs).split(",")]
    return [place.partition(":")[0] for place in places if ":" in place]


def single_env(
    config: Config, traced: Mapping[str, Scalar] = NOTHING, *, training: bool = False
) -> SingleEnv:
    """The task at the end of training, with what the algorithm adds to it."""
    return augment(task(config), augmentation(config, traced, training=training))


def augmentation(
    config: Config, traced: Mapping[str, Scalar] = NOTHING, *, training: bool = False
) -> Augmentation:
    """What the algorithm adds to an environment, whichever it is.

    Where episodes of training begin each in its own way, those outside of it all begin alike.
    """
    limit, hyperparameters = _settings(config, traced)
    extra = registry.augmentation(config.algo, hyperparameters, limit)
    return extra if training else extra.apart_from_training()


def _settings(config: Config, traced: Mapping[str, Scalar]) -> tuple[Any, Any]:
    """The cost limits and the algorithm's record."""
    own = {name: value for name, value in traced.items() if name != "cost_limit"}
    limit = traced.get("cost_limit", config.cost_limit)
    return limit, dataclasses.replace(config.hyperparameters, **own)
