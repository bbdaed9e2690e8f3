"""Policies for programs without this package: as arrays for NumPy, as ONNX, or as StableHLO.

All hold what `TrainedPolicy.predict` computes, and say what they are. `exported` reads them; what
it reads is compared with the policy before a file is written.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Float

from smpo_jax.algorithms import base
from smpo_jax.augmentation import Augmentation
from smpo_jax.core import moments
from smpo_jax.experiment import problem
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.results import exported
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.coercion import coerce_argument
from smpo_jax.experiment.settings.options import ExportFormat

if TYPE_CHECKING:
    from smpo_jax.experiment.results.policy import TrainedPolicy
    from smpo_jax.experiment.settings.options import ExportOptions

TOLERANCE = 1e-4  # between the file's actions and the policy's own, of at most 1
OPSET = 17  # of ONNX: what runtimes since 2022 know; no policy needs more
EXTRAS: Mapping[str, str] = {"onnx": "onnx", "stablehlo": "export"}  # what formats take


def main(options: "ExportOptions") -> None:
    """Exports and prints the file's name."""
    from smpo_jax.experiment.results.policy import load_policy

    out = options.out or Path(f"policy.{options.to or 'npz'}")
    to = _format(out, options.to)
    print(write(load_policy(options.folder, options.checkpoint), out, to))


def write(
    policy: "TrainedPolicy", path: str | os.PathLike[str], to: ExportFormat | None = None
) -> Path:
    """What `policy.predict` computes, as a file; see `TrainedPolicy.export`."""
    file: Path = coerce_argument("path", path, Path)
    to = _format(file, coerce_argument("to", to, ExportFormat | None))
    content = WRITERS[to](policy, _about(policy))
    if not _acts_alike(content, policy):
        raise _cannot_hold(policy, to)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
    return file


