"""What a run is: one frozen record, checked and complete."""

import dataclasses
from pathlib import Path
from typing import Any

from smpo_envs.registry import TASKS, resolve
from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.shifts import NO_SHIFT, Schedule
from smpo_jax.names import suggest
from smpo_jax.ranges import LARGE, MOST, TINY

# Fields that say how a run is watched and kept; they have no influence on its numbers.
HOST_FIELDS = {"report_every", "checkpoint_every", "keep_checkpoints", "tensorboard", "wandb"}


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
        env: the task; `smpo-jax list` names them all.
        algo: the algorithm; `smpo-jax list` names them all.
        seed: seed of everything random in the run.
        steps: environment steps to train for, over all environments, rounded up to whole
            iterations.
        num_envs: environments stepped at the same time.
        devices: how many devices share the environments; on a CPU, cores. It pays where stepping
            them is most of the work.
        rollout_length: steps of each environment between two updates.
        cost_limit: the bound d on the expected cost of an episode.
        hazard_shift: how the hazards differ from the task's own: NAME=VALUE of hazards (their
            number), size (radius, m) and extent (half width of the square they are in, m), or
            NAME=VALUE@STEP,VALUE@STEP, linear in the environment step.
        out: folder of the run; by default runs/ENV-ALGO-seedSEED.
        report_every: seconds between two reports; 0 reports every iteration.
        checkpoint_every: seconds between two checkpoints; 0 saves after every report.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        tensorboard: also write TensorBoard event files (extra: tensorboard).
        wandb: also log to Weights & Biases (extra: wandb).
        hyperparameters: the algorithm's own record; unless given, with the algorithm's defaults.

    Raises:
        UserError: a value with which nothing can be run, naming the field.
    """

    env: str = "PointGoal1"
    algo: str = "smpo"
    seed: int = 0
    steps: int = 10_000_000
    num_envs: int = 128
    devices: int = 1
    rollout_length: int = 250
    cost_limit: float = 25.0
    hazard_shift: Schedule = NO_SHIFT
    out: Path | None = None
    report_every: float = 2.0
    checkpoint_every: float = 30.0
    keep_checkpoints: int = 3
    tensorboard: bool = False
    wandb: bool = False
    hyperparameters: Any = None  # a frozen dataclass, of a type that the algorithm decides

    def __post_init__(self) -> None:
        """Refuses what cannot be run, and fills in the hyperparameters."""
        object.__setattr__(self, "env", _task(self.env))
        given = () if self.hyperparameters is None else vars(self.hyperparameters)
        object.__setattr__(self, "algo", registry.current(self.algo, given)[0])
        check_algorithm(self.algo)
        if self.hyperparameters is None:
            object.__setattr__(self, "hyperparameters", registry.hyperparameters(self.algo))
        elif not isinstance(self.hyperparameters, registry.settings_class(self.algo)):
            raise TypeError(f"hyperparameters: {self.hyperparameters} is not of {self.algo}")
        for name in ("num_envs", "devices", "rollout_length", "keep_checkpoints"):
            require_count(name, getattr(self, name))
        if self.steps < 1:
            raise UserError(f"steps: must be at least 1, got {self.steps}")
        _check_countable(self)
        for name in ("cost_limit", "report_every", "checkpoint_every"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: must not be negative, got {getattr(self, name)}")
        if self.cost_limit != 0 and not TINY <= self.cost_limit <= LARGE:
            raise UserError(
                f"cost_limit: must be 0 or within {TINY} and {LARGE}, got {self.cost_limit}; "
                "methods without a limit are ppo and trpo"
            )
        if self.hazard_shift:
            check_has_hazards(self.env)
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed: must be between 0 and 2**32 - 1, got {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return self.out or Path("runs") / f"{self.env}-{self.algo}-seed{self.seed}"

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
    if not TASKS[env].has_hazards:
        able = ", ".join(name for name, task in TASKS.items() if task.has_hazards)
        raise UserError(f"hazard_shift: {env} has no hazards; the tasks that have some are {able}")


def check_algorithm(name: str) -> None:
    """Raises a `UserError` with the nearest name if there is no such algorithm."""
    if name not in registry.ALGORITHMS:
        raise UserError(f"algo: there is no algorithm {name!r}{suggest(name, registry.ALGORITHMS)}")


def _task(name: str) -> str:
    """The registered name of a task, also of its Safety-Gymnasium id."""
    try:
        return resolve(name)
    except ValueError as error:
        raise UserError(f"env: {one_line(error)}") from error
