"""Which checkpoint of a run is the best one: the highest return that keeps the limit.

A checkpoint is judged by the episodes that ended, in training, in the iterations up to it. They
were played with noise, and by the policies of those iterations: this chooses, `evaluate` measures.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Score(NamedTuple):
    """What the episodes before a checkpoint were like.

    Attributes:
        return_: their mean return.
        cost: their mean cost.
        half_width: of Student's 95 % interval of the mean cost; infinite if episodes ended in one
            iteration only.
        episodes: how many.
    """

    return_: float
    cost: float
    half_width: float
    episodes: int

    def is_feasible(self, limit: float) -> bool:
        """Whether the cost keeps the limit, its interval included."""
        return self.cost + self.half_width <= limit

    def rank(self, limit: float) -> tuple[bool, float, float]:
        """Larger is better: feasible, then by return; among those that are not, by least cost."""
        if self.is_feasible(limit):
            return True, self.return_, 0.0
        return False, -(self.cost + self.half_width), -self.cost


def score(rows: Iterable[Mapping[str, Any]]) -> Score | None:
    """The score of a checkpoint from the metrics of the iterations before it.

    The variance of an episode's cost comes from how the means of iterations differ, each weighted
    with its number of episodes: σ² = Σᵢ nᵢ (mᵢ − m)² / (k − 1).

    Returns:
        None if no episode ended in these iterations.
    """
    ended = [row for row in rows if row.get("episode/count")]
    if not ended:
        return None
    count, return_, cost = (
        np.array([row[f"episode/{name}"] for row in ended], float)
        for name in ("count", "return", "cost")
    )
    mean_cost = float(np.average(cost, weights=count))
    half_width = math.inf
    if len(ended) > 1:
        variance = np.sum(count * (cost - mean_cost) ** 2) / (len(ended) - 1)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(ended) - 1)
        half_width = float(quantile * np.sqrt(variance / count.sum()))
    mean_return = float(np.average(return_, weights=count))
    return Score(mean_return, mean_cost, half_width, int(count.sum()))


def as_json(found: Score | None) -> dict[str, Any] | None:
    """The score in JSON's types, which have no infinity."""
    if found is None:
        return None
    width = found.half_width
    return {
        "return": found.return_,
        "cost": found.cost,
        "half_width": width if math.isfinite(width) else None,
        "episodes": found.episodes,
    }


def from_json(plain: Mapping[str, Any] | None) -> Score | None:
    """What `as_json` wrote."""
    if plain is None:
        return None
    width = math.inf if plain["half_width"] is None else plain["half_width"]
    return Score(plain["return"], plain["cost"], width, plain["episodes"])
