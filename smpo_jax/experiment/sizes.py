"""Whether something fits into memory: from its shapes, before it is compiled or anything written.

What is counted is needed at the same time by any program that does the work. Programs take more,
by a factor that nobody knows before they are compiled (measured: 1.5 with PPO, 2.8 with TRPO, 4.7
with SMPO): nothing that could run is refused. What was let pass is refused when it is compiled, if
the compiler says so, or else fails (`errors.memory_told`).
"""

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smpo_jax.experiment.errors import LackOfMemoryError, UserError
from smpo_jax.experiment.problem import Problem
from smpo_jax.experiment.settings.config import Config
from smpo_jax.training import host, loop
from smpo_jax.training.host import HostVectorEnv

GIB = 2**30
FLOAT = 4  # bytes
# Bytes that a worker has of a world of the real Safety-Gymnasium; measured: 0.66 MiB (PointGoal0),
# 0.75 (PointGoal1), 0.96 (DoggoGoal1), 1.08 (HalfCheetahVelocity).
WORLD = 0.65 * 2**20
CGROUPS = Path("/sys/fs/cgroup")


class RunBytes(NamedTuple):
    """What a run keeps, in bytes.

    Attributes:
        learner: networks, their optimisers' moments, whatever else is learnt.
        env: one environment under way, with its world where that is in the same memory.
        sample: one step of one environment in a rollout, and what learning from it takes at least.
    """

    learner: int
    env: float
    sample: float

    def total(self, config: Config) -> float:
        """State and rollout together."""
        return self.learner + config.num_envs * (self.env + config.rollout_length * self.sample)


def run_bytes(config: Config, problem: Problem) -> RunBytes:
    """Of a run, from the shapes of its state and of what its policy gives."""
    init = functools.partial(loop.init, problem.algorithm, problem.env, mesh=problem.mesh)
    if isinstance(problem.env, HostVectorEnv):
        init = functools.partial(host.init, problem.algorithm, problem.env)
    key = jax.random.key(0)
    state = jax.eval_shape(init, key)
    obs = jax.eval_shape(lambda: jnp.zeros((config.num_envs, problem.spec.observation_size)))
    act = jax.eval_shape(lambda learner, obs: problem.algorithm.policy(learner)(obs, key),
                         state.learner, obs)  # fmt: skip
    hidden, envs = getattr(config.hyperparameters, "hidden", (0,)), config.num_envs
    # The policy's action, its log-probability and distribution; observation and successor;
    # reward, cost and two flags.
    sample = (nbytes(act) + 2 * nbytes(obs)) / envs + 4 * FLOAT
    # The widest layer of a critic, of both observations of all samples at once.
    sample += 2 * FLOAT * max(hidden)
    env = nbytes((state.env_state, state.tracker)) / envs
    env += world_bytes(config) if _on_cpu() else 0.0
    return RunBytes(nbytes(state.learner), env, sample)


def world_bytes(config: Config) -> float:
    """What a world outside JAX takes of the machine's memory, at least; 0 where nobody knows."""
    is_real = config.source.is_outside and config.source.task_id is not None
    return WORLD if is_real else 0.0


def require_runs_fit(config: Config, problem: Problem, runs: int = 1, of: str = "runs") -> None:
    """Raises a `UserError` with the largest size that fits if so many runs cannot fit at once.

    Args:
        config: one of them.
        problem: what it trains on.
        runs: how many go on at the same time.
        of: what they are called.
    """
    if not _on_cpu():
        require_fits("num_envs", config.num_envs, world_bytes(config), of_host=True)
    room, each = memory(), run_bytes(config, problem)
    if room is None or runs * each.total(config) <= room:
        return
    if each.total(config) <= room:
        require_fits(of, runs, each.total(config))
    need = f"{_gib(each.total(config))} of memory at least, and there are {_gib(room)}"
    per_env = each.env + config.rollout_length * each.sample
    if each.learner > room:
        fits = _narrower(config, room / each.learner)
        raise UserError(f"the networks of {config.algo} need {need}; {fits}")
    left = room - each.learner
    largest = {
        "num_envs": left / per_env,
        "rollout_length": (left / config.num_envs - each.env) / each.sample,
    }
    name = max(largest, key=lambda name: getattr(config, name) / getattr(Config, name))
    raise UserError(f"{name}: {getattr(config, name):,} need {need}; {_at_most(largest[name])}")


def require_program_fits(program: Any) -> None:
    """Raises a `LackOfMemoryError` if what the compiler has planned for is not there.

    Args:
        program: compiled by JAX. What it says was 3 to 10 % less than what its process then took.
    """
    plan, room = program.memory_analysis(), memory()
    if plan is None or room is None:
        return
    needed = (
        plan.temp_size_in_bytes
        + plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
    )
    if needed > room:
        raise LackOfMemoryError(
            f"the compiled program needs {_gib(needed)} of memory, and there are {_gib(room)}; "
            f"{room / needed:.0%} of num_envs or rollout_length may fit"
        )


def require_fits(name: str, number: int, each: float, *, of_host: bool = False) -> None:
    """Raises a `UserError` with the largest number that fits if these cannot.

    Args:
        name: what there are `number` of.
        number: how many.
        each: bytes that one of them takes.
        of_host: they are in the machine's memory, whichever device JAX uses.
    """
    room, needed = machine_memory() if of_host else memory(), number * each
    if room is not None and needed > room:
        raise UserError(
            f"{name}: {number:,} need {_gib(needed)} of memory at least, and there are "
            f"{_gib(room)}; {_at_most(room / each)}"
        )


def nbytes(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def memory() -> int | None:
    """Bytes that a program can have on the device that JAX uses; None if nobody tells."""
    if _on_cpu():
        return machine_memory()
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _on_cpu() -> bool:
    """Whether the memory of JAX's device is the machine's."""
    return jax.local_devices()[0].platform == "cpu"


def machine_memory() -> int | None:
    """Bytes that this process can have: what the machine has, or its container or user may take."""
    known = [*_physical(), *_of_container(), *_of_process()]
    return min(known, default=None)


def _physical() -> Iterator[int]:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_container() -> Iterator[int]:
    """Limits of the control groups that the process is in, of either version."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root, name = CGROUPS, "memory.max"
            if controllers:
                root, name = CGROUPS / "memory", "memory.limit_in_bytes"
            if controllers and "memory" not in controllers.split(","):
                continue
            group = root / path.strip("/")
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # "max", or not there
                    yield int((folder / name).read_text())


def _of_process() -> Iterator[int]:
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit


def _narrower(config: Config, share: float) -> str:
    """Hidden layers that take about this share of the memory of those of a run."""
    hidden = getattr(config.hyperparameters, "hidden", ())
    scale = share if len(hidden) == 1 else math.sqrt(share)  # weights between two wide layers
    return f"hidden layers of about {' '.join(_round(scale * n) for n in hidden)} fit"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def _at_most(number: float) -> str:
    """How many do, in words."""
    if number < 1:
        return "not even one fits"
    return f"at most about {_round(number)} fit"


def _round(number: float) -> str:
    """Down to two digits."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return f"{int(number) // step * step:,}"
