"""The speed measurement runs and counts."""

from smpo_envs import VectorEnv, make
from smpo_envs.throughput import measure


def test_measure_reports_positive_rates():
    result = measure(VectorEnv(make("ProbeTradeoff"), 8), steps=5, repeats=2)
    assert result.compile_seconds > 0
    assert result.steps_per_second > 0
