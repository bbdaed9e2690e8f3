"""Where a run sets out from: the beginning, or its newest checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from smpo_jax.experiment.problem import Problem
from smpo_jax.experiment.run.checkpoint import Checkpoints, made_with
from smpo_jax.experiment.run.program import loop_of
from smpo_jax.experiment.run.run_folder import has_metrics
from smpo_jax.experiment.settings.config import Config
from smpo_jax.types import TrainState

Say = Callable[[str], None]


class StartingPoint(NamedTuple):
    """Where a run sets out from."""

    state: TrainState
    iteration: int


def initial(config: Config, problem: Problem) -> StartingPoint:
    """The beginning of a run."""
    key = jax.random.key(config.seed)
    return StartingPoint(loop_of(problem).init(key), 0)


def newest(config: Config, problem: Problem, folder: Path, say: Say = print) -> StartingPoint:
    """Where a run goes on: at its newest checkpoint, or at the beginning if it never started.

    Raises:
        UserError: its checkpoints are lost, or those of another run.
    """
    with Checkpoints(folder, config, write=True) as checkpoints:
        if not checkpoints.iterations() and not has_metrics(folder):
            return initial(config, problem)
        loop = loop_of(problem)
        template = jax.eval_shape(loop.init, jax.random.key(config.seed))
        found = checkpoints.restore(template)
        for iteration, why in found.damaged.items():
            say(f"checkpoint {iteration} is damaged ({why}); using {found.iteration} instead")
        if found.made_with != made_with():
            say(
                f"the checkpoint was made with {found.made_with} and this is {made_with()}: "
                "the run goes on, but its last digits may differ"
            )
        checkpoints.discard_after(found.iteration)
    if loop.resumed and 0 < found.iteration < config.total_iterations:
        say(loop.resumed)
    return StartingPoint(loop.going_on(found.state), found.iteration)
