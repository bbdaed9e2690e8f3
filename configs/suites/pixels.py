"""Does the safety critic know what follows when it sees pictures? PointGoal1 from above.

    python configs/suites/pixels.py --steps 100000 --out configs/suites/reports/scale

Trains from pictures and from the task's own vectors, with the same steps, and holds each critic of
costs against what then followed in whole new episodes. Writes `pixels.csv`, a row for each run, and
`calibration.csv`, its bins. Runs that are in the file already are not made again.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import smpo_envs
import smpo_jax as sx
from smpo_envs import compilation
from smpo_envs.from_above import from_above
from smpo_jax.core.calibration import Calibration
from smpo_jax.training.calibration import calibrate

TASK = "PointGoal1"
METHODS = ("smpo", "ppo_lag")
NUM_ENVS, ROLLOUT_LENGTH = 16, 250
LAST = 4  # iterations, an episode's length, whose means are reported


def patches(x: jax.Array, side: int) -> jax.Array:
    """`[*batch, H, W, C] -> [*batch, H / side, W / side, side * side * C]`.

    A dense layer on these is a convolution whose windows do not overlap, as a matrix product, which
    is what a CPU is quick at.
    """
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // side, side, width // side, side, channels)
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*batch, height // side, width // side, side * side * channels)


class Sight(nn.Module):
    """Two convolutions over the things that are seen, one dense layer over that and the sensors."""

    outputs: int
    head_gain: float = 1.0

    @nn.compact
    def __call__(self, picture: jax.Array, *others: jax.Array) -> jax.Array:
        """Outputs of pictures `[*batch, H, W, C]`, whose last channel has the sensors' bands."""
        x = nn.relu(nn.Dense(8)(patches(picture[..., :-1], 8)))
        x = nn.relu(nn.Dense(16)(patches(x, 2)))
        sensors = picture[..., 0, -1]
        x = jnp.concatenate([x.reshape(*x.shape[:-3], -1), sensors, *others], axis=-1)
        x = nn.tanh(nn.Dense(64)(x))
        start = nn.initializers.variance_scaling(self.head_gain**2, "fan_in", "truncated_normal")
        return nn.Dense(self.outputs, kernel_init=start)(x)


def networks(shape: tuple[int, ...], actions: int) -> sx.Networks:
    """All that any method needs, on pictures of that shape."""

    def seeing(module: Sight, head: Any, *others: jax.Array) -> sx.Network:
        return sx.Network(
            lambda key: module.init(key, jnp.zeros((1, *shape)), *others),
            lambda params, *inputs: head(module.apply(params, *inputs)),
        )

    sight = Sight(actions, head_gain=0.01)

    def apply(params: Any, picture: jax.Array) -> sx.DiagonalGaussian:
        mean = jnp.asarray(sight.apply(params["mean"], picture))
        return sx.DiagonalGaussian(mean, jnp.broadcast_to(params["log_std"], mean.shape))

    def init(key: jax.Array) -> Any:
        mean = sight.init(key, jnp.zeros((1, *shape)))
        return {"mean": mean, "log_std": jnp.zeros(actions)}

    return sx.Networks(
        policy=sx.Network(init, apply),
        value=seeing(Sight(1), lambda out: out[..., 0]),
        action_value=seeing(
            Sight(1), lambda out: nn.softplus(out[..., 0]), jnp.zeros((1, actions))
        ),
    )


class Run(NamedTuple):
    """What came of a run.

    Attributes:
        return_, cost: of the episodes that ended in the last iterations.
        ratio: mean prediction over the mean of what followed; 1 is right.
        slope: of what followed on what was predicted, over the bins; below 1 exaggerates.
        correlation: of bins, weighted alike.
        error: mean over bins of |predicted - followed|, discounted cost.
        followed: mean of what followed, discounted cost.
        seconds: of training, without compilation.
    """

    method: str
    sees: str
    seed: int
    steps: int
    return_: float
    cost: float
    ratio: float
    slope: float
    correlation: float
    error: float
    followed: float
    seconds: float


def train(method: str, sees: str, seed: int, steps: int) -> tuple[Run, Calibration]:
    """One run, and its critic in new episodes."""
    task = smpo_envs.make(TASK)
    single = from_above(task) if sees == "pictures" else task
    env = smpo_envs.VectorEnv(single, NUM_ENVS)
    iterations = steps // (NUM_ENVS * ROLLOUT_LENGTH)
    spec = sx.make_spec(env, rollout_length=ROLLOUT_LENGTH, total_iterations=iterations)
    own = networks(spec.observation_shape, spec.action_size) if spec.observation_shape else None
    algorithm = sx.make(method, spec, networks=own)
    state = sx.init(algorithm, env, jax.random.key(seed))
    chunk = sx.chunk(algorithm, env, spec, 1).lower(state).compile(compilation.options())
    began, rows = time.perf_counter(), []
    for _ in range(iterations):
        state, metrics = chunk(state)
        rows.append({name: float(x[0]) for name, x in metrics.items()})
    seconds = time.perf_counter() - began
    even = smpo_envs.VectorEnv(single, NUM_ENVS, stagger=False)
    assert algorithm.cost_critic
    measure = jax.jit(lambda x, key: calibrate(algorithm, algorithm.cost_critic, x, even, key))
    seen = jax.device_get(measure(state.learner, jax.random.key(1000 + seed)))
    ended = [row for row in rows[-LAST:] if row["episode/count"]]
    weights = [row["episode/count"] for row in ended]
    return_, cost = (
        float(np.average([row[name] for row in ended], weights=weights)) if ended else np.nan
        for name in ("episode/return", "episode/cost")
    )
    predicted, followed = seen.predicted, seen.realised
    run = Run(
        method, sees, seed, iterations * NUM_ENVS * ROLLOUT_LENGTH,
        return_, cost,
        float(predicted.mean() / followed.mean()),
        float(np.polyfit(predicted, followed, 1)[0]),
        float(np.corrcoef(predicted, followed)[0, 1]),
        float(np.abs(predicted - followed).mean()),
        float(followed.mean()),
        seconds,
    )  # fmt: skip
    return run, seen


def main() -> None:
    """Makes the runs that are missing, seed by seed, and adds their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sees", nargs="+", default=["vectors", "pictures"])
    parser.add_argument("--out", type=Path, default=Path("configs/suites/reports/scale"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table, bins = options.out / "pixels.csv", options.out / "calibration.csv"
    for seed in range(options.seeds):
        for sees in options.sees:
            for method in options.methods:
                name = (method, sees, str(seed))
                if table.exists() and any(
                    (row["method"], row["sees"], row["seed"]) == name
                    for row in csv.DictReader(table.read_text().splitlines())
                ):
                    continue
                run, seen = train(method, sees, seed, options.steps)
                add(table, Run._fields, [run])
                rows = [(*name, i, *values) for i, values in enumerate(zip(*seen[:2], strict=True))]
                add(bins, ("method", "sees", "seed", "bin", "predicted", "followed"), rows)
                print(run, flush=True)


def add(path: Path, names: tuple[str, ...], rows: list[Any]) -> None:
    """Adds rows to a file of comma-separated values, with a first line if it is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(names)
        for row in rows:
            writer.writerow([f"{x:.5g}" if isinstance(x, float | np.floating) else x for x in row])


if __name__ == "__main__":
    main()
