import json
import math
from typing import Any

import pytest
from scipy import stats

from smpo_jax.experiment.run import selection
from smpo_jax.experiment.run.selection import Score


def row(count, return_, cost):
    return {"episode/count": count, "episode/return": return_, "episode/cost": cost}


def score(rows) -> Any:
    return selection.score(rows)


NO_EPISODE = row(0.0, math.nan, math.nan)


def test_score_weights_iterations_with_their_episodes():
    found = score([row(1.0, 10.0, 4.0), NO_EPISODE, row(3.0, 2.0, 8.0)])
    # mean cost (4 + 3 x 8) / 4 = 7; variance of an episode (1 x 9 + 3 x 1) / (2 - 1) = 12
    assert (found.return_, found.cost, found.episodes) == (4.0, 7.0, 4)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(12 / 4))


def test_score_of_one_iteration_has_no_interval_and_is_not_feasible():
    found = score([NO_EPISODE, row(5.0, 1.0, 0.0)])
    assert found.half_width == math.inf and not found.is_feasible(25.0)
    assert found.is_feasible(math.inf)


def test_without_episodes_there_is_no_score():
    assert score([]) is None and score([NO_EPISODE]) is None
    assert score([dict.fromkeys(NO_EPISODE), row(0, None, None)]) is None  # as JSON has them


def test_feasible_goes_before_return_and_return_before_cost():
    limit = 10.0
    ascending = [
        Score(99.0, 12.0, math.inf, 9),  # nobody knows
        Score(99.0, 5.0, math.inf, 9),
        Score(99.0, 12.0, 1.0, 9),
        Score(50.0, 9.5, 1.0, 9),  # its interval passes the limit
        Score(1.0, 0.0, 0.0, 9),
        Score(2.0, 9.0, 1.0, 9),
    ]
    ranks = [each.rank(limit) for each in ascending]
    assert ranks == sorted(ranks) and len(set(ranks)) == len(ranks)
    assert [each.is_feasible(limit) for each in ascending] == 4 * [False] + 2 * [True]


@pytest.mark.parametrize("found", [None, Score(0.1, 0.2, 0.3, 4), Score(1.0, 2.0, math.inf, 1)])
def test_score_survives_strict_json(found):
    text = json.dumps(selection.as_json(found), allow_nan=False)
    assert selection.from_json(json.loads(text)) == found
