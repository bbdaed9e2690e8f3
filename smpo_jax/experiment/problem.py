"""From a config to the things that run: environment, specification and algorithm."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

import smpo_envs
import smpo_jax
from smpo_jax.algorithms import registry
from smpo_jax.augmentation import Augmentation, SingleEnv, augment
from smpo_jax.experiment.config import Config
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.training.loop import make_spec
from smpo_jax.types import Algorithm, Scalar, Spec, VectorEnv

NOTHING: Mapping[str, Scalar] = MappingProxyType({})


class Problem(NamedTuple):
    """What a training run needs besides its state."""

    env: VectorEnv
    spec: Spec
    algorithm: Algorithm


def build(config: Config, traced: Mapping[str, Scalar] = NOTHING) -> Problem:
    """The environment and the algorithm of a run.

    Args:
        config: the run.
        traced: the cost limit and float hyperparameters that replace those of the config; inside a
            `vmap`, runs that differ only in these become one program.

    Raises:
        UserError: sizes that do not fit together, values the algorithm refuses, or no device.
    """
    try:
        jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names a device that is not there
        raise UserError(one_line(error)) from error
    try:
        limit, own = _settings(config, traced)
        env = smpo_envs.VectorEnv(single_env(config, traced), config.num_envs)
        spec = make_spec(
            env,
            rollout_length=config.rollout_length,
            total_iterations=config.total_iterations,
            cost_limit=limit,
        )
        algorithm = smpo_jax.make(config.algo, spec, **own)
    except ValueError as error:
        raise UserError(one_line(error)) from error
    return Problem(env, spec, algorithm)


def single_env(config: Config, traced: Mapping[str, Scalar] = NOTHING) -> SingleEnv:
    """The task, with what the algorithm adds to it."""
    return augment(smpo_envs.make(config.env), augmentation(config, traced))


def augmentation(config: Config, traced: Mapping[str, Scalar] = NOTHING) -> Augmentation:
    """What the algorithm adds to an environment, whichever it is."""
    limit, own = _settings(config, traced)
    return registry.augmentation(config.algo, limit, **own)


def _settings(config: Config, traced: Mapping[str, Scalar]) -> tuple[Scalar, dict[str, Any]]:
    """The cost limit and the hyperparameters."""
    own = {name: value for name, value in traced.items() if name != "cost_limit"}
    return traced.get("cost_limit", config.cost_limit), {**config.hyperparameters, **own}


def machine() -> dict[str, Any]:
    """What the numbers of a run depend on besides its config."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
