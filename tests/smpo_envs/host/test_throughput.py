import pytest

from smpo_envs.host import measure_real


@pytest.mark.host
def test_measured_rate_is_that_of_steps_and_one_reset_per_episode():
    seen = measure_real("SafetyPointGoal0-v0", steps=20)
    episode = 1000 * seen.step_seconds + seen.reset_seconds
    assert seen.steps_per_second == pytest.approx(1000 / episode)
    assert min(seen) > 0
