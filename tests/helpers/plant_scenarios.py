"""Draws the episodes on which controllers of the plants are compared.

    python tests/helpers/plant_scenarios.py

It writes tests/data/plants/scenarios.npz: of each plant the benchmark, then 20 drawn ones.
"""

from pathlib import Path

import jax
import numpy as np

from smpo_envs.plants import four_tanks, stirred_tank
from smpo_envs.plants.plant import Scenario

FILE = Path(__file__).parents[1] / "data" / "plants" / "scenarios.npz"
MODULES = {"StirredTank": stirred_tank, "FourTanks": four_tanks}
DRAWN = 20


def scenarios(plant: str) -> Scenario:
    """All of a plant, one a row."""
    module = MODULES[plant]
    keys = jax.random.split(jax.random.key(2026), DRAWN)
    each = [module.benchmark(), *(module.drawn(key) for key in keys)]
    return jax.tree.map(lambda *rows: np.stack(rows), *each)


def load(plant: str) -> Scenario:
    """Those of the file."""
    with np.load(FILE) as file:
        return Scenario(*(file[f"{plant}_{field}"] for field in Scenario._fields))


if __name__ == "__main__":
    arrays = {
        f"{plant}_{field}": value
        for plant in MODULES
        for field, value in scenarios(plant)._asdict().items()
    }
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {FILE.stat().st_size} bytes")
