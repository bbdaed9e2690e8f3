"""Return and cost of a trained policy, in the native environment or in the real one."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import smpo_envs
from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.problem import augmentation, single_env
from smpo_jax.experiment.results import intervals
from smpo_jax.experiment.results.policy import TrainedPolicy, load_policy
from smpo_jax.experiment.results.shifted import LARGEST_BATCH, LARGEST_PIECE, shifted_player
from smpo_jax.experiment.settings import shifts
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.options import EvaluateOptions
from smpo_jax.training import evaluation
from smpo_jax.training.evaluation import Episodes
from smpo_jax.training.host import augment_host, evaluate_host


def main(options: EvaluateOptions) -> None:
    """Evaluates and prints."""
    require_count("episodes", options.episodes)
    if options.cost_limit is not None and not options.cost_limit >= 0:
        raise UserError(f"cost_limit: must not be negative, got {options.cost_limit}")
    policy = load_policy(options.folder, options.checkpoint)
    if options.hazard_shift:
        _evaluate_shifted(policy, options, options.hazard_shift.combinations())
        return
    play = _play_native if options.on == "native" else _play_real
    result = _summary(policy, options, play(policy, options))
    print(json.dumps(result) if options.json else _describe(result))


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
    env = smpo_envs.VectorEnv(
        single_env(policy.config), min(options.episodes, LARGEST_BATCH), stagger=False
    )
    act = policy.acting(deterministic=options.deterministic)
    begin = jax.jit(
        lambda key: evaluation.begin(env, key, rows=min(env.episode_length, LARGEST_PIECE))
    )
    go_on = jax.jit(lambda playing: evaluation.play_on(act, env, playing), donate_argnums=0)
    return evaluation.collect_pieces(begin(jax.random.key(options.seed)), go_on, options.episodes)


def _play_real(policy: TrainedPolicy, options: EvaluateOptions) -> Episodes:
    from smpo_envs.host import WorkerError, vector_env

    if policy.config.source.task_id is None:
        raise UserError(f"--on safety-gymnasium: it has no task {policy.config.env}")
    batch = min(options.episodes, 4 * (os.cpu_count() or 1))
    act = policy.acting(deterministic=options.deterministic)
    try:
        env = vector_env(policy.config.env, batch)
    except (ImportError, ValueError) as error:
        raise UserError(one_line(error)) from error
    with env:
        try:
            augmented = augment_host(env, augmentation(policy.config))
            return evaluate_host(act, augmented, jax.random.key(options.seed), options.episodes)
        except WorkerError as error:
            raise UserError(one_line(error)) from error


def _summary(policy: TrainedPolicy, options: EvaluateOptions, episodes: Episodes) -> dict[str, Any]:
    config = policy.config
    return_, cost = np.asarray(episodes.return_), np.asarray(episodes.cost)
    limit = config.cost_limit if options.cost_limit is None else options.cost_limit
    over = int(np.sum(cost > limit))
    return {
        "env": config.env if options.on == "native" else config.source.task_id,
        "on": options.on,
        "algo": config.algo,
        "train_seed": config.seed,
        "iteration": policy.iteration,
        "steps": policy.iteration * config.steps_per_iteration,
        "episodes": options.episodes,
        "deterministic": options.deterministic,
        "seed": options.seed,
        "return": _with_interval(intervals.mean(return_), return_),
        "cost": _with_interval(intervals.mean(cost), cost),
        "cost_limit": limit,
        "over_limit": _with_interval(intervals.share(over, len(cost))),
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
    for name, scale, unit in (("return", 1, ""), ("cost", 1, ""), ("over_limit", 100, " %")):
        low, high = (scale * (np.nan if x is None else x) for x in result[name]["interval"])
        label = name.replace("_", " ")
        value = scale * result[name]["value"]
        lines.append(f"  {label:10} {value:8.2f}{unit:2}  95 % interval [{low:.2f}, {high:.2f}]")
    lines.append(
        f"over limit: share of episodes that cost more than {result['cost_limit']:g}. "
        "Intervals: Student's t for means, Wilson's for the share."
    )
    return "\n".join(lines)
