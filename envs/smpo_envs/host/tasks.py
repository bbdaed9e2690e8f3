"""Tasks outside JAX, by the names that their packages have for them."""

import functools
import importlib.util
import pickle
from dataclasses import dataclass
from typing import Any

from smpo_envs.host.compat import check_installed
from smpo_envs.host.processes import START_LIMIT, GoneError, WorkerError, WorkerProcess
from smpo_envs.host.single import Maker, Sizes
from smpo_envs.registry import TASKS, resolve


@dataclass(frozen=True)
class HostTask:
    """A task outside JAX: how workers make an environment of it, and what it is like.

    Attributes:
        name: for people.
        maker: how to make one environment.
        observation_size: `O`.
        action_size: `A`; actions are of -1 to 1.
        episode_length: steps after which an episode is cut.
        cost_names: what each of its costs is called.
        discrete: actions are one-hot, one of `A` choices.
        first_action: what the environment calls the first choice.
        observation_names: of the parts of an observation, in order; () if it is of one.
        observation_shape: of a picture; () for vectors.
    """

    name: str
    maker: Maker
    observation_size: int
    action_size: int
    episode_length: int
    cost_names: tuple[str, ...] = ("cost",)
    discrete: bool = False
    first_action: int = 0
    observation_names: tuple[str, ...] = ()
    observation_shape: tuple[int, ...] = ()


def safety_gymnasium_task(task_id: str, episode_length: int | None = None) -> HostTask:
    """A task of the real Safety-Gymnasium, e.g. `SafetyDoggoGoal1-v0`.

    Raises:
        ImportError: the real package is not installed; says what to run.
        ValueError: there is no such task, it cannot be trained in, or its episodes are shorter.
    """
    check_installed()
    maker = Maker("safety_gymnasium", {"task_id": task_id})
    return _task(f"safety-gymnasium:{task_id}", maker, episode_length)


def gymnasium_task(
    env_id: str, cost: str, episode_length: int | None = None, **options: Any
) -> HostTask:
    """A task that is registered with Gymnasium, e.g. `Pendulum-v1`.

    Args:
        env_id: what `gymnasium.make` takes.
        cost: `info.NAME`, `module:function` (of observation, action, next observation and info) or
            `none`; several with commas between them.
        episode_length: the time limit in place of its own, in steps.
        options: more for `gymnasium.make`.

    Raises:
        ImportError: gymnasium is not installed.
        ValueError: there is no such task, it cannot be trained in, or it has no time limit.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise ImportError(f"gymnasium:{env_id} needs the package gymnasium: pip install gymnasium")
    limit = {} if episode_length is None else {"max_episode_steps": episode_length}
    arguments = {"env_id": env_id, "cost": cost, "options": {**options, **limit}}
    maker = Maker("gymnasium", arguments)
    return _task(f"gymnasium:{env_id}", maker, episode_length)


def _task(name: str, maker: Maker, episode_length: int | None) -> HostTask:
    try:
        sizes = _sizes(name, pickle.dumps(maker))
    except WorkerError as error:
        raise ValueError(str(error)) from error
    longest = sizes.episode_length
    if episode_length is None and longest is None:
        raise ValueError(f"{name} has no time limit: say after how many steps an episode is cut")
    if episode_length is not None and longest is not None and episode_length > longest:
        raise ValueError(
            f"{name}: episode_length={episode_length}, but its episodes end after {longest} steps"
        )
    return HostTask(
        name,
        maker,
        sizes.observation,
        sizes.action,
        episode_length or longest or 0,
        cost_names=sizes.cost_names,
        discrete=sizes.discrete,
        first_action=sizes.first_action,
        observation_names=sizes.observation_names,
        observation_shape=sizes.observation_shape,
    )


@functools.cache
def _sizes(name: str, pickled: bytes) -> Sizes:
    """Sizes of what a maker makes, in a process of its own: that may take much memory."""
    worker = WorkerProcess(name)
    try:
        return worker.ask("look", pickle.loads(pickled), START_LIMIT)
    except GoneError as gone:
        raise WorkerError(str(gone)) from None
    finally:
        worker.close()


def native_name_to_id(name: str) -> str:
    """The real package's id of a task: `PointGoal1` is `SafetyPointGoal1-v0`.

    Raises:
        ValueError: there is no such task, or it has no counterpart in the real package.
    """
    task_id = TASKS[resolve(name)].task_id
    if task_id is None:
        both = ", ".join(native for native, entry in TASKS.items() if entry.task_id)
        raise ValueError(f"safety-gymnasium has no task {name!r}; in both are {both}")
    return task_id
