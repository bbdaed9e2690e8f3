"""Scores the policies of `plants.yaml` on the episodes that model-predictive control was given.

    smpo-jax suite plants --processes 2
    python configs/suites/plants.py runs/plants --out configs/suites/reports/plants

Each policy acts without noise in the native plant, in the benchmark of pcgym and in 20 drawn
episodes (tests/data/plants/scenarios.npz). `final.csv` gets a row for each; what is printed is the
table of envs/smpo_envs/plants/README.md: interquartile means over seeds.
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import yaml

import smpo_jax as sx
from smpo_envs.plants import four_tanks, stirred_tank
from smpo_envs.plants.plant import Scenario, environment
from smpo_jax.experiment.results import intervals

DATA = Path(__file__).parents[2] / "tests" / "data" / "plants"
PLANTS = {"StirredTank": stirred_tank.PLANT, "FourTanks": four_tanks.PLANT}
TASKS = yaml.safe_load(Path(__file__).with_name("plants.yaml").read_text())["tasks"]
LIMITS = {plant: settings["cost_limit"] for plant, settings in TASKS.items()}


class Score(NamedTuple):
    """A policy's numbers: means of the drawn episodes, then the benchmark's."""

    plant: str
    variant: str
    seed: int
    return_: float
    violation: float
    share_within: float  # share of the drawn episodes whose violation is at most the limit
    benchmark_return: float
    benchmark_violation: float


def scenarios(plant: str) -> Scenario:
    """The benchmark, then the drawn ones."""
    with np.load(DATA / "scenarios.npz") as file:
        return Scenario(*(file[f"{plant}_{field}"] for field in Scenario._fields))


def score(plant: str, folder: Path) -> Score:
    """That of one run."""
    policy = sx.load_policy(folder)
    act = policy.acting(deterministic=True)
    given = scenarios(plant)
    length = given.set_points.shape[1] - 1

    @jax.jit
    @jax.vmap
    def play(scenario: Scenario) -> tuple[jax.Array, jax.Array]:
        env = environment(PLANTS[plant], lambda key: scenario, length)

        def step(state, _):
            state = env.step(state, act(state.obs, jax.random.key(0)))
            return state, (state.reward, state.info["cost"])

        _, (reward, cost) = jax.lax.scan(step, env.reset(jax.random.key(0)), None, length)
        return reward.sum(), cost.sum()

    rewards, costs = map(np.array, play(given))
    return Score(
        plant,
        folder.parent.name,
        int(folder.name.removeprefix("seed")),
        float(rewards[1:].mean()),
        float(costs[1:].mean()),
        float((costs[1:] <= LIMITS[plant]).mean()),
        float(rewards[0]),
        float(costs[0]),
    )


def oracle(plant: str, name: str) -> float:
    """A controller's mean return in the drawn episodes."""
    return float(
        np.mean(json.loads((DATA / "oracles.json").read_text())[plant][name]["return"][1:])
    )


def table(scores: list[Score]) -> str:
    """Interquartile means with 95 % intervals; rewards are negative, so 100 % is the oracle."""
    cells = defaultdict(list)
    for each in scores:
        cells[each.plant, each.variant].append(each)
    lines = [
        "| plant, method | return | violation | optimum's return at the limit / return "
        "| MPC's within / return |",
        "|---|---|---|---|---|",
    ]
    for (plant, variant), runs in cells.items():
        spans = []
        for name in ("return_", "violation"):
            values = np.array([getattr(run, name) for run in runs])
            spans.append([float(x) for x in intervals.bootstrap(values)])
        earned, broken = ("{:.2f} [{:.2f}, {:.2f}]".format(*span) for span in spans)
        best, within = oracle(plant, f"optimum_{LIMITS[plant]}"), oracle(plant, "told_within")
        shares = " | ".join(f"{x / spans[0][0]:.0%}" for x in (best, within))
        lines.append(f"| {plant} `{variant}` ({len(runs)}) | {earned} | {broken} | {shares} |")
    return "\n".join(lines)


def main(runs: Path, out: Path) -> None:
    """Scores all runs that there are."""
    folders = sorted(path.parent for path in runs.glob("*/*/seed*/config.json"))
    scores = [score(folder.parents[1].name, folder) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "final.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([name.rstrip("_") for name in Score._fields])
        for each in scores:
            writer.writerow([f"{x:.4g}" if isinstance(x, float) else x for x in each])
    print(table(scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("configs/suites/reports/plants"))
    given = parser.parse_args()
    main(given.runs, given.out)