def _format(path: Path, to: ExportFormat | None) -> ExportFormat:
    """The format that is asked for; unless one is, that of the file's ending."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name a file")
    endings = {f".{name}": name for name in get_args(ExportFormat)}
    ending = endings.get(path.suffix.lower())
    found = to or ending
    if found is None:
        raise UserError(f"--out {path}: its ending must be {_CHOICES}, or --to say which it is")
    if ending is not None and ending != found:
        raise UserError(f"--out {path} has the ending of another format than --to {to}")
    return found


def _acts_alike(content: bytes, policy: "TrainedPolicy") -> bool:
    """Whether what a program reads in the file acts as the policy does.

    What a learner looks like does not say what is computed with it, so actions are compared.
    """
    seen = policy.learner.obs_moments
    noise = np.random.default_rng(0).normal(size=(16, policy.spec.observation_size))
    around = isinstance(seen, moments.Moments) and noise.shape[1:] == seen.mean.shape
    obs = noise * moments.std(seen) + seen.mean if around else noise
    try:
        read = exported.parse(content, "the policy")
        found = [read.predict(x) for x in (obs, obs[0])]
    except ValueError:
        return False
    right = [policy.predict(x) for x in (obs, obs[0])]
    return all(np.max(np.abs(a - b)) <= TOLERANCE for a, b in zip(found, right, strict=True))


def _cannot_hold(policy: "TrainedPolicy", to: str) -> UserError:
    whose = f"the policy of {policy.config.algo}"
    others = [name for name in WRITERS if name not in ("npz", to)]
    can = " and ".join(others) + (" can" if len(others) == 1 else " may")
    if to != "npz":
        return UserError(f"{whose} computes what {to} cannot hold; {can}")
    return UserError(
        f"{whose} is more than a normalisation and a multilayer perceptron of this package's: "
        f"npz cannot hold it; {can}"
    )


def _about(policy: "TrainedPolicy") -> dict[str, Any]:
    """What a file says of itself; `exported` names what is in it."""
    config, spec = policy.config, policy.spec
    account = problem.augmentation(config)
    parts = [reading._asdict() for reading in _readings(policy)]
    return {
        "format": exported.FORMAT,
        "env": config.env,
        "algo": config.algo,
        "seed": config.seed,
        "iteration": policy.iteration,
        "steps": policy.iteration * spec.num_envs * spec.rollout_length,
        "cost_limit": config.cost_limit,
        "cost_names": config.cost_names,
        "versions": {name: metadata.version(name) for name in ("smpo-jax", "jax", "numpy")},
        "observation": {
            "name": "obs",
            "size": spec.observation_size,
            "dtype": "float32",
            "unit": "as the environment gives it; the policy normalises it",
            "parts": parts,
            "account": _account(account) if account.size else None,
        },
        "action": _action(policy),
        "config": config_file.as_mapping(config),
    }


def _action(policy: "TrainedPolicy") -> dict[str, Any]:
    size = policy.spec.action_size
    if policy.spec.discrete:
        first = policy.first_action
        what = {"dtype": "int", "unit": "the number of a choice", "low": first}
        return {"name": "action", "size": size, "discrete": True, "high": first + size - 1, **what}
    return {
        "name": "action",
        "size": size,
        "discrete": False,
        "dtype": "float32",
        "unit": "-1 and 1 are the bounds of the environment's own action",
        "low": -1.0,
        "high": 1.0,
    }


def _readings(policy: "TrainedPolicy") -> tuple[Any, ...]:
    if not policy.config.source.is_native:
        return ()
    return getattr(problem.task(policy.config), "readings", ())


def _account(account: Augmentation) -> dict[str, Any]:
    """The account of cost at the end of an observation, for those who have to keep it.

    It is linear in itself and the cost, `matrix z + cost·c`, which is read off its `step`.
    """
    zero, unit = np.zeros(len(account.start)), np.eye(len(account.start))
    columns = [np.asarray(account.step(jnp.asarray(z), jnp.zeros(()))) for z in unit]
    return {
        "size": account.size,
        "start": list(account.start),
        "matrix": np.stack(columns, axis=1).tolist(),
        "cost": np.asarray(account.step(jnp.asarray(zero), jnp.ones(()))).tolist(),
    }


def _npz(policy: "TrainedPolicy", about: dict[str, Any]) -> bytes:
    settings = policy.config.hyperparameters
    try:
        arrays = {
            **_normalisation(policy.learner.obs_moments, settings),
            **_layers(policy.learner.params["policy"]),
            "kind": np.array(exported.CHOICE if policy.spec.discrete else settings.policy),
            "first_action": np.array(policy.first_action),
            "activation": np.array(settings.activation),
            "about": np.array(json.dumps(about)),
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _cannot_hold(policy, "npz") from error
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


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


def _stablehlo(policy: "TrainedPolicy", about: dict[str, Any]) -> bytes:
    """`obs [N, O] -> action [N, A]`, or `[N]` of choices, for any N, and what it is."""
    with jax.default_matmul_precision("highest"):  # GPUs would else round to 10 bits
        exporter = jax.export.export(jax.jit(_program(policy)), platforms=("cpu", "cuda", "tpu"))
        program = exporter(_any_number(policy))
    try:
        content = program.serialize()
    except ImportError as error:
        raise _needs("stablehlo", "flatbuffers") from error
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(exported.ABOUT, json.dumps(about))
        archive.writestr(exported.PROGRAM, bytes(content))
    return file.getvalue()


def _onnx(policy: "TrainedPolicy", about: dict[str, Any]) -> bytes:
    """The same program as an ONNX model, with a checksum, since ONNX has none of its own."""
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise _needs("onnx", "jax2onnx onnxruntime") from error

    # Traced before jax2onnx does, which knows neither noise for any N nor all of flax, nor, in
    # 0.17.1, the inner functions of jax 0.12; the noise, of which nothing comes, goes.
    obs = _any_number(policy)  # once: an N is equal to no other
    with jax.disable_jit():
        traced = jax.make_jaxpr(_program(policy))(obs)
    lean, _ = dce_jaxpr(traced.jaxpr, [True], instantiate=True)
    program = jaxpr_as_fun(ClosedJaxpr(lean, traced.consts))
    try:
        model = to_onnx(
            lambda obs: program(obs)[0],
            [obs],
            model_name=f"{policy.config.algo} on {policy.config.env}",
            opset=OPSET,
            input_names=["obs"],
            output_names=["action"],
        )
    except Exception as error:  # whatever it makes of an operation that it does not know
        raise UserError(f"{_cannot_hold(policy, 'onnx')} ({one_line(error):.200})") from error
    model.producer_name, model.producer_version = "smpo-jax", about["versions"]["smpo-jax"]
    about = {**about, "versions": about["versions"] | {"jax2onnx": metadata.version("jax2onnx")}}
    for key, value in (("about", json.dumps(about)), ("sha256", exported.NO_DIGEST.decode())):
        model.metadata_props.add(key=key, value=value)
    digest = exported.digest(model.SerializeToString(deterministic=True))
    model.metadata_props[-1].value = digest.decode()
    return model.SerializeToString(deterministic=True)


def _any_number(policy: "TrainedPolicy") -> jax.ShapeDtypeStruct:
    """Observations `[N, O]`, for any N."""
    (n,) = jax.export.symbolic_shape("N")
    return jax.ShapeDtypeStruct((n, policy.spec.observation_size), jnp.float32)


def _program(policy: "TrainedPolicy") -> Callable[..., jax.Array]:
    act = policy.acting(deterministic=True)

    def run(obs: Float[jax.Array, "N O"]) -> jax.Array:
        return policy.as_taken(act(obs, jax.random.key(0)))

    return run


def _needs(to: str, packages: str) -> UserError:
    return UserError(
        f"--to {to} needs the extra `{EXTRAS[to]}` (pip install {packages}); npz does not"
    )


WRITERS: dict[str, Callable[["TrainedPolicy", dict[str, Any]], bytes]] = {
    "npz": _npz,
    "onnx": _onnx,
    "stablehlo": _stablehlo,
}
_CHOICES = ", ".join(f".{name}" for name in WRITERS)
