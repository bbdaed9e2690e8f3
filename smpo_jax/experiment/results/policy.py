"""A trained policy, read from the folder of its run."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from smpo_jax.experiment.problem import build
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.training.evaluation import Act, make_act
from smpo_jax.types import Algorithm, LearnerState


class TrainedPolicy(NamedTuple):
    """A learner as it was saved, with what it takes to act."""

    config: Config
    algorithm: Algorithm
    learner: LearnerState
    iteration: int

    def act(self, *, deterministic: bool) -> Act:
        """`(obs [N, O], key) -> action [N, A]`."""
        return make_act(self.algorithm, self.learner, deterministic=deterministic)


def load_policy(folder: str | Path) -> TrainedPolicy:
    """The policy in the newest whole checkpoint of a run; needs nothing but its folder.

    Raises:
        UserError: the folder holds no such thing.
    """
    folder = Path(folder)
    config = config_file.load(folder)
    # It may have been trained on more devices than there are here.
    algorithm = build(dataclasses.replace(config, devices=1)).algorithm
    with Checkpoints(folder, config, write=False) as checkpoints:
        template = jax.eval_shape(algorithm.init, jax.random.key(0))
        found = checkpoints.restore(template, part="learner")
    return TrainedPolicy(config, algorithm, found.state, found.iteration)
