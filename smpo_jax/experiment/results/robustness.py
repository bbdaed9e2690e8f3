"""Trained policies, and what they expect of costs, where hazards differ from the task's own."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import smpo_envs
from smpo_envs import compilation
from smpo_jax.core.calibration import Calibration
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.results.shifted import shifted_player, shifted_tasks, vector_at
from smpo_jax.experiment.settings.config import check_has_hazards
from smpo_jax.experiment.settings.options import RobustnessOptions
from smpo_jax.training.calibration import calibrate
from smpo_jax.types import Key, LearnerState

CALIBRATED_ON = 32  # environments, of one episode each


class LabelledPolicy(NamedTuple):
    """A trained policy, and what runs like it but for the seed are called."""

    variant: str
    policy: TrainedPolicy


class ShiftPoint(NamedTuple):
    """A point of the shift, in full; `axis` is what was varied, empty for the task as it is."""

    axis: str
    shift: dict[str, float]

    @property
    def value(self) -> float:
        """Of what was varied."""
        return self.shift[self.axis]


class PerformanceAt(NamedTuple):
    """How a policy did somewhere, one entry per episode."""

    labelled: LabelledPolicy
    at: ShiftPoint
    return_: Float[np.ndarray, " E"]
    cost: Float[np.ndarray, " E"]


class CalibrationAt(NamedTuple):
    """A critic's calibration somewhere."""

    labelled: LabelledPolicy
    at: ShiftPoint
    calibration: Calibration


def shift_points(task: str, axes: Mapping[str, Sequence[float]]) -> list[ShiftPoint]:
    """The task as it is, then every value of what varies, the rest as it is.

    Raises:
        UserError: the task has no hazards.
    """
    check_has_hazards(task)
    env = smpo_envs.make(task, shift=smpo_envs.Shift())
    assert isinstance(env, smpo_envs.Environment) and env.shift is not None
    # One type: one program.
    own = {name: float(value) for name, value in env.shift._asdict().items()}
    varied = [(axis, value) for axis, values in axes.items() for value in values]
    return [
        ShiftPoint("", own),
        *(ShiftPoint(axis, {**own, axis: value}) for axis, value in varied),
    ]


def play(
    group: Sequence[LabelledPolicy], points: Sequence[ShiftPoint], options: RobustnessOptions
) -> Iterator[PerformanceAt]:
    """Every policy at every point; policies of one variant share a program."""
    play_at = shifted_player(
        group[0].policy,
        [at.shift for at in points],
        options.episodes,
        deterministic=options.deterministic,
    )
    for labelled in group:
        for at in points:
            seen = play_at(labelled.policy.learner, at.shift, options.seed)
            yield PerformanceAt(labelled, at, np.asarray(seen.return_), np.asarray(seen.cost))


def calibrate_critics(
    group: Sequence[LabelledPolicy], points: Sequence[ShiftPoint], options: RobustnessOptions
) -> Iterator[CalibrationAt]:
    """On the task as it is, and at the last value of each thing that varies."""
    config, algorithm = group[0].policy.config, group[0].policy.algorithm
    critic = algorithm.cost_critic
    if critic is None or float(critic.discount) >= 1.0:
        return  # undiscounted, what is to come is not known before the end of an episode
    chosen = {at.axis: at for at in points}.values()
    tasks = shifted_tasks(config, [at.shift for at in chosen])

    @partial(jax.jit, compiler_options=compilation.options())
    def run(learner: LearnerState, shift: smpo_envs.Shift, key: Key) -> Calibration:
        env = vector_at(tasks, shift, CALIBRATED_ON)
        return calibrate(algorithm, critic, learner, env, key)

    for labelled in group:
        for at in chosen:
            shift, key = smpo_envs.Shift(**at.shift), jax.random.key(options.seed)
            yield CalibrationAt(labelled, at, run(labelled.policy.learner, shift, key))


def performance_row(each: PerformanceAt) -> dict[str, Any]:
    """Means over the episodes, for a table."""
    limit = each.labelled.policy.config.limits["cost"]
    return {
        **_identity(each.labelled, each.at),
        "episodes": len(each.cost),
        "return": float(np.mean(each.return_)),
        "cost": float(np.mean(each.cost)),
        "over_limit": float(np.mean(each.cost > limit)),
        "cost_limit": limit,
    }


def calibration_rows(each: CalibrationAt) -> Iterator[dict[str, Any]]:
    """One row for each bin of predictions, for a table."""
    columns = (np.asarray(x) for x in each.calibration)
    for number, (predicted, realised, count) in enumerate(zip(*columns, strict=True)):
        yield {
            **_identity(each.labelled, each.at),
            "bin": number,
            "predicted": float(predicted),
            "realised": float(realised),
            "samples": int(count),
        }


def _identity(labelled: LabelledPolicy, at: ShiftPoint) -> dict[str, Any]:
    config = labelled.policy.config
    return {
        "task": config.env,
        "variant": labelled.variant,
        "algo": config.algo,
        "seed": config.seed,
        "trained_on": str(config.hazard_shift),
        "varied": at.axis,
        **at.shift,
    }
