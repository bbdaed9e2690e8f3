"""A run's task as a function of the shift of its hazards, to play in at many points."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax

import smpo_envs
from smpo_envs import compilation
from smpo_jax.augmentation import SingleEnv
from smpo_jax.core import constraints
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.problem import task_by_shift
from smpo_jax.experiment.results import pieces
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.experiment.settings.config import Config, check_has_hazards
from smpo_jax.training import evaluation
from smpo_jax.training.evaluation import Episodes, Playing, make_act
from smpo_jax.types import Key, LearnerState

LARGEST_BATCH = 256  # native environments played side by side, at most
LARGEST_PIECE = 1000  # steps of each of them in one call to the device, at most

ShiftedPlayer = Callable[[LearnerState, Mapping[str, float], int], Episodes]


def shifted_player(
    policy: TrainedPolicy,
    points: Sequence[Mapping[str, float]],
    episodes: int,
    *,
    deterministic: bool,
) -> ShiftedPlayer:
    """`(learner, point, seed) -> Episodes`, compiled once for all points and learners of a kind.

    Args:
        policy: one of the learners.
        points: where it is to play; the same fields in all of them.
        episodes: how many at each.
        deterministic: act on the mean.

    Raises:
        UserError: the task has no hazards, a point has no layout, or there is no memory for what
            is kept of so many episodes.
    """
    pieces.require_fit(policy.config, episodes)
    tasks = shifted_tasks(policy.config, points)
    batch = min(episodes, LARGEST_BATCH)

    @partial(jax.jit, compiler_options=compilation.options())
    def begin(shift: smpo_envs.Shift, key: Key) -> Playing:
        env = vector_at(tasks, shift, batch)
        return evaluation.begin(env, key, rows=min(env.episode_length, LARGEST_PIECE))

    @partial(jax.jit, compiler_options=compilation.options())
    def go_on(learner: LearnerState, shift: smpo_envs.Shift, playing: Playing) -> Playing:
        act = make_act(policy.algorithm, learner, deterministic=deterministic)
        return evaluation.play_on(act, vector_at(tasks, shift, batch), playing)

    def play(learner: LearnerState, point: Mapping[str, float], seed: int) -> Episodes:
        shift = smpo_envs.Shift(**point)
        first = begin(shift, jax.random.key(seed))
        with pieces.shown(episodes) as show:
            return evaluation.collect_pieces(first, partial(go_on, learner, shift), episodes, show)

    return play


def shifted_tasks(
    config: Config, points: Sequence[Mapping[str, float]]
) -> Callable[[smpo_envs.Shift], SingleEnv]:
    """The run's task as a function of the shift; see `problem.task_by_shift`.

    Raises:
        UserError: the task has no hazards, or a point has no layout.
    """
    check_has_hazards(config.env)
    try:
        return task_by_shift(config, points)
    except ValueError as error:
        raise UserError(f"hazard_shift: {one_line(error)}") from error


def vector_at(
    tasks: Callable[[smpo_envs.Shift], SingleEnv], shift: smpo_envs.Shift, num_envs: int
) -> smpo_envs.VectorEnv:
    """Environments that begin at the same time and have the same, possibly traced, shift."""
    curriculum = smpo_envs.Curriculum(lambda key, at: tasks(at).reset(key), shift)
    return smpo_envs.VectorEnv(
        tasks(shift), num_envs, stagger=False, curriculum=curriculum, known_costs=constraints.ONE
    )
