"""A trained policy, read from the folder of its run, or from the files of the package."""

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import Problem, algorithm, augmentation, build
from smpo_jax.experiment.results import export, pretrained
from smpo_jax.experiment.run.leaves import from_leaves, to_leaves
from smpo_jax.experiment.settings import config_file, presets
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.config import Config, WhichCheckpoint
from smpo_jax.experiment.settings.options import ExportFormat
from smpo_jax.training.evaluation import Act, make_act
from smpo_jax.types import Algorithm, Key, LearnerState, Spec

Action = Float[np.ndarray, "*batch A"] | Int[np.ndarray, "*batch"] | int


class TrainedPolicy:
    """A learner as it was saved, with what it takes to act. It can be pickled.

    Attributes:
        config: of its run.
        spec: of the problem it was trained on; `observation_size` and `action_size` say what it
            takes and gives.
        algorithm: the method.
        learner: what it has learnt.
        iteration: updates made.
        first_action: what the environment calls the first choice, if its actions are discrete.
        about: of one that comes with the package, its record: `version` and `commit` of the code,
            and its `scores`. None if it is from a run. Its learner has no critics or optimisers.
    """

    def __init__(
        self,
        config: Config,
        spec: Spec,
        algorithm: Algorithm,
        learner: LearnerState,
        iteration: int,
        first_action: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.spec = spec
        self.algorithm = algorithm
        self.learner = learner
        self.iteration = iteration
        self.first_action = first_action
        self.about = about

    def predict(self, obs: Any) -> Action:
        """The action without noise, within the bounds of -1 and 1; of discrete ones its number.

        Args:
            obs: one observation `[O]` or several `[N, O]`, as the environment gives them; a list or
                an array.

        Returns:
            `[A]` or `[N, A]`; if actions are discrete an int, or ints `[N]`, as Gymnasium's and
            gymnax's environments take them (of ours it is the index of the one-hot action).

        Raises:
            ValueError: it has another size, or is not finite.
        """
        return self._compiled_act(True, obs, jax.random.key(0))

    def act(self, obs: Any, key: Key | int) -> Action:
        """An action with the policy's noise, as in training; see `predict`.

        Args:
            obs: `[O]` or `[N, O]`.
            key: a key of `jax.random.key`, or a seed.

        Raises:
            TypeError: the key is neither.
            ValueError: see `predict`.
        """
        return self._compiled_act(False, obs, _key(key))

    def acting(self, *, deterministic: bool) -> Act:
        """`(obs [N, O], key) -> action [N, A]`, for programs of JAX: not clipped, or one-hot."""
        return make_act(self.algorithm, self.learner, deterministic=deterministic)

    def as_taken(self, action: Float[Array, "N A"]) -> Float[Array, "N A"] | Int[Array, " N"]:
        """Actions as `predict` gives them, of those of `acting`."""
        if self.spec.discrete:
            return self.first_action + jnp.argmax(action, axis=-1)
        return jnp.clip(action, -1.0, 1.0)

    @property
    def is_told_its_limit(self) -> bool:
        """Whether observations end with the cost limit that holds."""
        return bool(augmentation(self.config, training=True).limits)

    def under(self, cost_limit: float) -> "TrainedPolicy":
        """The policy in environments that tell it another limit, if it is told any.

        Raises:
            UserError: it is not, or has not learnt to keep such a limit.
        """
        if not self.is_told_its_limit:
            raise UserError(
                f"cost_limit: {self.config.algo} has learnt to keep {self.config.cost_limit}, and "
                "is not told of others; smpo-limits is"
            )
        known = augmentation(self.config, training=True).limits
        if not min(known) <= cost_limit <= max(known):
            raise UserError(
                f"cost_limit={cost_limit:g} must be from {min(known):g} to {max(known):g}, between "
                "those that the policy has learnt to keep"
            )
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, cost_limit=cost_limit)
        return other

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
        leaves = to_leaves(self.learner)
        sizes = tuple(self.spec)
        return _unpickle, (config, sizes, leaves, self.iteration, self.first_action, self.about)

    @functools.cached_property
    def _programs(self) -> dict[bool, Callable[..., jax.Array]]:
        def program(deterministic: bool) -> Callable[..., jax.Array]:
            def run(learner: LearnerState, obs: jax.Array, key: Key) -> jax.Array:
                act = make_act(self.algorithm, learner, deterministic=deterministic)
                return self.as_taken(act(obs, key))

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
        found = np.asarray(action if array.ndim == 2 else action[0])
        return int(found) if found.ndim == 0 else found


