import csv
import json
import math
import sys
import types

import numpy as np
import pytest
from PIL import Image

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run.writers import (
    Files,
    TensorBoard,
    Wandb,
    require_installed,
    seconds_so_far,
)
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config

CONFIG = Config(env="ProbeFollow", algo="ppo")
NAMES = ("metrics.csv", "metrics.jsonl", "timing.csv")


def row(iteration, value=0.5):
    return {"iteration": iteration, "steps": 10 * iteration, "policy/loss": value}


def timing(iteration):
    return {
        "iteration": iteration,
        "steps": 10 * iteration,
        "seconds": 2.0 * iteration,
        "steps_per_second": 5.0,
    }


def write(folder, iterations, *, after):
    files = Files(folder, after=after)
    for i in iterations:
        files.write([row(i)], timing(i))
    files.close()


def contents(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_files_hold_a_header_and_one_row_per_iteration(tmp_path):
    files = Files(tmp_path, after=0)
    files.write([row(1), row(2)], timing(2))
    files.close()
    assert (tmp_path / "metrics.csv").read_text() == (
        "iteration,steps,policy/loss\n1,10,0.5\n2,20,0.5\n"
    )
    assert (tmp_path / "timing.csv").read_text() == (
        "iteration,steps,seconds,steps_per_second\n2,20,4.0,5.0\n"
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(1), row(2)]


def test_files_keep_what_is_not_finite_in_csv_and_stay_strict_in_json(tmp_path):
    files = Files(tmp_path, after=0)
    files.write([row(1, math.nan), row(2, math.inf)], timing(2))
    files.close()
    with open(tmp_path / "metrics.csv", newline="") as file:
        values = [float(line["policy/loss"]) for line in csv.DictReader(file)]
    assert math.isnan(values[0]) and values[1] == math.inf
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["policy/loss"] for line in lines] == [None, None]
    assert "NaN" not in "".join(lines)


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_files_continued_after_an_iteration_equal_those_never_interrupted(tmp_path, kept):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write(folder, range(1, 6), after=0)
    write(cut, range(kept + 1, 6), after=kept)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_files_drop_a_last_line_that_was_cut_short(tmp_path, lost):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write(folder, range(1, 4), after=0)
    for name in NAMES:
        data = (cut / name).read_bytes()
        (cut / name).write_bytes(data[:-lost])
    write(cut, [3], after=2)
    assert contents(cut) == contents(whole)


def test_seconds_go_on_from_the_last_report(tmp_path):
    write(tmp_path, [], after=0)
    assert seconds_so_far(tmp_path) == 0.0
    write(tmp_path, [1, 2, 3], after=0)
    assert seconds_so_far(tmp_path) == 6.0


def test_full_disk_is_an_os_error(tmp_path):
    files = Files(tmp_path, after=0)
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    files._csv.close()
    files._csv = full
    with pytest.raises(OSError, match="No space left"):
        files.write([row(1)], timing(1))
    files.close()


