"""Reads the recordings of the real package that the tests compare with."""

import json
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"


def recording(name: str) -> dict[str, np.ndarray]:
    """The arrays of one recording, e.g. `PointGoal1_ou_s0`; `meta` is decoded."""
    with np.load(DATA / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays["meta"] = json.loads(str(arrays["meta"]))
    return arrays


def names(pattern: str) -> list[str]:
    """The recordings whose name matches a glob pattern, e.g. `PointGoal?_bang_*`."""
    found = sorted(path.stem for path in DATA.glob(f"{pattern}.npz"))
    if not found:
        raise FileNotFoundError(f"no recording matches {pattern!r} in {DATA}")
    return found


def recording_of_layouts(task: str) -> dict[str, np.ndarray]:
    """The 500 recorded layouts of a task, e.g. `PointGoal1`."""
    with np.load(DATA / f"layouts_{task}.npz") as file:
        return {key: file[key] for key in file.files}