def load_policy(
    folder: str | os.PathLike[str], checkpoint: WhichCheckpoint = "newest", *, env: Any = None
) -> TrainedPolicy:
    """The policy of a run; needs nothing but its folder.

    Args:
        folder: of the run; or `pretrained:PointGoal1/smpo`, a policy that comes with the package
            (`smpo-jax list` names them).
        checkpoint: "newest", which is the newest one that is whole; "best", the one of the highest
            return whose cost kept the limit (see `run.selection`); or an iteration.
        env: its environment, where the run was given it as an object.

    Raises:
        UserError: the folder holds no such thing, or there is no policy of that name.
    """
    home: Path = coerce_argument("folder", folder, Path)
    checkpoint = coerce_argument("checkpoint", checkpoint, WhichCheckpoint)
    if presets.is_policy(home):
        return _load_pretrained(home, checkpoint, env)
    # What a policy that comes with the package does without takes a third of a second to import.
    from smpo_jax.experiment.run.checkpoint import Checkpoints

    config = config_file.load(home, env)
    problem = _built(config)
    algorithm = problem.algorithm
    with Checkpoints(home, config, write=False) as checkpoints:
        template = jax.eval_shape(algorithm.init, jax.random.key(0))
        found = checkpoints.restore(template, part="learner", which=checkpoint)
    first = problem.first_action
    return TrainedPolicy(config, problem.spec, algorithm, found.state, found.iteration, first)


def _load_pretrained(given: Path, checkpoint: WhichCheckpoint, env: Any) -> TrainedPolicy:
    record = presets.find_policy(given)
    if checkpoint != "newest":
        raise UserError(f"checkpoint: {given.as_posix()} has only one; leave it out")
    if env is not None:
        raise UserError(f"env: {given.as_posix()} has its own environment; leave it out")
    config, iteration, leaves, about = pretrained.read(record)
    problem = _built(config)
    whole = jax.eval_shape(problem.algorithm.init, jax.random.key(0))
    learner = from_leaves(leaves, pretrained.acting_part(whole), "", str(record))
    first = problem.first_action
    return TrainedPolicy(config, problem.spec, problem.algorithm, learner, iteration, first, about)


def _key(given: Key | int) -> Key:
    """The key that is given, or that of a seed."""
    try:
        key = jax.random.key(given) if isinstance(given, int | np.integer) else given
        if jax.random.key_data(key).ndim == 1:
            return key
    except (TypeError, OverflowError):  # OverflowError: a seed beyond 64 bits
        pass
    raise TypeError(f"key: expected jax.random.key(...) or an integer seed, got {given!r:.80}")


def _unpickle(
    saved: dict[str, Any],
    sizes: tuple[Any, ...],
    leaves: dict[str, np.ndarray],
    iteration: int,
    first_action: int = 0,
    about: Mapping[str, Any] | None = None,
) -> TrainedPolicy:
    """Without the environment, which may be one that is not here."""
    where = "the pickled policy"
    config = config_file.from_saved(saved, where=where)
    spec = Spec(*sizes)
    method = algorithm(config, spec)
    template = jax.eval_shape(method.init, jax.random.key(0))
    if about is not None:
        template = pretrained.acting_part(template)
    learner = from_leaves(leaves, template, "", where)
    return TrainedPolicy(config, spec, method, learner, iteration, first_action, about)


def _built(config: Config) -> Problem:
    """On one device: it may have been trained on more than there are here."""
    return build(dataclasses.replace(config, devices=1))
