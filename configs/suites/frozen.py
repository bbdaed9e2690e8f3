"""Does training measure what its policies cost? One policy measured several ways, PointGoal1.

    python configs/suites/frozen.py --methods smpo trpo_lag --seeds 0 1 2 --out FOLDER

Beside the environments that are learnt from, as many others are played with the same policies and
never learnt from (`watched`). Where training costs less than these, its updates fit the places they
were made in, which the policy then goes on to act in. After the last update the policy is frozen
and goes on in both, then plays whole new episodes. `frozen.csv` has a row for each tenth of a run
and each way of measuring it; a run that is in the file is not made again.
"""

import argparse
import csv
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pixels import add

import smpo_envs
import smpo_jax as sx
from smpo_envs import compilation
from smpo_jax.core.episodes import Tracker
from smpo_jax.training.evaluation import make_evaluator
from smpo_jax.training.rollout import collect
from smpo_jax.types import TrainState, Transition

TASK, LENGTH = "PointGoal1", 1000
NUM_ENVS, ROLLOUT = 128, 250
PARTS = 10  # of a run
FROZEN = 32  # rollouts after training
EPISODES = 2048  # whole new ones


class Watched(NamedTuple):
    """Environments that nothing is learnt from."""

    env_state: Any
    tracker: Tracker
    key: jax.Array


class Row(NamedTuple):
    """A policy's cost, or that of the policies of a tenth of a run, measured in one way.

    Attributes:
        part: tenth of the run, from 1; 11 is the policy it ended with.
        way: `training`: environments that are learnt from; `watched`: others, with the same
            policies; `new`: whole new episodes.
        by_steps: cost of all steps, for 1000 of them.
        by_episodes: mean cost of the episodes that ended.
        return_: of these.
        error: standard error of `by_steps` over rollouts, or over episodes if they are new.
    """

    method: str
    seed: int
    part: int
    way: str
    by_steps: float
    by_episodes: float
    return_: float
    error: float


def run(method: str, seed: int, steps: int) -> list[Row]:
    """Trains and measures."""
    env = smpo_envs.VectorEnv(smpo_envs.make(TASK), NUM_ENVS)
    each = steps // (NUM_ENVS * ROLLOUT * PARTS)
    spec = sx.make_spec(env, rollout_length=ROLLOUT, total_iterations=each * PARTS)
    algorithm = sx.make(method, spec)
    learn = sx.iteration(algorithm, env, spec)
    options = compilation.options()

    def watch(learner: Any, watched: Watched) -> tuple[Watched, Any]:
        now, key = jax.random.split(watched.key)
        policy = algorithm.policy(learner)
        env_state, steps = collect(policy, env, watched.env_state, now, ROLLOUT)
        tracker, rollout = sx.track(spec, watched.tracker, steps)
        return Watched(env_state, tracker, key), measured(steps, rollout.episodes)

    def train(both: tuple[TrainState, Watched], _: None) -> Any:
        state, watched = both
        watched, others = watch(state.learner, watched)
        state, metrics = learn(state)
        own = (
            metrics["rollout/cost"],
            *(metrics[f"episode/{name}"] for name in ("cost", "return", "count")),
        )
        return (state, watched), {"training": jnp.stack(own), "watched": others}

    def freeze(both: tuple[TrainState, Watched], _: None) -> Any:
        state, watched = both
        old = Watched(state.env_state, state.tracker, state.key)
        old, own = watch(state.learner, old)
        watched, others = watch(state.learner, watched)
        state = state.replace(env_state=old.env_state, tracker=old.tracker, key=old.key)
        return (state, watched), {"training": own, "watched": others}

    key, other = jax.random.split(jax.random.key(seed))
    state, second = sx.init(algorithm, env, key), sx.init(algorithm, env, other)
    both = (state, Watched(second.env_state, second.tracker, second.key))
    trained = jax.jit(
        lambda x: jax.lax.scan(train, x, length=each), donate_argnums=0, compiler_options=options
    )
    rows = []
    for part in range(1, PARTS + 1):
        both, seen = trained(both)
        rows += [summary(method, seed, part, way, np.asarray(x)) for way, x in seen.items()]
        print(*rows[-2:], sep="\n", flush=True)
    after = jax.jit(lambda x: jax.lax.scan(freeze, x, length=FROZEN), compiler_options=options)
    both, seen = after(both)
    rows += [summary(method, seed, PARTS + 1, way, np.asarray(x)) for way, x in seen.items()]
    evaluate = make_evaluator(
        algorithm,
        smpo_envs.VectorEnv(smpo_envs.make(TASK), EPISODES, stagger=False),
        EPISODES,
        deterministic=False,
    )
    played = evaluate(both[0].learner, jax.random.key(1000 + seed))
    cost = np.asarray(played.cost)
    mean, error = float(cost.mean()), float(cost.std() / np.sqrt(len(cost)))
    new = Row(method, seed, PARTS + 1, "new", mean, mean, float(np.mean(played.return_)), error)
    print(*rows[-2:], new, sep="\n", flush=True)
    return [*rows, new]


def measured(steps: Transition, episodes: Any) -> jax.Array:
    """Mean cost of a step; mean cost, mean return and number of the episodes that ended."""
    return jnp.stack([jnp.mean(steps.cost), episodes.cost, episodes.return_, episodes.count])


def summary(method: str, seed: int, part: int, way: str, seen: np.ndarray) -> Row:
    """Of what `measured` gave of each of several rollouts, `[rollouts, 4]`."""
    step, cost, return_, count = seen.T
    ended = count > 0
    by_episodes, mean_return = (
        float(np.average(x[ended], weights=count[ended])) for x in (cost, return_)
    )
    by_steps, error = LENGTH * step.mean(), LENGTH * step.std() / np.sqrt(len(step))
    return Row(method, seed, part, way, float(by_steps), by_episodes, mean_return, float(error))


def main() -> None:
    """Makes the runs that are missing, and adds their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["smpo", "trpo_lag"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=float, default=1e7)
    parser.add_argument("--out", type=Path, default=Path("configs/suites/reports/frozen"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "frozen.csv"
    for seed in options.seeds:
        for method in options.methods:
            there = csv.DictReader(table.read_text().splitlines()) if table.exists() else ()
            if any((row["method"], row["seed"]) == (method, str(seed)) for row in there):
                continue
            add(table, Row._fields, run(method, seed, int(options.steps)))


if __name__ == "__main__":
    main()
