"""A trained policy, read from the folder of its run."""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from smpo_jax.algorithms import registry
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.results import export
from smpo_jax.experiment.run.checkpoint import Checkpoints, from_leaves, to_leaves
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.config import Config, WhichCheckpoint
from smpo_jax.experiment.settings.options import ExportFormat
from smpo_jax.training.evaluation import Act, make_act
from smpo_jax.types import Algorithm, Key, LearnerState, Spec

Action = Float[np.ndarray, "*batch A"]


class TrainedPolicy:
    """A learner as it was saved, with what it takes to act. It can be pickled.

    Attributes:
        config: of its run.
        spec: of the problem it was trained on; `observation_size` and `action_size` say what it
            takes and gives.
        algorithm: the method.
        learner: what it has learnt.
        iteration: updates made.
    """

    def __init__(
        self,
        config: Config,
        spec: Spec,
        algorithm: Algorithm,
        learner: LearnerState,
        iteration: int,
    ) -> None:
        self.config = config
        self.spec = spec
        self.algorithm = algorithm
        self.learner = learner
        self.iteration = iteration

    def predict(self, obs: Any) -> Action:
        """The action without noise, within the bounds of -1 and 1.

        Args:
            obs: one observation `[O]` or several `[N, O]`, as the environment gives them; a list or
                an array.

        Returns:
            `[A]` or `[N, A]`.

        Raises:
            ValueError: it has another size, or is not finite.
        """
        return self._compiled_act(True, obs, jax.random.key(0))

    def act(self, obs: Any, key: Key | int) -> Action:
        """An action with the policy's noise, as in training; see `predict`.

        Args:
            obs: `[O]` or `[N, O]`.
            key: a key of `jax.random.key`, or a seed.
        """
        key = jax.random.key(key) if isinstance(key, int | np.integer) else key
        return self._compiled_act(False, obs, key)

    def acting(self, *, deterministic: bool) -> Act:
        """`(obs [N, O], key) -> action [N, A]`, for programs of JAX; not clipped."""
        return make_act(self.algorithm, self.learner, deterministic=deterministic)

    def export(self, path: str | os.PathLike[str], to: ExportFormat | None = None) -> Path:
        """Writes what `predict` computes, for programs that know nothing of this package.

        Args:
            path: the file. The README of `experiment` has how to act with it.
            to: `npz`, arrays for a page of NumPy; `onnx` (extra `onnx`); or `stablehlo`, a program
                of `jax.export`, whatever the networks (extra `export`). Unless given, the file's
                ending says which.

        Returns:
            The file.

        Raises:
            UserError: neither says which, the two differ, or the policy is one that the format
                cannot hold.
        """
        return export.write(self, path, to)

    def __reduce__(self) -> tuple[Callable[..., "TrainedPolicy"], tuple[Any, ...]]:
        config = config_file.as_mapping(self.config)
        return _unpickle, (config, tuple(self.spec), to_leaves(self.learner), self.iteration)

    @functools.cached_property
    def _programs(self) -> dict[bool, Callable[..., jax.Array]]:
        def program(deterministic: bool) -> Callable[..., jax.Array]:
            def run(learner: LearnerState, obs: jax.Array, key: Key) -> jax.Array:
                act = make_act(self.algorithm, learner, deterministic=deterministic)
                return jnp.clip(act(obs, key), -1.0, 1.0)

            return jax.jit(run)

        return {choice: program(choice) for choice in (True, False)}

    def _compiled_act(self, deterministic: bool, obs: Any, key: Key) -> Action:
        size = self.spec.observation_size
        array = np.asarray(obs, np.float32)
        if array.ndim not in (1, 2) or array.shape[-1] != size:
            raise ValueError(
                f"obs has shape {list(array.shape)}; {self.config.algo} on {self.config.env} takes "
                f"[{size}] or [N, {size}]"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError("obs is not finite; it has NaN or infinity")
        action = self._programs[deterministic](self.learner, np.atleast_2d(array), key)
        return np.asarray(action if array.ndim == 2 else action[0])


def load_policy(
    folder: str | os.PathLike[str], checkpoint: WhichCheckpoint = "newest", *, env: Any = None
) -> TrainedPolicy:
    """The policy of a run; needs nothing but its folder.

    Args:
        folder: of the run.
        checkpoint: "newest", which is the newest one that is whole; "best", the one of the highest
            return whose cost kept the limit (see `run.selection`); or an iteration.
        env: its environment, where the run was given it as an object.

    Raises:
        UserError: the folder holds no such thing.
    """
    home: Path = coerce_argument("folder", folder, Path)
    checkpoint = coerce_argument("checkpoint", checkpoint, WhichCheckpoint)
    config = config_file.load(home, env)
    spec, algorithm = _built(config)
    with Checkpoints(home, config, write=False) as checkpoints:
        template = jax.eval_shape(algorithm.init, jax.random.key(0))
        found = checkpoints.restore(template, part="learner", which=checkpoint)
    return TrainedPolicy(config, spec, algorithm, found.state, found.iteration)


def _unpickle(
    saved: dict[str, Any],
    sizes: tuple[Any, ...],
    leaves: dict[str, np.ndarray],
    iteration: int,
) -> TrainedPolicy:
    """Without the environment, which may be one that is not here."""
    where = "the pickled policy"
    config = config_file.from_mapping(saved, where=where)
    spec = Spec(*sizes)
    algorithm = registry.build(config.algo, spec, config.hyperparameters)
    template = jax.eval_shape(algorithm.init, jax.random.key(0))
    learner = from_leaves(leaves, template, "", where)
    return TrainedPolicy(config, spec, algorithm, learner, iteration)


def _built(config: Config) -> tuple[Spec, Algorithm]:
    """On one device: it may have been trained on more than there are here."""
    problem = build(dataclasses.replace(config, devices=1))
    return problem.spec, problem.algorithm
