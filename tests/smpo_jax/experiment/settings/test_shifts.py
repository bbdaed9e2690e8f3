from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.shifts import Schedule, Sweep
from smpo_jax.experiment.suite import grid

SUITE = Path(__file__).parents[4] / "configs" / "suites" / "robustness.yaml"


def test_constant_and_schedule_are_read_and_interpolated():
    found = Schedule(("hazards=8@0,16@2e6", "size=0.3"))
    assert found.points == {"hazards": ((0.0, 8.0), (2e6, 16.0)), "size": ((0.0, 0.3),)}
    assert found.at(5e5) == {"hazards": 10.0, "size": 0.3}
    assert found.at(9e9) == {"hazards": 16.0, "size": 0.3}


def test_grid_is_every_combination():
    found = Sweep(("hazards=4,8", "size=0.2,0.3")).combinations()
    assert [tuple(point.values()) for point in found] == [(4, 0.2), (4, 0.3), (8, 0.2), (8, 0.3)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hazard=8", "there is no 'hazard' (did you mean"),
        ("hazards", "expected NAME=VALUE, got 'hazards'"),
        ("hazards=many", "expected a number, got 'many'"),
        ("size=nan", "expected a number, got 'nan'"),
        ("size=0.2,0.3", "a schedule needs a step with every value"),
        ("size=0.2@0,0.3", "a schedule needs a step with every value"),
        ("size=0.2@5,0.3@5", "steps must be 0 or more and increase"),
    ],
)
def test_what_is_no_shift_is_one_error_that_names_it(text, words):
    with pytest.raises(UserError) as caught:
        Config(hazard_shift=Schedule((text,)))
    assert words.split(" (")[0] in str(caught.value) and "hazard_shift" in str(caught.value)


def test_task_without_hazards_is_refused_with_those_that_have_some():
    with pytest.raises(UserError, match=r"PointCircle1 has no hazards.*PointGoal1"):
        Config(env="PointCircle1", hazard_shift=Schedule(("size=0.3",)))


def test_shift_that_has_no_layout_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="hazards=60 do not fit"):
        build(Config(hazard_shift=Schedule(("hazards=8@0,60@1e6",))))


def test_config_saved_before_there_were_shifts_is_the_same_run():
    ours = config_file.from_mapping({}, where="test")
    saved = config_file.as_mapping(ours)
    del saved["hazard_shift"]
    theirs = config_file.from_mapping(saved, where="test")
    assert config_file.difference(theirs, ours) is None
    other = config_file.from_mapping({"hazard_shift": ["size=0.3"]}, where="test")
    assert "hazard_shift" in str(config_file.difference(ours, other))


def test_suite_has_each_method_with_and_without_a_schedule():
    cells = grid.load(SUITE)
    assert len(cells) == 6 * 3
    assert sum(bool(cell.config.hazard_shift) for cell in cells) == 9
    assert {cell.config.total_steps for cell in cells} <= {2_016_000}


@pytest.mark.usefixtures("quick_compilation")
def test_schedule_takes_effect_at_resets_by_the_steps_of_all_environments():
    # 4 environments: 100 steps are 25 of each; the first of the staggered ones resets after 250.
    harder = Schedule(("size=0.2@0,0.3@1000",))
    run = Config(algo="ppo", num_envs=4, rollout_length=20, hazard_shift=harder)
    env = build(run).env
    state = jax.jit(env.reset)(jax.random.key(0))
    radii = state.env.pipeline_state.arena.radii["hazards"]
    np.testing.assert_allclose(radii, 0.2)
    at_rest = jnp.zeros((4, 2))
    step = jax.jit(lambda s: jax.lax.fori_loop(0, 250, lambda _, s: env.step(s, at_rest)[0], s))
    state = step(state)
    np.testing.assert_array_equal(state.curriculum, [250] * 4)
    radii = state.env.pipeline_state.arena.radii["hazards"]
    np.testing.assert_allclose(radii, [0.2, 0.2, 0.2, 0.3], rtol=1e-6)
