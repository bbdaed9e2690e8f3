import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from smpo_jax.experiment import errors
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.command_line import parse_train
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.config_file import load_yaml

ROOT = Path(__file__).parents[4]


def write(text, name="run.yaml"):
    path = Path(name)
    path.write_text(text)
    return path


def words(line):
    return line.split()


def error_of(text):
    with pytest.raises(UserError) as caught:
        load_yaml(write(text))
    return str(caught.value)


def test_hyperparameters_come_from_defaults_then_file_then_command_line():
    path = write("algo: toy\nhyperparameters: {step: 0.3, start: 2}\n")
    config = parse_train(["--config", str(path), "--start", "5"]).config
    own = config.hyperparameters
    # form, repeats: nobody set them; step: the file; start: both
    assert (own.form, own.repeats, own.step, own.start) == ("plain", 2, 0.3, 5.0)


def test_run_fields_come_from_defaults_then_file_then_command_line():
    path = write("algo: toy\nenv: ProbeFollow\nseed: 3\ncost_limit: 7\n")
    config = parse_train(["--config", str(path), "--seed", "4"]).config
    assert (config.env, config.seed, config.cost_limit) == ("ProbeFollow", 4, 7.0)
    assert config.num_envs == Config.num_envs


def test_command_line_can_replace_the_algorithm_of_the_file():
    path = write("algo: ppo\nenv: ProbeFollow\n")
    assert parse_train(["--config", str(path), "--algo", "toy"]).config.algo == "toy"


def test_train_without_any_argument_is_smpo_on_pointgoal1():
    config = parse_train([]).config
    assert (config.env, config.algo, config.steps) == ("PointGoal1", "smpo", 10_000_000)
    assert config.folder == Path("runs/PointGoal1-smpo-seed0")


@pytest.mark.parametrize("text", ["1e7", "10_000_000", "10000000", "1.0E7"])
def test_steps_are_an_integer_however_they_are_written(text):
    config = parse_train(["--algo", "toy", "--steps", text]).config
    assert config.steps == 10_000_000 and type(config.steps) is int
    assert load_yaml(write(f"algo: toy\nsteps: {text}\n")).steps == 10_000_000


def test_steps_are_rounded_up_to_whole_iterations():
    # 10 * 100 steps an iteration; 2 500 steps need 3 of them
    assert Config(algo="toy", num_envs=10, rollout_length=100, steps=2500).total_iterations == 3


def test_safety_gymnasium_id_names_the_native_task():
    assert Config(env="SafetyPointGoal1-v0", algo="toy").env == "PointGoal1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("algo: toy\nsede: 3", "run.yaml: unknown key 'sede'; did you mean seed?"),
        (
            "algo: toy\nhyperparameters: {stpe: 3}",
            "run.yaml: toy has no hyperparameter 'stpe'; did you mean step?",
        ),
        ("algo: toy\nstep: 3", "run.yaml: step belongs under `hyperparameters:`"),
        ("algo: toy\nseed: 1.5", "run.yaml: seed: expected an integer, got 1.5"),
        ("algo: toy\nseed: true", "run.yaml: seed: expected an integer, got True"),
        (
            "algo: toy\ncost_limit: low",
            "run.yaml: cost_limit: expected a number or a list, each a number, got 'low'",
        ),
        (
            "algo: toy\ncost_limit: .nan",
            "run.yaml: cost_limit: expected a number or a list, each a number, got nan",
        ),
        ("algo: toy\nwandb: 1", "run.yaml: wandb: expected true or false, got 1"),
        ("algo: toy\ncost_limit: -1", "run.yaml: cost_limit: must not be negative, got -1.0"),
        ("algo: toy\nnum_envs: 0", "run.yaml: num_envs: must be at least 1, got 0"),
        (
            "algo: toy\nhyperparameters: {sizes: 3}",
            "run.yaml: sizes: expected a list, each an integer, got 3",
        ),
        (
            "algo: toy\nhyperparameters: {form: fnacy}",
            "run.yaml: form: expected one of plain, fancy, got 'fnacy'",
        ),
        (
            "algo: toy\nhyperparameters: {step: -1}",
            "run.yaml: step=-1.0 must be 0 or more, within float32's range",
        ),
        ("algo: toy\nhyperparameters: 3", "run.yaml: hyperparameters: expected a mapping, got 3"),
        ("- algo", "run.yaml: expected `field: value` lines, found list"),
        ("algo: topy", "algo: there is no algorithm 'topy'; did you mean toy?"),
    ],
)
def test_mistake_in_file_is_named(text, expected):
    assert error_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("algo: toy\nseed: 1\nseed: 2", "the key 'seed' is given twice"),
        ("algo: [", "not valid YAML"),
        ("algo: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("algo: toy\nenv: PointGoal7", "did you mean 'PointGoal"),
    ],
)
def test_mistake_in_file_is_one_line_that_says(text, expected):
    message = error_of(text)
    assert expected in message and "\n" not in message


