"""What a run is: one frozen record, checked and complete."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from smpo_envs import naming, own_code
from smpo_envs.registry import TASKS
from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.settings.coercion import coerce_argument, require_count
from smpo_jax.experiment.settings.env_options import EnvOption, merged
from smpo_jax.experiment.settings.shifts import NO_SHIFT, Schedule
from smpo_jax.names import suggest
from smpo_jax.ranges import LARGE, MOST, TINY

# Fields that say how a run is watched and kept; they have no influence on its numbers.
HOST_FIELDS = {
    "report_every",
    "checkpoint_iterations",
    "checkpoint_every",
    "keep_checkpoints",
    "tensorboard",
    "wandb",
    "wandb_project",
    "wandb_entity",
    "wandb_group",
    "wandb_tags",
    "wandb_name",
    "cost_names",
    "observations",
}

MOST_CHECKPOINTS = 20  # of a run, unless it says how many iterations lie between two
FEWEST_ITERATIONS = 5  # between two of them, then: what the episodes in between say has an interval

WhichCheckpoint = int | Literal["newest", "best"]
CostLimit = float | tuple[float, ...]  # one, or one for each of several costs


EnvOptions = Annotated[
    tyro.conf.UseAppendAction[tuple[EnvOption, ...]], tyro.conf.arg(aliases=("--env-option",))
]


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
        env: the task: one of `smpo-jax list`, brax:NAME, safety-gymnasium:ID, gymnasium:ID, or
            MODULE:FUNCTION of your own.
        algo: the algorithm; `smpo-jax list` names them all.
        env_options: NAME=VALUE, an argument of the function that makes an environment from outside;
            may be given several times.
        episode_length: steps after which an episode is cut; unless given, the task's own.
        env_object: the environment itself, where it is given as an object; it is not saved.
        networks: MODULE:FUNCTION of your own, which is given the `Spec` and returns the `Networks`
            that take the place of the algorithm's; unless given, all are its own.
        seed: seed of everything random in the run.
        steps: environment steps to train for, over all environments, rounded up to whole
            iterations.
        num_envs: environments stepped at the same time.
        devices: how many devices share the environments and the updates; on a CPU, cores.
        rollout_length: steps of each environment between two updates.
        cost_limit: the bound d on the expected cost of an episode; of an environment with several
            costs one for each, in their order.
        hazard_shift: how the hazards differ from the task's own: NAME=VALUE of hazards (their
            number), size (radius, m) and extent (half width of the square they are in, m), or
            NAME=VALUE@STEP,VALUE@STEP, linear in the environment step.
        init_from: folder of a run whose policy, critics, observation moments and multiplier this
            one starts with; optimisers and schedules start anew.
        checkpoint: which one of `init_from`: newest, best or an iteration.
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        report_every: seconds between two reports; 0 reports every iteration.
        checkpoint_iterations: iterations between two checkpoints; unless given, a twentieth of the
            run, but at least 5.
        checkpoint_every: seconds after which a run is also saved in between, so that a kill costs
            little; the next checkpoint replaces that one. 0 saves after every report.
        keep_checkpoints: how many of the newest checkpoints stay on disk, the best one besides.
        tensorboard: also write TensorBoard event files (extra: tensorboard).
        wandb: also log to Weights & Biases (extra: wandb). What the next five do not say is what
            W&B's environment variables do, WANDB_PROJECT for instance.
        wandb_project: its project; by default smpo-jax.
        wandb_entity: the user or team it belongs to.
        wandb_group: the group of runs it is shown in.
        wandb_tags: its tags.
        wandb_name: its name; by default that of the folder.
        hyperparameters: the algorithm's own record; unless given, with the algorithm's defaults.
        cost_names: what several costs are called; a run notes it.
        earlier_lengths: (steps planned, steps made) of each time that `--resume DIR --steps N` gave
            the run another length.
        observations: the parts of an observation, in the order in which they are put together.

    Raises:
        UserError: a value with which nothing can be run, naming the field.
    """

    env: str = "PointGoal1"
    algo: str = "smpo"
    env_options: EnvOptions = ()
    episode_length: int | None = None
    env_object: tyro.conf.Suppress[Any] = dataclasses.field(default=None, compare=False, repr=False)
    networks: str | None = None
    seed: int = 0
    steps: int = 10_000_000
    num_envs: int = 128
    devices: int = 1
    rollout_length: int = 250
    cost_limit: CostLimit = 25.0
    hazard_shift: Schedule = NO_SHIFT
    init_from: Path | None = None
    checkpoint: WhichCheckpoint = "newest"
    out: Path | None = None
    report_every: float = 2.0
    checkpoint_iterations: int | None = None
    checkpoint_every: float = 30.0
    keep_checkpoints: int = 3
    tensorboard: bool = False
    wandb: bool = False
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_group: str | None = None
    wandb_tags: tuple[str, ...] = ()
    wandb_name: str | None = None
    hyperparameters: Any = None  # a frozen dataclass, of a type that the algorithm decides
    cost_names: Annotated[tuple[str, ...], tyro.conf.Suppress, tyro.conf.Fixed] = ()
    earlier_lengths: Annotated[
        tuple[tuple[int, int], ...], tyro.conf.Suppress, tyro.conf.Fixed
    ] = ()  # no option of its own: `--resume` keeps it
    observations: Annotated[tuple[str, ...], tyro.conf.Suppress, tyro.conf.Fixed] = ()  # nor this

    def __post_init__(self) -> None:
        """Refuses what cannot be run, and fills in the hyperparameters."""
        source = _source(self.env)
        object.__setattr__(self, "env", source.name)
        object.__setattr__(self, "env_options", merged(self.env_options))
        if self.env_options and not source.has_options:
            raise UserError(f"env_options: {self.env} takes none")
        if self.networks is not None:
            _require_networks(self.networks)
        object.__setattr__(
            self, "checkpoint", coerce_argument("checkpoint", self.checkpoint, WhichCheckpoint)
        )
        if self.checkpoint != "newest" and self.init_from is None:
            raise UserError(
                f"checkpoint: {self.checkpoint} has no meaning without init_from, the run that it "
                "is of; give that as well, or leave this out"
            )
        given = () if self.hyperparameters is None else vars(self.hyperparameters)
        object.__setattr__(self, "algo", registry.current(self.algo, given)[0])
        check_algorithm(self.algo)
        if self.hyperparameters is None:
            object.__setattr__(self, "hyperparameters", registry.hyperparameters(self.algo))
        elif not isinstance(self.hyperparameters, registry.settings_class(self.algo)):
            raise TypeError(f"hyperparameters: {self.hyperparameters} is not of {self.algo}")
        if self.steps < 1:
            raise UserError(f"steps: must be at least 1, got {self.steps}")
        counts = ("num_envs", "devices", "rollout_length", "keep_checkpoints")
        for name in (*counts, "episode_length", "checkpoint_iterations"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        _check_countable(self)
        for name in ("report_every", "checkpoint_every"):
            require_not_negative(name, getattr(self, name))
        if isinstance(self.cost_limit, tuple) and len(self.cost_limit) < 2:
            if not self.cost_limit:
                raise UserError("cost_limit: expected a number, or one for each cost, got none")
            object.__setattr__(self, "cost_limit", self.cost_limit[0])
        if len(self.cost_names) not in (0, len(in_full(self.cost_limit))):
            raise UserError(
                f"cost_names: {', '.join(self.cost_names)} are not as many as the limits, "
                f"{len(in_full(self.cost_limit))}"
            )
        for limit in in_full(self.cost_limit):
            require_not_negative("cost_limit", limit)
            if limit not in (0, math.inf) and not TINY <= limit <= LARGE:
                raise UserError(
                    f"cost_limit: must be 0, infinite or within {TINY} and {LARGE}, got {limit}"
                )
        for name in HOST_FIELDS:
            if name.startswith("wandb_") and getattr(self, name) and not self.wandb:
                raise UserError(f"{name}: has no meaning without wandb, which is not set")
        if self.hazard_shift:
            check_has_hazards(self.env)
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed: must be between 0 and 2**32 - 1, got {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return self.out or Path("runs") / f"{self.env_label}-{self.algo}-seed{self.seed}"

    @property
    def limits(self) -> dict[str, float]:
        """The limit of each cost, by what the cost is called in tables: `cost`, or `cost/NAME`."""
        return named_limits(self.cost_limit, self.cost_names)

    @property
    def env_label(self) -> str:
        """The task as part of a folder's name."""
        return re.sub(r"[^\w.-]", "-", self.env)

    @property
    def source(self) -> naming.Source:
        """Where the task comes from."""
        return naming.find(self.env)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps between two updates."""
        return self.num_envs * self.rollout_length

    @property
    def total_iterations(self) -> int:
        """Updates in the whole run."""
        return -(-self.steps // self.steps_per_iteration)

    @property
    def total_steps(self) -> int:
        """Environment steps in the whole run."""
        return self.total_iterations * self.steps_per_iteration

    @property
    def checkpoint_interval(self) -> int:
        """Iterations between two checkpoints."""
        twentieth = -(-self.total_iterations // MOST_CHECKPOINTS)
        return self.checkpoint_iterations or max(twentieth, FEWEST_ITERATIONS)

    def next_checkpoint(self, iteration: int) -> int:
        """The first iteration after this one that has a checkpoint: a multiple, or the last."""
        interval = self.checkpoint_interval
        return min((iteration // interval + 1) * interval, self.total_iterations)

    def with_length(self, steps: int, *, made: int) -> "Config":
        """The same run made longer, or shorter, after `made` steps."""
        past = (*self.earlier_lengths, (self.steps, made)) if made else self.earlier_lengths
        return dataclasses.replace(self, steps=steps, earlier_lengths=past)

    def before_changes_of_length(self) -> Iterator["Config"]:
        """What it was before each change of its length, the last one first."""
        for i, (steps, _) in reversed(list(enumerate(self.earlier_lengths))):
            yield dataclasses.replace(self, steps=steps, earlier_lengths=self.earlier_lengths[:i])


def in_full(cost_limit: CostLimit) -> tuple[float, ...]:
    """Limits as a tuple, also an only one."""
    return cost_limit if isinstance(cost_limit, tuple) else (cost_limit,)


def named_limits(cost_limit: CostLimit, names: Sequence[str]) -> dict[str, float]:
    """The limit of each cost, by what the cost is called in tables: `cost`, or `cost/NAME`."""
    limits = in_full(cost_limit)
    if len(limits) == 1:
        return {"cost": limits[0]}
    known = names or [f"cost_{i + 1}" for i in range(len(limits))]
    return {f"cost/{name}": limit for name, limit in zip(known, limits, strict=True)}


def require_not_negative(name: str, value: float) -> None:
    """Raises a `UserError` if a setting is negative or no number."""
    if not value >= 0:
        raise UserError(f"{name}: must not be negative, got {value}")


def _check_countable(config: Config) -> None:
    """Refuses what the compiled program, whose integers have 32 bits, cannot count."""
    samples = config.steps_per_iteration
    if samples > MOST:
        raise UserError(f"num_envs * rollout_length: must be at most {MOST:,}, got {samples:,}")
    if config.total_iterations > MOST:
        raise UserError(
            f"steps: {config.steps:,} are {config.total_iterations:,} iterations; "
            f"at most {MOST:,} can be counted"
        )


def check_has_hazards(env: str) -> None:
    """Raises a `UserError` if a task has no hazards that could be shifted."""
    if not naming.find(env).has_hazards:
        able = ", ".join(name for name, task in TASKS.items() if task.has_hazards)
        raise UserError(
            f"hazard_shift: {env} has no hazards that can be shifted; the tasks that have some are "
            f"{able}"
        )


def check_algorithm(name: str) -> None:
    """Raises a `UserError` with the nearest name if there is no such algorithm."""
    if name not in registry.ALGORITHMS:
        raise UserError(f"algo: there is no algorithm {name!r}{suggest(name, registry.ALGORITHMS)}")


def _require_networks(name: str) -> None:
    form = "it is MODULE:FUNCTION, as in my_networks:make for my_networks.py here"
    try:
        own_code.require_reference(name, "networks", form)
    except ValueError as error:
        raise UserError(f"networks: {error}") from error


def _source(name: str) -> naming.Source:
    try:
        return naming.find(name)
    except ValueError as error:
        raise UserError(f"env: {one_line(error)}") from error
