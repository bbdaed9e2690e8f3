"""Published results on the same tasks, to draw beside ours.

`published.csv` holds mean and standard deviation over episodes and seeds as they were published,
with their source; all with a cost limit of 25. An empty field was not published as a number.
"""

import csv
import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")


class Published(NamedTuple):
    """A row; NaN where there is no number."""

    task: str
    method: str  # by the name that our algorithm of the kind has
    return_: float
    return_std: float
    cost: float
    cost_std: float
    steps: int
    source: str


def rows(tasks: Collection[str]) -> list[Published]:
    """All that is known of these tasks."""
    with open(FILE, newline="", encoding="utf-8") as file:
        return [_row(fields) for fields in csv.DictReader(file) if fields["task"] in tasks]


def _row(fields: dict[str, str]) -> Published:
    return Published(
        task=fields["task"],
        method=fields["method"],
        return_=_number(fields["return"]),
        return_std=_number(fields["return_std"]),
        cost=_number(fields["cost"]),
        cost_std=_number(fields["cost_std"]),
        steps=int(fields["steps"]),
        source=fields["source"],
    )


def _number(text: str) -> float:
    return float(text) if text else math.nan
