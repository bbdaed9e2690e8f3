"""How fast this machine steps the environments and trains, compilation apart."""

import contextlib
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax

import smpo_envs
from smpo_envs import compilation, throughput
from smpo_envs.naming import find
from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import UserError, one_line, tell
from smpo_jax.experiment.problem import build, host_env, provide, task
from smpo_jax.experiment.run.program import loop_of
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.options import BenchOptions
from smpo_jax.training import loop
from smpo_jax.training.devices import make_mesh, sharded

BUDGET = 10_000_000  # environment steps of a run of the usual length


def main(options: BenchOptions) -> None:
    """Measures and prints; the numbers as they come, unless they are wanted as JSON."""
    _check(options)
    provide(options.devices)
    config = _config(options)
    _require_fits(config, options)

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    result: dict[str, Any] = {"machine": machine(), "env": config.env, "repeats": options.repeats}
    say(", ".join(f"{key}: {value}" for key, value in result["machine"].items()))
    say(f"{config.env}, median of {options.repeats}")

    is_outside = config.source.is_outside
    result["environment"] = []
    for num_envs in (options.train_envs,) if is_outside else options.num_envs:
        row = (outside if is_outside else environment)(config, num_envs, options)
        result["environment"].append(row)
        say(f"  step {num_envs:>6} envs      {_rate(row)}")

    result["training"] = []
    for algo in options.algos:
        row = (training_outside if is_outside else training)(algo, options)
        result["training"].append(row)
        say(
            f"  train {algo:16} {_rate(row)}, 1e7 steps of "
            f"{row['seeds']} seed(s) in {row['seconds_per_1e7_steps']:,.0f} s"
        )
        if is_outside:
            row["share"] = row["steps_per_second"] / result["environment"][0]["steps_per_second"]
            say(f"  {'':22} {row['share']:.0%} of random actions alone")

    result["real"] = real(config.env)
    result["ratio"] = None
    if result["real"]:
        native = max((row["steps_per_second"] for row in result["environment"]), default=None)
        theirs = result["real"]["steps_per_second"]
        say(f"  {result['real']['task']}  {theirs:12,.0f} steps/s in one process")
        if native and not is_outside:
            result["ratio"] = native / theirs
            say(f"  native steps per real step  {result['ratio']:,.0f}")
    if options.json:
        print(json.dumps(result))


def environment(config: Config, num_envs: int, options: BenchOptions) -> dict[str, Any]:
    """Random actions, resets included."""
    try:
        mesh = make_mesh(options.devices, num_envs)
        envs = sharded(smpo_envs.VectorEnv(task(config), num_envs), mesh)
        seen = throughput.measure(envs, repeats=options.repeats)
    except ValueError as error:  # devices that are not there
        raise UserError(one_line(error)) from error
    return {"num_envs": num_envs, **seen._asdict()}


def outside(config: Config, num_envs: int, options: BenchOptions) -> dict[str, Any]:
    """Random actions in worker processes, without a policy; resets included."""
    from smpo_envs.host import measure_workers

    with contextlib.closing(host_env(config, num_envs, training=True)) as env:
        rate = measure_workers(env, options.rollout_length, options.repeats)
    return {"num_envs": num_envs, "steps_per_second": rate}


def training(algo: str, options: BenchOptions) -> dict[str, Any]:
    """Whole iterations: rollout and update, of `seeds` runs in one program."""
    config = _config(options, algo)
    problem = build(config)
    keys = jax.random.split(jax.random.key(0), options.seeds)
    state = jax.vmap(lambda key: loop.init(problem.algorithm, problem.env, key, problem.mesh))(keys)
    iteration = jax.vmap(loop.iteration(problem.algorithm, problem.env, problem.spec, problem.mesh))
    began = time.perf_counter()
    compiled = jax.jit(iteration, donate_argnums=0).lower(state).compile(compilation.options())
    compile_seconds = time.perf_counter() - began
    state, _ = jax.block_until_ready(compiled(state))  # the first call is slower
    rates = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state))
        took = time.perf_counter() - began
        rates.append(options.seeds * config.steps_per_iteration / took)
    return _trained(config, options.seeds, compile_seconds, statistics.median(rates))


def _config(options: BenchOptions, algo: str = Config.algo) -> Config:
    return Config(
        env=options.env,
        algo=algo,
        env_options=options.env_options,
        num_envs=options.train_envs,
        devices=options.devices,
        rollout_length=options.rollout_length,
    )


def _trained(config: Config, seeds: int, compile_seconds: float, rate: float) -> dict[str, Any]:
    return {
        "algo": config.algo,
        "num_envs": config.num_envs,
        "rollout_length": config.rollout_length,
        "seeds": seeds,
        "compile_seconds": compile_seconds,
        "steps_per_second": rate,
        "seconds_per_1e7_steps": seeds * BUDGET / rate,
    }


def training_outside(algo: str, options: BenchOptions) -> dict[str, Any]:
    """Whole iterations of one run: rollout in worker processes and update."""
    config = _config(options, algo)
    problem = build(config)
    loop = loop_of(problem)
    state = loop.init(jax.random.key(0))
    began = time.perf_counter()
    launch = loop.compile(state)
    compile_seconds = time.perf_counter() - began
    rates = []
    with contextlib.closing(launch(state, tell)) as run:
        run.iterate({0: 1})  # it starts the workers
        for _ in range(options.repeats):
            began = time.perf_counter()
            run.iterate({0: 1})
            rates.append(config.steps_per_iteration / (time.perf_counter() - began))
    return _trained(config, 1, compile_seconds, statistics.median(rates))


def real(env: str) -> dict[str, Any] | None:
    """The real package on the same machine; None where it is not installed."""
    task_id = find(env).task_id
    if task_id is None:
        return None
    from smpo_envs.host import measure_real

    try:
        seen = measure_real(task_id)
    except ImportError:
        return None
    return {"task": task_id, **seen._asdict()}


def _check(options: BenchOptions) -> None:
    for name in ("devices", "train_envs", "rollout_length", "seeds", "repeats"):
        require_count(name, getattr(options, name))
    for num_envs in options.num_envs:
        require_count("num_envs", num_envs)
    for algo in options.algos:
        Config(env=options.env, algo=algo)


def _require_fits(config: Config, options: BenchOptions) -> None:
    """Refuses before the first measurement what the last one has no memory for."""
    if not config.source.is_outside:
        state = jax.eval_shape(smpo_envs.VectorEnv(task(config), 1).reset, jax.random.key(0))
        for num_envs in options.num_envs:
            sizes.require_fits("num_envs", num_envs, sizes.nbytes(state))
    for algo in options.algos:
        own = _config(options, algo)
        sizes.require_runs_fit(own, build(own), options.seeds, "seeds")


def _rate(row: dict[str, Any]) -> str:
    rate = f"{row['steps_per_second']:12,.0f} steps/s"
    seconds = row.get("compile_seconds")
    return rate if seconds is None else f"{rate}, compiled in {seconds:.1f} s"


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
