"""Acts with an exported policy. This one file is all it takes: copy it to where it is to act.

It imports nothing of this package, and besides NumPy only what the file's format takes: nothing for
npz, onnxruntime for ONNX, jax for StableHLO. Which of them a file is, its content says.

    policy = load_exported("policy.onnx")
    action = policy.predict(obs)
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "smpo-jax policy, version 1"
ABOUT, PROGRAM = "about.json", "program"  # what the archive of a StableHLO program holds
DIGEST = re.compile(rb"sha256\x12@([0-9a-f]{64})")  # as protobuf writes an entry of the metadata
NO_DIGEST = b"0" * 64  # stands in its place while it is computed

CHOICE = "categorical"  # the kind of a policy whose actions are discrete

SafeAction = Sequence[float] | int | None
Act = Callable[[np.ndarray], np.ndarray]  # obs [N, O] -> action [N, A], float32, or [N] of numbers


class ExportedPolicy:
    """A policy without noise, whose actions are within -1 and 1, or numbers of choices.

    Attributes:
        about: what the file says of itself: `env`, `algo`, `seed`, `iteration`, `steps`,
            `cost_limit` (of an episode; with several costs one for each of `cost_names`),
            `versions`, `observation` and `action` (sizes, parts, units, bounds), and the run's
            whole `config`.
        observation_size: `O`.
        action_size: `A`.
        discrete: whether an action is the number of one of `A` choices.
        safe_action: `[A]` or a number, or None.
    """

    def __init__(self, act: Act, about: dict[str, Any], safe_action: SafeAction = None) -> None:
        self.about = about
        self.observation_size = int(about["observation"]["size"])
        self.action_size = int(about["action"]["size"])
        self.discrete = bool(about["action"]["discrete"])
        self.action_shape = () if self.discrete else (self.action_size,)
        self.safe_action = None if safe_action is None else self._checked(safe_action)
        self._act = act

    def predict(self, obs: Any) -> Any:
        """The action for one observation `[O]` or several `[N, O]`, as the environment gives them.

        Where an observation has NaN or infinity, or one so large that the network overflows, the
        action is `safe_action` if there is one. The others are not touched by that.

        Returns:
            `[A]` or `[N, A]`, float32; if actions are discrete an int, or ints `[N]`.

        Raises:
            ValueError: observations of another size; or one that is not finite, without a
                `safe_action`.
        """
        size = self.observation_size
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            given = np.asarray(obs, np.float32)
        if given.ndim not in (1, 2) or given.shape[-1] != size:
            raise ValueError(f"obs has shape {list(given.shape)}, expected [{size}] or [N, {size}]")
        dtype = np.int64 if self.discrete else np.float32
        if not given.size:
            return np.zeros((0, *self.action_shape), dtype)
        rows = np.atleast_2d(given)
        good: np.ndarray = np.all(np.isfinite(rows), axis=1)
        action = np.asarray(self._act(np.where(good[:, None], rows, np.float32(0))), dtype)
        good &= np.all(np.isfinite(action.reshape(len(rows), -1)), axis=1)
        if not good.all():
            if self.safe_action is None:
                which = f"obs {int(np.argmin(good))}" if given.ndim == 2 else "obs"
                raise ValueError(f"{which} is not finite (NaN or infinity), or its action is not")
            action = np.where(good if self.discrete else good[:, None], action, self.safe_action)
        if given.ndim == 2:
            return action
        return int(action[0]) if self.discrete else action[0]

    def _checked(self, safe_action: Any) -> np.ndarray:
        low, high = self.about["action"]["low"], self.about["action"]["high"]
        action = np.asarray(safe_action, np.float32)
        is_whole = not self.discrete or bool(np.all(action == np.round(action)))
        is_within = bool(np.all((low <= action) & (action <= high)))
        if action.shape != self.action_shape or not (is_whole and is_within):
            wanted = "a whole number" if self.discrete else f"{self.action_size} numbers"
            raise ValueError(f"safe_action={safe_action} must be {wanted} of {low:g} to {high:g}")
        return action.astype(np.int64 if self.discrete else np.float32)


def load_exported(
    path: str | os.PathLike[str], *, safe_action: SafeAction = None
) -> ExportedPolicy:
    """The policy in a file that `smpo-jax export` has written.

    Args:
        path: the file; its name does not matter.
        safe_action: `[A]`, within -1 and 1, or a choice's number: what to do where an observation
            is not finite. Without it that is an error.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged or something else; or no such action can be taken.
        ImportError: reading its format takes a package that is not there.
    """
    return parse(Path(path).read_bytes(), str(path), safe_action=safe_action)


def parse(content: bytes, name: str, *, safe_action: SafeAction = None) -> ExportedPolicy:
    """The policy in the content of a file of that name; see `load_exported`."""
    try:
        act, about = _reader(content)(content)
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, expected {FORMAT!r}")
        policy = ExportedPolicy(act, about)
        found = act(np.zeros((2, policy.observation_size), np.float32)).shape
        if found != (2, *policy.action_shape):
            raise ValueError(f"actions have shape {list(found)}")
    except ImportError as error:
        raise ImportError(f"{name} takes a package that is not there: {error}") from error
    except Exception as error:  # whatever the readers of a format make of other bytes
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{name} is damaged, or no policy that smpo-jax exported ({why:.200})"
        ) from error
    return ExportedPolicy(act, about, safe_action)


def _reader(content: bytes) -> Callable[[bytes], tuple[Act, dict[str, Any]]]:
    if DIGEST.search(content):
        return _onnx
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return _stablehlo if PROGRAM in archive.namelist() else _npz


def _npz(content: bytes) -> tuple[Act, dict[str, Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)  # whose checksums are compared on the way
    activation = ACTIVATIONS[str(arrays["activation"])]
    layers = [(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range(int(arrays["layers"]))]
    mean, std, clip = arrays["mean"], arrays["std"], arrays["clip"]
    to_action, first = HEADS[str(arrays["kind"])], int(arrays["first_action"])

    def act(obs: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # `predict` looks at what comes out
            x = np.clip((obs - mean) / std, -clip, clip)
            for weight, bias in layers[:-1]:
                x = activation(x @ weight + bias)
            weight, bias = layers[-1]
            action = to_action(x @ weight + bias)
            return action + first if action.ndim == 1 else action

    return act, json.loads(str(arrays["about"]))


ACTIVATIONS: dict[str, Act] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}

# What the network gives becomes an action; by the kind of policy.
HEADS: dict[str, Act] = {
    "gaussian": lambda x: np.clip(x, -1, 1),
    "squashed": np.tanh,
    CHOICE: lambda x: x.argmax(axis=-1),
}


def _onnx(content: bytes) -> tuple[Act, dict[str, Any]]:
    if DIGEST.findall(content) != [digest(content)]:
        raise ValueError("its content is not that of its checksum")
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["about"])
    return lambda obs: np.asarray(session.run(["action"], {"obs": obs})[0]), about


def digest(content: bytes) -> bytes:
    """SHA-256 of an ONNX file, in hexadecimal digits, without that which it holds itself."""
    blank = DIGEST.sub(lambda found: found[0].replace(found[1], NO_DIGEST), content)
    return hashlib.sha256(blank).hexdigest().encode()


def _stablehlo(content: bytes) -> tuple[Act, dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        program, about = archive.read(PROGRAM), json.loads(archive.read(ABOUT))
    import jax
    import jax.export

    run = jax.jit(jax.export.deserialize(bytearray(program)).call)
    return lambda obs: np.asarray(run(obs)), about
