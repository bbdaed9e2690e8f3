from pathlib import Path

import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings import command_line, presets
from smpo_jax.experiment.suite import grid

ROOT = Path(__file__).parents[4]


def test_every_file_of_configs_has_a_name():
    named = {*presets.runs().values(), *presets.suites().values()}
    assert named == set((ROOT / "configs").rglob("*.yaml"))
    assert presets.suites()["quick"] == ROOT / "configs/suites/quick.yaml"


def test_a_name_is_the_same_run_as_its_file():
    by_name = command_line.parse_train(["--config", "PointGoal1/smpo"])
    by_path = command_line.parse_train(["--config", str(ROOT / "configs/PointGoal1/smpo.yaml")])
    assert by_name == by_path
    assert by_name.config.env == "PointGoal1"


def test_a_file_of_ones_own_goes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "tasks: [ProbeFollow]\nsteps: 1e4\nvariants: [ppo]\n"
    Path("quick").write_text(text)
    (cell,) = grid.load(presets.find(Path("quick"), presets.suites()))
    assert cell.config.env == "ProbeFollow"
    Path("quick").unlink()
    Path("quick").mkdir()  # a folder is not what is meant
    assert presets.find(Path("quick"), presets.suites()).name == "quick.yaml"


@pytest.mark.parametrize(
    "name", ["suites/quick", "../quick", "quick\0", pytest.param("q" * 5000, id="long")]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UserError, match="neither a file nor a preset"):
        presets.find(Path(name), presets.suites())
