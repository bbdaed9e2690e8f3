"""What an update costs as observations, networks, batches grow, and with pictures.

    python configs/suites/scale.py count    # arithmetic alone: writes operations.csv and the figure
    python configs/suites/scale.py measure  # seconds and bytes too: adds to measured.csv

Counted are the multiplications and additions of matrix products, of all passes that an update can
make; what is left is not. A convolution is refused: `pixels.py` writes its own as products. The
compiler's own count takes every loop's body once, so it is not used. The environment is made up:
its observations are a fixed vector of the size that is asked for, times a number that a step
changes.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from pixels import TASK, add, networks

import smpo_envs
import smpo_jax as sx
from smpo_envs import compilation
from smpo_envs.from_above import from_above
from smpo_envs.safe_env import Environment, State
from smpo_jax.core import episodes
from smpo_jax.training.rollout import collect

# Without a safety critic and with it: the first of each pair is the second without its critic.
METHODS = ("ppo", "ppo_lag", "smpo-ppo", "trpo", "smpo")
OUT = Path("configs/suites/reports/scale")
LENGTH = 250  # steps of each environment between two updates
SECONDS = 10.0  # for the repeats of a cell, at least two of each method


class Cell(NamedTuple):
    """A size to measure at.

    Attributes:
        axis: what is varied.
        observation: numbers in an observation.
        width: of both hidden layers, of all networks.
        batch: steps between two updates.
    """

    axis: str
    observation: int = 60
    width: int = 64
    batch: int = 8_000


CELLS = (
    *(Cell("observation", observation=size) for size in (60, 300, 1_000, 3_000, 10_000)),
    *(Cell("width", width=width) for width in (64, 128, 256, 512, 1_024)),
    *(Cell("batch", batch=batch) for batch in (8_000, 16_000, 32_000, 64_000, 128_000)),
    Cell("pictures", observation=64 * 64 * 4, batch=4_000),
)


class Subject(NamedTuple):
    """A method at a size: its update, and what that is given."""

    algorithm: sx.Algorithm
    env: smpo_envs.VectorEnv
    update: Callable[..., Any]
    learner: Any
    rollout: Any
    key: jax.Array


def made_up(size: int) -> Environment:
    """Observations of so many numbers, that cost next to nothing to make."""
    pattern = jnp.sin(jnp.arange(size, dtype=float))

    def reset(key: jax.Array) -> State:
        phase = jax.random.uniform(key)
        zero = jnp.zeros(())
        return State(phase, phase * pattern, zero, zero, info={"cost": zero})

    def step(state: State, action: jax.Array) -> State:
        phase = 0.9 * state.pipeline_state + 0.1 * action[0]
        cost = jnp.where(phase > 0.5, 1.0, 0.0)
        return state.replace(
            pipeline_state=phase, obs=phase * pattern, reward=phase, info={"cost": cost}
        )

    return Environment(reset, step, size, 2, 1000)


def subject(method: str, cell: Cell) -> Subject:
    """Shapes alone; nothing is computed until the update is called on arrays."""
    is_seen = cell.axis == "pictures"
    single = from_above(smpo_envs.make(TASK)) if is_seen else made_up(cell.observation)
    env = smpo_envs.VectorEnv(single, cell.batch // LENGTH)
    spec = sx.make_spec(env, rollout_length=LENGTH, total_iterations=100)
    widths: dict[str, Any] = {} if is_seen else {"hidden": (cell.width,) * 2}
    if method.startswith("smpo") and not is_seen:
        widths["cost_hidden"] = (cell.width,) * 2
    own = networks(spec.observation_shape, spec.action_size) if is_seen else None
    algorithm = sx.make(method, spec, networks=own, **widths)

    def roll_out(learner: Any, env_state: Any, key: jax.Array) -> Any:
        _, transition = collect(algorithm.policy(learner), env, env_state, key, LENGTH)
        tracker = episodes.start(env.num_envs, env_state.steps, env.cost_names)
        return sx.track(spec, tracker, transition)[1]

    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(algorithm.init, key)
    env_state = jax.eval_shape(env.reset, key)
    rollout = jax.eval_shape(roll_out, learner, env_state, key)
    return Subject(algorithm, env, algorithm.update, learner, rollout, key)


def operations(subject: Subject) -> float:
    """Multiplications and additions of an update that makes all its passes."""
    program = jax.make_jaxpr(subject.update)(subject.learner, subject.rollout, subject.key)
    return counted(program.jaxpr)


def counted(jaxpr: Any) -> float:
    """Those of a program."""
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> float:
    name, given = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = given["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        raise ValueError(
            "convolutions are not counted: write them as products of patches (pixels.py)"
        )
    if name == "cond":
        return max(counted(branch.jaxpr) for branch in given["branches"])
    inner = sum(counted(program) for program in _programs(given))
    if name == "scan":
        return given["length"] * inner
    return (_most(given) if name == "while" else 1) * inner


def _most(given: dict[str, Any]) -> int:
    """How often a loop without a fixed length goes round, at most.

    Those that hold a scan over minibatches have a bound, their passes. The others, which go back
    where a step was too long, are counted once.
    """
    if not any(inside.primitive.name == "scan" for inside in given["body_jaxpr"].jaxpr.eqns):
        return 1
    bounds = [
        int(equation.invars[1].val)
        for equation in given["cond_jaxpr"].jaxpr.eqns
        if equation.primitive.name == "lt" and isinstance(equation.invars[1], jex.Literal)
    ]
    if len(bounds) != 1:
        raise ValueError(f"a loop over minibatches has {len(bounds)} bounds, not one")
    return bounds[0]


def _programs(given: dict[str, Any]) -> Iterator[Any]:
    for value in given.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, jex.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, jex.Jaxpr):
                yield part


def count(out: Path) -> None:
    """Writes operations of all cells, and the figure."""
    rows = []
    for cell in CELLS:
        counts = {name: operations(subject(name, cell)) for name in METHODS}
        share = 1 - counts["ppo"] / counts["smpo-ppo"]
        natural = 1 - counts["trpo"] / counts["smpo"]
        rows.append((*cell, *(x / cell.batch for x in counts.values()), share, natural))
        print(*rows[-1], flush=True)
    path = out / "operations.csv"
    path.unlink(missing_ok=True)
    names = [f"{name} a step" for name in METHODS]
    add(path, (*Cell._fields, *names, "critic of smpo-ppo", "critic of smpo"), rows)
    draw(rows, out / "operations.png")


def draw(rows: list[Any], path: Path) -> None:
    """The safety critic's share of all operations, along each axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, axis in zip(panels, ("observation", "width", "batch"), strict=True):
        own = [row for row in rows if row[0] == axis]
        at = [row[Cell._fields.index(axis)] for row in own]
        panel.semilogx(at, [row[-2] for row in own], "o-", label="smpo-ppo, beside ppo")
        panel.semilogx(at, [row[-1] for row in own], "s-", label="smpo, beside trpo")
        panel.axhline(0.5, color="grey", linewidth=0.8)
        panel.set_xlabel({"observation": "numbers in an observation"}.get(axis, axis))
    panels[0].set_ylim(0, 1)
    panels[0].set_ylabel("critic's share of operations")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def measure(out: Path, axes: list[str]) -> None:
    """Adds seconds, bytes and steps a second of each method, which take turns."""
    names = ("method", "seconds", "bytes", "rollout_seconds", "steps_per_second", "repeats")
    for cell in (cell for cell in CELLS if cell.axis in axes):
        rows = _measured(cell)
        add(out / "measured.csv", (*Cell._fields, *names), rows)
        for row in rows:
            print(*row, flush=True)


