"""Return and cost of a trained policy, in what it was trained in or in the real environment."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import smpo_envs
from smpo_envs.host import WorkerError
from smpo_jax.core import constraints
from smpo_jax.experiment.errors import UserError, one_line, tell
from smpo_jax.experiment.problem import host_env, single_env
from smpo_jax.experiment.results import intervals, pieces
from smpo_jax.experiment.results.policy import TrainedPolicy, load_policy
from smpo_jax.experiment.results.shifted import LARGEST_BATCH, LARGEST_PIECE, shifted_player
from smpo_jax.experiment.settings import shifts
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.config import (
    Config,
    in_full,
    named_limits,
    require_not_negative,
)
from smpo_jax.experiment.settings.options import EvaluateOptions
from smpo_jax.experiment.settings.shifts import NO_SHIFT
from smpo_jax.training import evaluation
from smpo_jax.training.evaluation import Episodes
from smpo_jax.training.host import evaluate_host


def main(options: EvaluateOptions) -> None:
    """Evaluates and prints."""
    require_count("episodes", options.episodes)
    for limit in () if options.cost_limit is None else in_full(options.cost_limit):
        require_not_negative("cost_limit", limit)
    policy = load_policy(options.folder, options.checkpoint)
    _require_as_many(policy.config, options)
    if options.cost_limit is not None and policy.is_told_its_limit:
        (limit,) = in_full(options.cost_limit)
        policy = policy.under(limit)
    if options.hazard_shift:
        _evaluate_shifted(policy, options, options.hazard_shift.combinations())
        return
    pieces.require_fit(policy.config, options.episodes)
    play = _play_own if options.on == "native" else _play_real
    result = _summary(policy, options, play(policy, options))
    print(json.dumps(result) if options.json else _describe(result))


def _require_as_many(config: Config, options: EvaluateOptions) -> None:
    given, own = options.cost_limit, in_full(config.cost_limit)
    if given is not None and len(in_full(given)) != len(own):
        raise UserError(
            f"cost_limit: {len(in_full(given))} given, and {options.folder} has {len(own)}: "
            f"{', '.join(config.limits)}"
        )


def _evaluate_shifted(
    policy: TrainedPolicy, options: EvaluateOptions, points: Sequence[Mapping[str, float]]
) -> None:
    """One line or record for each point."""
    if options.on != "native":
        raise UserError(
            f"--hazard-shift: {options.on} cannot be shifted, only the native environment"
        )
    play = shifted_player(policy, points, options.episodes, deterministic=options.deterministic)
    results = [
        {
            "shift": point,
            **_summary(policy, options, play(policy.learner, point, options.seed)),
        }
        for point in points
    ]
    print(json.dumps(results) if options.json else _describe_shifted(results))


def _describe_shifted(results: Sequence[Mapping[str, Any]]) -> str:
    first = results[0]
    names = [shifts.describe(each["shift"]) for each in results]
    width = max(map(len, names))
    actions = "deterministic" if first["deterministic"] else "sampled"
    lines = [
        f"{first['algo']} on {first['env']} after {first['steps']:,} steps, seed "
        f"{first['train_seed']}: {first['episodes']} episodes at each point, actions {actions}",
        f"  {'':{width}}  {'return':>18}  {'cost':>18}  over {first['cost_limit']:g}",
    ]
    for name, each in zip(names, results, strict=True):
        cells = [f"{_plus_minus(each[what]):>18}" for what in ("return", "cost")]
        over = each["over_limit"]["value"]
        lines.append(f"  {name:{width}}  {'  '.join(cells)}  {100 * over:5.1f} %")
    lines.append("±: half of Student's 95 % interval of the mean.")
    return "\n".join(lines)


def _plus_minus(measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    value = f"{measured['value']:.2f}"
    return value if low is None else f"{value} ± {(high - low) / 2:.2f}"


def _play_native(policy: TrainedPolicy, options: EvaluateOptions) -> Episodes:
    num_envs = min(options.episodes, LARGEST_BATCH)
    # Of one that is not native the policy's loading has seen that it keeps the contract.
    names = constraints.names(policy.spec.cost_limit)
    env = smpo_envs.VectorEnv(single_env(policy.config), num_envs, stagger=False, known_costs=names)
    act = policy.acting(deterministic=options.deterministic)
    begin = jax.jit(
        lambda key: evaluation.begin(env, key, rows=min(env.episode_length, LARGEST_PIECE))
    )
    go_on = jax.jit(lambda playing: evaluation.play_on(act, env, playing), donate_argnums=0)
    first = begin(jax.random.key(options.seed))
    with pieces.shown(options.episodes) as show:
        return evaluation.collect_pieces(first, go_on, options.episodes, show)


def _play_real(policy: TrainedPolicy, options: EvaluateOptions) -> Episodes:
    task_id = policy.config.source.task_id
    if task_id is None:
        raise UserError(f"--on safety-gymnasium: it has no task {policy.config.env!r}")
    real = dataclasses.replace(
        policy.config, env=f"safety-gymnasium:{task_id}", hazard_shift=NO_SHIFT
    )
    return _play_outside(policy, real, options)


def _play_own(policy: TrainedPolicy, options: EvaluateOptions) -> Episodes:
    """In what it was trained in."""
    if policy.config.source.is_outside:
        return _play_outside(policy, policy.config, options)
    return _play_native(policy, options)


def _play_outside(policy: TrainedPolicy, config: Config, options: EvaluateOptions) -> Episodes:
    """In the environments outside JAX that a config names."""
    act = policy.acting(deterministic=options.deterministic)
    batch = min(options.episodes, 4 * (os.cpu_count() or 1))
    key = jax.random.key(options.seed)
    with contextlib.closing(host_env(config, batch)) as env, pieces.shown(options.episodes) as show:
        try:
            return evaluate_host(act, env, key, options.episodes, show)
        except WorkerError as error:
            raise UserError(one_line(error)) from error
        finally:
            for notice in env.notices():
                tell(notice)


def _summary(policy: TrainedPolicy, options: EvaluateOptions, episodes: Episodes) -> dict[str, Any]:
    config, source = policy.config, policy.config.source
    is_own = options.on == "native"
    return_ = np.asarray(episodes.return_)
    limit = config.cost_limit if options.cost_limit is None else options.cost_limit
    limits = named_limits(limit, config.cost_names)
    costs = {
        name: np.asarray(cost) for name, cost in constraints.labelled("cost", episodes.cost).items()
    }
    over = int(np.sum(np.any([costs[name] > limits[name] for name in limits], axis=0)))
    return {
        "env": config.env if is_own else source.task_id,
        "on": source.name.partition(":")[0] if is_own and source.is_outside else options.on,
        "algo": config.algo,
        "train_seed": config.seed,
        "iteration": policy.iteration,
        "steps": policy.iteration * config.steps_per_iteration,
        "episodes": options.episodes,
        "deterministic": options.deterministic,
        "seed": options.seed,
        "return": _with_interval(intervals.mean(return_), return_),
        **{name: _with_interval(intervals.mean(costs[name]), costs[name]) for name in limits},
        "cost_limit": limit,
        "over_limit": _with_interval(intervals.share(over, len(return_))),
    }


def _with_interval(
    estimate: intervals.Estimate, samples: np.ndarray | None = None
) -> dict[str, Any]:
    known = {} if samples is None or len(samples) < 2 else {"std": float(np.std(samples, ddof=1))}
    low, high = (None if np.isnan(bound) else bound for bound in estimate[1:])
    return {"value": estimate.value, "interval": [low, high], **known}


def _describe(result: dict[str, Any]) -> str:
    actions = "deterministic" if result["deterministic"] else "sampled"
    lines = [
        f"{result['algo']} on {result['env']} ({result['on']}) after {result['steps']:,} steps, "
        f"seed {result['train_seed']}: {result['episodes']} episodes, actions {actions}",
    ]
    costs = [name for name in result if name == "cost" or name.startswith("cost/")]
    labels = {name: re.sub("[_/]", " ", name) for name in ("return", *costs, "over_limit")}
    width = max(10, *map(len, labels.values()))
    for name, label in labels.items():
        scale, unit = (100, " %") if name == "over_limit" else (1, "")
        low, high = (scale * (np.nan if x is None else x) for x in result[name]["interval"])
        value = scale * result[name]["value"]
        lines.append(
            f"  {label:{width}} {value:8.2f}{unit:2}  95 % interval [{low:.2f}, {high:.2f}]"
        )
    limits = in_full(result["cost_limit"])
    words = [f"{limit:g}" for limit in limits]
    if len(limits) > 1:
        words = [f"{limit:g} of {labels[name]}" for name, limit in zip(costs, limits, strict=True)]
    lines.append(
        f"over limit: share of episodes that cost more than {' or '.join(words)}. "
        "Intervals: Student's t for means, Wilson's for the share."
    )
    return "\n".join(lines)
