"""Policies for programs without this package: arrays for NumPy, or a program of JAX's."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from smpo_jax.algorithms import base
from smpo_jax.core import moments
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument

if TYPE_CHECKING:
    from smpo_jax.experiment.results.policy import TrainedPolicy
    from smpo_jax.experiment.settings.options import ExportOptions

ARRAYS, PROGRAM = ".npz", ".bin"
TOLERANCE = 1e-4  # between NumPy's actions and the policy's own, of at most 1
DISCRETE = "categorical"  # the kind of a policy of choices; others are called as in the settings
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}


def main(options: "ExportOptions") -> None:
    """Exports and prints the file's name."""
    from smpo_jax.experiment.results.policy import load_policy

    _check(options.out)
    print(write(load_policy(options.folder, options.checkpoint), options.out))


def write(policy: "TrainedPolicy", path: str | os.PathLike[str]) -> Path:
    """What `policy.predict` computes, as a file; see `TrainedPolicy.export`."""
    file: Path = coerce_argument("path", path, Path)
    _check(file)
    if file.suffix.lower() == PROGRAM:
        content = _program(policy, file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file
    arrays = _arrays(policy)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as opened:  # `savez` would change a name that ends in .NPZ
        np.savez(opened, allow_pickle=False, **arrays)
    return file


def _check(path: Path) -> None:
    if path.suffix.lower() not in (ARRAYS, PROGRAM):
        allowed = f"{ARRAYS} (arrays) or {PROGRAM} (program)"
        raise UserError(f"--out {path}: its ending must be {allowed}")


def _arrays(policy: "TrainedPolicy") -> dict[str, np.ndarray]:
    settings = policy.config.hyperparameters
    # What a learner looks like does not say what is computed with it: the actions are compared.
    obs = np.random.default_rng(0).normal(size=(16, policy.spec.observation_size))
    try:
        arrays = {
            **_normalisation(policy.learner.obs_moments, settings),
            **_layers(policy.learner.params["policy"]),
            "kind": np.array(DISCRETE if policy.spec.discrete else settings.policy),
            "first_action": np.array(policy.first_action),
            "activation": np.array(settings.activation),
            "about": np.array(json.dumps(config_file.as_mapping(policy.config))),
        }
        difference = np.abs(_act(arrays, obs) - policy.predict(obs)).max()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _not_ours(policy) from error
    if not difference <= TOLERANCE:
        raise _not_ours(policy)
    return arrays


def _not_ours(policy: "TrainedPolicy") -> UserError:
    return UserError(
        f"the policy of {policy.config.algo} is no multilayer perceptron of this package's: "
        f"{ARRAYS} cannot hold it, but {PROGRAM} can"
    )


def _normalisation(
    seen: moments.Moments, settings: base.ActorCriticSettings
) -> dict[str, np.ndarray]:
    if settings.normalise_observations:
        mean, std, clip = seen.mean, moments.std(seen), settings.observation_clip
    else:
        mean, std, clip = np.zeros_like(seen.mean), np.ones_like(seen.mean), np.inf
    return {"mean": np.asarray(mean), "std": np.asarray(std), "clip": np.array(clip, np.float32)}


def _layers(params: Any) -> dict[str, np.ndarray]:
    layers = params["logits" if "logits" in params else "mean"]["params"]
    arrays = {"layers": np.array(len(layers))}
    if "log_std" in params:
        arrays["log_std"] = np.asarray(params["log_std"])
    for i in range(len(layers)):
        layer = layers[f"Dense_{i}"]
        arrays[f"weight_{i}"] = np.asarray(layer["kernel"])
        arrays[f"bias_{i}"] = np.asarray(layer["bias"])
    return arrays


def _act(arrays: Mapping[str, np.ndarray], obs: Float[np.ndarray, "N O"]) -> np.ndarray:
    """The recipe of the README, by which `_arrays` is checked."""
    activation, last = ACTIVATIONS[str(arrays["activation"])], int(arrays["layers"]) - 1
    x = np.clip((obs - arrays["mean"]) / arrays["std"], -arrays["clip"], arrays["clip"])
    for i in range(last + 1):
        x = x @ arrays[f"weight_{i}"] + arrays[f"bias_{i}"]
        x = activation(x) if i < last else x
    if arrays["kind"] == DISCRETE:
        return arrays["first_action"] + x.argmax(axis=-1)
    return np.tanh(x) if arrays["kind"] == "squashed" else np.clip(x, -1.0, 1.0)


def _program(policy: "TrainedPolicy", path: Path) -> bytes:
    """`obs [N, O] -> action [N, A]`, or `[N]` of choices, as StableHLO with its parameters."""
    act = policy.acting(deterministic=True)

    def run(obs: Float[jax.Array, "N O"]) -> jax.Array:
        return policy.as_taken(act(obs, jax.random.key(0)))

    (n,) = jax.export.symbolic_shape("n")
    obs = jax.ShapeDtypeStruct((n, policy.spec.observation_size), jnp.float32)
    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(obs)
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UserError(
            f"--out {path}: {PROGRAM} needs the extra `export` (pip install flatbuffers); {ARRAYS} "
            "does not"
        ) from error