def test_tensorboard_gets_every_finite_metric_against_steps(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    seen = []
    board = TensorBoard(tmp_path, CONFIG, after_steps=0)
    monkeypatch.setattr(board._writer, "add_scalar", lambda *values: seen.append(values))
    board.write([row(1, math.nan), row(2)], timing(2))
    board.close()
    assert seen == [("policy/loss", 0.5, 20), ("timing/steps_per_second", 5.0, 20)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_has_the_settings_and_the_film(tmp_path):
    pytest.importorskip("tensorboardX")
    gif = tmp_path / "film.gif"
    Image.new("P", (6, 4)).save(gif, save_all=True, append_images=[Image.new("P", (6, 4), 1)])
    for after in (0, 10):
        board = TensorBoard(tmp_path, CONFIG, after_steps=after)
        board.film(gif, 20)
        board.close()
    found = list(events(tmp_path / "tensorboard"))
    (settings,) = (each for each in found if each.tag == "_hparams_/session_start_info")
    content = settings.metadata.plugin_data.content
    assert b"discount" in content and b"ppo" in content and b"hidden" in content
    (text,) = (each for each in found if each.tag.startswith("config"))
    assert b'"num_envs": 128' in text.tensor.string_val[0]
    film = next(each for each in found if each.tag == "film").image
    assert film.encoded_image_string == gif.read_bytes() and (film.width, film.height) == (6, 4)


def events(folder):
    """The summaries in event files."""
    event = pytest.importorskip("tensorboardX.proto.event_pb2").Event
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # length, its checksum, record, its checksum
            length = int.from_bytes(data[:8], "little")
            yield from event.FromString(data[12 : 12 + length]).summary.value
            data = data[12 + length + 4 :]


class FakeWandb:
    """Stands for the module; the real one has a test of its own."""

    def __init__(self, active=None):
        self.run, self.calls = active, []

    def init(self, **options):
        self.calls.append(("init", options))
        return self.run or types.SimpleNamespace(
            id="abc",
            log=lambda values, step: self.calls.append((values, step)),
            finish=lambda: self.calls.append(("finish", None)),
        )


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for _ in range(2):
        run = Wandb(tmp_path, CONFIG)
        run.write([row(1, math.nan), row(2)], timing(2))
        run.close()
    (_, options), *rest = wandb.calls[:4]
    assert options["id"] is None and options["config"]["hyperparameters"]["discount"] == 0.99
    first = {"iteration": 1, "steps": 10}
    assert rest == [(first, 10), (row(2) | timing(2), 20), ("finish", None)]
    assert wandb.calls[4][1]["id"] == "abc"


PLACE = {"project": "p", "entity": "e", "group": "g", "tags": ["a", "b"], "name": "n"}


@pytest.mark.parametrize(
    "fields, variables, expected",
    [
        ({}, {}, {"project": "smpo-jax", "name": "run", "entity": None, "tags": None}),
        ({}, {"WANDB_PROJECT": "x", "WANDB_NAME": "y"}, {"project": None, "name": None}),
        ({f"wandb_{name}": value for name, value in PLACE.items()}, {"WANDB_PROJECT": "x"}, PLACE),
    ],
)
def test_wandb_is_placed_by_fields_then_the_environment(
    tmp_path, monkeypatch, fields, variables, expected
):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "run").mkdir()
    mapping = {"env": "ProbeFollow", "algo": "ppo", "wandb": True} | fields
    Wandb(tmp_path / "run", config_file.from_mapping(mapping, where="test"))
    options = wandb.calls[0][1]
    assert {name: options[name] for name in expected} == expected


def test_wandb_run_of_the_program_around_is_used_and_not_finished(tmp_path, monkeypatch):
    logged = []
    active = types.SimpleNamespace(id="theirs", log=lambda values, step: logged.append(step))
    wandb = FakeWandb(active)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = Wandb(tmp_path, CONFIG)
    run.write([row(1)], timing(1))
    run.close()  # the run that is active has no `finish`
    assert logged == [None]
    assert wandb.calls[0][1]["reinit"] == "return_previous"
    assert not (tmp_path / "wandb_id").exists()


@pytest.mark.parametrize("active", [False, True])
def test_real_wandb_offline(tmp_path, monkeypatch, active):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    theirs = wandb.init(project="sweep", dir=str(tmp_path)) if active else None
    gif = tmp_path / "film.gif"
    Image.new("P", (6, 4)).save(gif)
    ours = Wandb(tmp_path, CONFIG)
    ours.write([row(1), row(2)], timing(2))
    ours.film(gif, 20)
    assert wandb.run is theirs
    ours.close()
    if theirs:
        theirs.log({"still": 1})
        assert theirs.summary["steps"] == 20
        theirs.finish()
    assert (tmp_path / "wandb_id").exists() is not active


def test_place_without_wandb_is_refused():
    with pytest.raises(UserError, match="wandb_project: has no meaning without wandb"):
        Config(algo="ppo", wandb_project="mine")


def test_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_installed(Config(algo="toy"))
    with pytest.raises(UserError, match=r"--wandb needs the package wandb: pip install wandb"):
        require_installed(Config(algo="toy", wandb=True))
    with pytest.raises(UserError, match="pip install tensorboardX"):
        require_installed(Config(algo="toy", tensorboard=True))


def test_float32_values_are_written_as_short_as_they_can_be():
    from smpo_jax.experiment.run.recorder import _plain

    assert _plain(np.float32(0.1)) == 0.1
    assert np.float32(_plain(np.float32(1 / 3))) == np.float32(1 / 3)
    assert type(_plain(np.int32(3))) is int


def test_a_run_of_an_earlier_version_goes_on_with_the_columns_it_began_with(tmp_path):
    write(tmp_path, [1], after=0)
    files = Files(tmp_path, after=1)
    files.write([{"iteration": 2, "steps": 20, "new/one": 1.0, "policy/loss": 0.25}], timing(2))
    files.close()
    assert (tmp_path / "metrics.csv").read_text() == (
        "iteration,steps,policy/loss\n1,10,0.5\n2,20,0.25\n"
    )