def test_unreadable_file_is_named():
    for path in (Path("missing.yaml"), Path()):
        with pytest.raises(UserError, match="cannot read config"):
            load_yaml(path)


def test_saved_config_loads_as_it_was(tmp_path):
    config = parse_train(words("--algo toy --sizes 4 5 6 --scale 2 --no-shift --seed 9")).config
    config_file.save(config, tmp_path)
    loaded = config_file.load(tmp_path)
    assert dataclasses.replace(loaded, out=None) == config
    assert loaded.hyperparameters.sizes == (4, 5, 6)
    assert loaded.folder == tmp_path


def test_saved_config_is_a_valid_config_file(tmp_path):
    config = parse_train(words("--algo toy --step 1e-5")).config
    config_file.save(config, tmp_path)
    again = parse_train(["--config", str(tmp_path / "config.json")]).config
    assert again == config  # `out` too: the folder of a run is not part of it


def test_saved_config_holds_every_field(tmp_path):
    config_file.save(Config(algo="toy"), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["env"] == "PointGoal1" and saved["steps"] == 10_000_000 and "out" not in saved


@pytest.mark.parametrize(
    "path",
    sorted(set(ROOT.glob("configs/**/*.yaml")) - set(ROOT.glob("configs/suites/*"))),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_in_the_repository_loads_and_builds(path):
    config = load_yaml(path)
    problem = build(config)
    assert problem.spec.total_iterations == config.total_iterations
    assert (config.env, config.algo) == (path.parent.name, path.stem)


def test_config_file_is_flat_names_and_plain_values():
    # As runs have been saved from the first day on; they must load, and be saved as they were.
    plain = {
        "env": "PointGoal1", "algo": "toy", "seed": 3, "steps": 1000, "num_envs": 4, "devices": 1,
        "rollout_length": 20, "cost_limit": 7.5, "hazard_shift": ["hazards=8@0,16@2e6", "size=0.3"],
        "report_every": 2.0, "checkpoint_every": 30.0, "keep_checkpoints": 3, "tensorboard": False,
        "wandb": False,
        "hyperparameters": {
            "step": 0.3, "start": 0.0, "repeats": 2, "sizes": [2, 3], "form": "fancy",
            "shift": True, "scale": None, "diverge_at": 0,
        },
    }  # fmt: skip
    config = config_file.from_mapping(plain, where="test")
    new = {
        "init_from": None, "checkpoint": "newest", "checkpoint_iterations": None,
        "earlier_lengths": [], "env_options": {}, "episode_length": None, "wandb_project": None,
        "wandb_entity": None, "wandb_group": None, "wandb_tags": [], "wandb_name": None,
    }  # fmt: skip
    assert config_file.as_mapping(config) == plain | new
    assert config.hyperparameters.form == "fancy"
    assert config.hazard_shift.at(1e6) == {"hazards": 12.0, "size": 0.3}


@pytest.mark.parametrize(
    ("data", "now", "kind"),
    [
        ({"algo": "trpo_smpo"}, "smpo", "SMPO"),
        ({"algo": "trpo_smpo", "hyperparameters": {"target_kl": 0.01}}, "smpo", "SMPO"),
        ({"algo": "smpo", "hyperparameters": {"clip": 0.1}}, "smpo-ppo", "SMPOPPO"),
    ],
)
def test_old_name_of_an_algorithm_loads_with_a_notice_that_is_said_once(capsys, data, now, kind):
    errors.tell.cache_clear()
    first, again = (config_file.from_mapping(data, where="test") for _ in range(2))
    assert (first.algo, type(first.hyperparameters).__name__) == (now, kind) and again == first
    assert (
        capsys.readouterr().err == f"smpo-jax: the algorithm {data['algo']} is called {now} now\n"
    )


def test_old_name_on_the_command_line_is_the_new_algorithm(capsys):
    errors.tell.cache_clear()
    config = parse_train(["--algo", "trpo_smpo", "--target-kl", "0.01"]).config
    assert config.algo == "smpo" and config.hyperparameters.target_kl == 0.01
    assert capsys.readouterr().err.count("\n") == 1


def test_record_of_another_algorithm_is_refused():
    with pytest.raises(TypeError, match="is not of ppo"):
        Config(algo="ppo", hyperparameters=Config(algo="toy").hyperparameters)


def test_numpy_and_jax_values_are_taken_wherever_a_number_or_a_list_is():
    fields = {
        "steps": np.int64(1000),
        "num_envs": jnp.int32(8),
        "seed": np.uint8(3),
        "cost_limit": np.float32(0.1),
        "tensorboard": np.bool_(False),
        "hyperparameters": {"hidden": np.array([16, 8]), "learning_rate": jnp.float32(3e-4)},
        "algo": np.str_("ppo"),
    }
    config = config_file.from_mapping(fields, where="run")
    assert (config.steps, config.num_envs, config.seed) == (1000, 8, 3)
    assert config.cost_limit == 0.1 and config.hyperparameters.learning_rate == 3e-4
    assert config.hyperparameters.hidden == (16, 8)
    assert config_file.from_mapping(config_file.as_mapping(config), where="again") == config
    with pytest.raises(UserError, match=r"steps: expected an integer, got 1.5"):
        config_file.from_mapping({"steps": np.float64(1.5)}, where="run")


def test_a_home_is_known_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/nobody")
    home = Path("/nobody/run")
    assert config_file.from_mapping({"out": "~/run", "init_from": "~/run"}, where="run").out == home
    assert config_file.from_mapping({"out": Path("~/run")}, where="run").out == home
    assert parse_train(["--out=~/run"]).config.out == home
    assert parse_train(["--resume", "~/run"]).resume == home


@pytest.mark.parametrize(
    ("steps", "given", "kept"),
    [
        (240, None, [5, 10, 12]),  # a twentieth is less than one: every 5, and the last
        (4000, None, [*range(10, 201, 10)]),
        (240, 4, [4, 8, 12]),
        (240, 100, [12]),
    ],
)
def test_checkpoints_are_of_the_same_iterations_in_every_run(steps, given, kept):
    config = Config(
        algo="toy", num_envs=4, rollout_length=5, steps=steps, checkpoint_iterations=given
    )
    found = [0]
    while found[-1] < config.total_iterations:
        found.append(config.next_checkpoint(found[-1]))
    assert found[1:] == kept


def test_config_knows_what_it_was_before_each_change_of_length():
    first = Config(algo="toy", steps=1000)
    third = first.with_length(2000, made=800).with_length(1500, made=1200)
    assert third.earlier_lengths == ((1000, 800), (2000, 1200)) and third.steps == 1500
    assert list(third.before_changes_of_length()) == [first.with_length(2000, made=800), first]
    assert config_file.from_mapping(config_file.as_mapping(third), where="again") == third


def test_earlier_lengths_are_no_option():
    with pytest.raises(UserError, match="unknown option --earlier-lengths"):
        parse_train(["--earlier-lengths", "1", "2"])


@pytest.mark.parametrize("words", ["--checkpoint worst", "--checkpoint 1.5"])
def test_checkpoint_that_cannot_be_meant_is_refused(words):
    with pytest.raises(UserError, match="checkpoint"):
        parse_train(words.split())


def test_checkpoint_of_no_run_is_refused_and_does_no_harm_in_an_old_folder(tmp_path):
    expected = "checkpoint: best has no meaning without init_from, the run that it is of"
    with pytest.raises(UserError, match=expected):
        parse_train(["--algo", "toy", "--checkpoint", "best"])
    assert error_of("algo: toy\ncheckpoint: 20").startswith("run.yaml: checkpoint: 20 has no mean")
    config = Config(algo="toy")
    saved = {**config_file.as_mapping(config), "checkpoint": "best"}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert dataclasses.replace(config_file.load(tmp_path), out=None) == config
