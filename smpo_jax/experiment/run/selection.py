"""Which checkpoint of a run is the best one: the highest return that keeps all limits.

A checkpoint is judged by the episodes that ended, in training, in the iterations up to it. They
were played with noise, and by the policies of those iterations: this chooses, `evaluate` measures.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.experiment.run.writers import costs_of
from smpo_jax.types import PerCost

CONFIDENCE = 0.95


class Score(NamedTuple):
    """What the episodes before a checkpoint were like.

    Attributes:
        return_: their mean return.
        cost: their mean cost; of several constraints each, by what it is called (see
            `Config.limits`).
        half_width: of Student's 95 % interval of the mean cost; infinite if episodes ended in one
            iteration only.
        episodes: how many.
    """

    return_: float
    cost: PerCost
    half_width: PerCost
    episodes: int

    def is_feasible(self, limit: PerCost) -> bool:
        """Whether every cost keeps its limit, its interval included."""
        return constraints.all_of(each(operator.le, self._highest, limit))

    def rank(self, limit: PerCost) -> tuple[bool, float, float]:
        """Larger is better: feasible, then by return; among those that are not, by least excess."""
        if self.is_feasible(limit):
            return True, self.return_, 0.0
        excess = each(lambda high, limit: max(high - limit, 0.0), self._highest, limit)
        return False, -constraints.total(excess), -constraints.total(self.cost)

    @property
    def _highest(self) -> PerCost:
        return each(operator.add, self.cost, self.half_width)


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
    count, return_ = (
        np.array([row[f"episode/{name}"] for row in ended], float) for name in ("count", "return")
    )

    def estimate(cost: np.ndarray) -> tuple[float, float]:
        mean_cost = float(np.average(cost, weights=count))
        if len(ended) < 2:
            return mean_cost, math.inf
        variance = np.sum(count * (cost - mean_cost) ** 2) / (len(ended) - 1)
        quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(ended) - 1)
        return mean_cost, float(quantile * np.sqrt(variance / count.sum()))

    costs = {
        name: np.array([row[f"episode/{name}"] for row in ended], float)
        for name in costs_of(ended[0])
    }
    found = each(estimate, costs if len(costs) > 1 else costs["cost"])
    return Score(
        return_=float(np.average(return_, weights=count)),
        cost=each(operator.itemgetter(0), found),
        half_width=each(operator.itemgetter(1), found),
        episodes=int(count.sum()),
    )


def as_json(found: Score | None) -> dict[str, Any] | None:
    """The score in JSON's types, which have no infinity."""
    if found is None:
        return None
    return {
        "return": found.return_,
        "cost": found.cost,
        "half_width": each(lambda own: own if math.isfinite(own) else None, found.half_width),
        "episodes": found.episodes,
    }


def from_json(plain: Mapping[str, Any] | None) -> Score | None:
    """What `as_json` wrote."""
    if plain is None:
        return None
    width = each(lambda own: math.inf if own is None else own, plain["half_width"])
    return Score(plain["return"], plain["cost"], width, plain["episodes"])
