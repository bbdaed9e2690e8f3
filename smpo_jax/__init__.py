"""Safe reinforcement learning in JAX: SMPO and constrained baselines.

    import smpo_jax as sx

    algorithm = sx.make("smpo", spec)
    state, metrics = sx.train(algorithm, env, spec, key, iterations)

Names are imported on first use, so that `import smpo_jax` costs milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo_jax.algorithms.registry import ALGORITHMS, make
    from smpo_jax.experiment.results.policy import load_policy
    from smpo_jax.experiment.results.render import render
    from smpo_jax.experiment.run.train import run
    from smpo_jax.training.evaluation import evaluate, make_act, make_evaluator
    from smpo_jax.training.loop import chunk, init, iteration, make_spec, train
    from smpo_jax.types import Algorithm, Spec, TrainState

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Spec",
    "TrainState",
    "chunk",
    "evaluate",
    "init",
    "iteration",
    "load_policy",
    "make",
    "make_act",
    "make_evaluator",
    "make_spec",
    "render",
    "run",
    "train",
]

_HOME = {
    "ALGORITHMS": "algorithms.registry",
    "Algorithm": "types",
    "Spec": "types",
    "TrainState": "types",
    "chunk": "training.loop",
    "evaluate": "training.evaluation",
    "init": "training.loop",
    "iteration": "training.loop",
    "load_policy": "experiment.results.policy",
    "make": "algorithms.registry",
    "make_act": "training.evaluation",
    "make_evaluator": "training.evaluation",
    "make_spec": "training.loop",
    "render": "experiment.results.render",
    "run": "experiment.run.train",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