def _measured(cell: Cell) -> list[tuple[Any, ...]]:
    subjects = {name: subject(name, cell) for name in METHODS}
    one = subjects["ppo"]
    state = jax.jit(one.env.reset)(jax.random.key(1))
    learners = {n: jax.jit(s.algorithm.init)(jax.random.key(0)) for n, s in subjects.items()}

    def roll_out(learner: Any, state: Any, key: jax.Array) -> Any:
        return collect(one.algorithm.policy(learner), one.env, state, key, LENGTH)[1]

    jax.block_until_ready(learners)  # which is not what is measured
    options = compilation.options()
    key = jax.random.key(2)
    collector = jax.jit(roll_out).lower(learners["ppo"], state, key).compile(options)
    transition = collector(learners["ppo"], state, key)
    collecting = _seconds(lambda: collector(learners["ppo"], state, key))
    tracker = episodes.start(one.env.num_envs, state.steps, one.env.cost_names)
    spec = sx.make_spec(one.env, rollout_length=LENGTH, total_iterations=100)
    rollout = sx.track(spec, tracker, transition)[1]
    compiled = {
        name: jax.jit(s.update).lower(learners[name], rollout, key).compile(options)
        for name, s in subjects.items()
    }
    took: dict[str, list[float]] = {name: [] for name in METHODS}
    for name in METHODS:  # the first call is slower
        _seconds(lambda name=name: compiled[name](learners[name], rollout, key))
    began = time.perf_counter()
    while len(took["ppo"]) < 2 or time.perf_counter() - began < SECONDS:
        for name in METHODS:
            once = _seconds(lambda name=name: compiled[name](learners[name], rollout, key))
            took[name].append(once)
    rows = []
    for name in METHODS:
        seconds = statistics.median(took[name])
        memory = compiled[name].memory_analysis()
        used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        rate = cell.batch / (seconds + collecting)
        rows.append((*cell, name, seconds, used, collecting, rate, len(took[name])))
    return rows


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def main() -> None:
    """Counts or measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["count", "measure"])
    axes = ["observation", "width", "batch", "pictures"]
    parser.add_argument("--axes", nargs="+", default=axes, choices=axes)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "count":
        count(options.out)
    else:
        measure(options.out, options.axes)


if __name__ == "__main__":
    main()
