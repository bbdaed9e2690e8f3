"""Safe reinforcement learning in JAX: SMPO and constrained baselines.

    import smpo_jax as sx

    algorithm = sx.make("smpo", spec)
    state, metrics = sx.train(algorithm, env, spec, key, iterations)

Names are imported on first use, so that `import smpo_jax` costs milliseconds.
"""

from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.2.0"

if TYPE_CHECKING:
    from smpo_jax import algorithms, core
    from smpo_jax.algorithms import smpo
    from smpo_jax.algorithms.registry import ALGORITHMS, augment, make
    from smpo_jax.core.distributions import Categorical, DiagonalGaussian, SquashedGaussian
    from smpo_jax.experiment.results.exported import load_exported
    from smpo_jax.experiment.results.policy import load_policy
    from smpo_jax.experiment.results.render import render
    from smpo_jax.experiment.run.result import RunResult
    from smpo_jax.experiment.run.train import resume, run
    from smpo_jax.networks import Network, Networks, Normaliser
    from smpo_jax.training.evaluation import evaluate, make_act, make_evaluator
    from smpo_jax.training.loop import chunk, init, iteration, make_spec, train, train_many
    from smpo_jax.training.tracking import start_tracking, track
    from smpo_jax.types import (
        Algorithm,
        Distribution,
        EpisodeStats,
        LearnerState,
        Metrics,
        Rollout,
        Spec,
        TrainState,
        Transition,
    )

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["algorithms", "core"],
    submod_attrs={
        "algorithms": ["smpo"],
        "algorithms.registry": ["ALGORITHMS", "augment", "make"],
        "core.distributions": ["Categorical", "DiagonalGaussian", "SquashedGaussian"],
        "experiment.results.exported": ["load_exported"],
        "experiment.results.policy": ["load_policy"],
        "experiment.results.render": ["render"],
        "experiment.run.result": ["RunResult"],
        "experiment.run.train": ["resume", "run"],
        "networks": ["Network", "Networks", "Normaliser"],
        "training.evaluation": ["evaluate", "make_act", "make_evaluator"],
        "training.loop": ["chunk", "init", "iteration", "make_spec", "train", "train_many"],
        "training.tracking": ["start_tracking", "track"],
        "types": [
            "Algorithm",
            "Distribution",
            "EpisodeStats",
            "LearnerState",
            "Metrics",
            "Rollout",
            "Spec",
            "TrainState",
            "Transition",
        ],
    },
)
