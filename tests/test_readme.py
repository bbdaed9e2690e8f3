"""What the README files promise: programs run, links lead somewhere, numbers are the reports'."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from follow import IDLE, LEARNT, earned

import smpo_envs
import smpo_jax as sx
from smpo_jax.algorithms import registry
from smpo_jax.algorithms.registry import ALGORITHMS
from smpo_jax.experiment import cli
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.settings.config import Config
from smpo_jax.experiment.settings.config_file import load_yaml
from smpo_jax.experiment.settings.options import TrainOptions
from smpo_jax.experiment.suite import grid
from smpo_jax.training import loop

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "README.md",
    *(
        path
        for folder in ("configs", "envs", "notebooks", "smpo_jax")
        for path in sorted((ROOT / folder).rglob("README.md"))
    ),
]
README = (ROOT / "README.md").read_text()
ALGORITHMS_README, ENVS_README, EXPERIMENT_README, SUITES_README = (
    ROOT / folder / "README.md"
    for folder in ("smpo_jax/algorithms", "envs", "smpo_jax/experiment", "configs/suites")
)


def programs(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def example(path, mark):
    """What the program of that README that contains `mark` defines."""
    (program,) = (x for x in programs(path) if mark in x)
    mine: dict[str, Any] = {"__name__": "mine"}
    exec(program, mine)
    return mine


def anchors(path):
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", x.lower()).strip().replace(" ", "-") for x in headings}


def test_readme_fits_on_a_few_screens():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.fixture
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "configs/suites/tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numbers_are_those_of_the_reports(tables, capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_a_report_that_has_changed_changes_the_tables(tables, tmp_path, capsys):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "README.md", tmp_path)
    (file,) = (tmp_path / "configs/suites/reports/comparison").glob("variants.csv")
    lines = file.read_text().splitlines()
    cells = lines[1].split(",")
    at = lines[0].split(",").index("return")
    lines[1] = ",".join([*cells[:at], "77.7", *cells[at + 1 :]])
    file.write_text("\n".join(lines))
    assert tables.main(["--check"], tmp_path) == 1
    assert "README.md: not up to date" in capsys.readouterr().out
    assert tables.main([], tmp_path) == 0
    assert "77.7 [" in (tmp_path / "README.md").read_text()
    assert "77.70," in (tmp_path / "configs/suites/results.csv").read_text()
    assert "77.7 /" in (tmp_path / "configs/suites/README.md").read_text()
    assert tables.main(["--check"], tmp_path) == 0


@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_every_method_is_listed_with_its_paper(algo):
    (row,) = (x for x in README.splitlines() if x.startswith("| ") and f"`{algo}`" in _methods(x))
    assert f"[{ALGORITHMS[algo].year}](" in row
    for number in re.findall(r"arXiv (\d+\.\d+)", ALGORITHMS[algo].paper):
        assert f"https://arxiv.org/abs/{number}" in row


def _methods(line):
    """The last two columns of a row of the table of methods."""
    _, *cells, _ = line.split("|")
    return " ".join(cells[2:]) if len(cells) == 4 else ""


def test_every_suite_has_its_question():
    text = SUITES_README.read_text()
    folder = SUITES_README.parent
    for path in [*folder.glob("*.yaml"), *folder.glob("reports/*/*.md")]:
        assert f"]({path.relative_to(folder).as_posix()})" in text, path


def test_there_are_two_setup_commands_of_one_line_each():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "smpo-jax train" in commands[0] and "pytest" in commands[1]


def test_program_runs(capsys):
    (program,) = (x for x in programs(ROOT / "README.md") if "sx.train" in x)
    for large, small in {"PointGoal1": "ProbeFollow", "=250": "=10", "100": "2"}.items():
        assert large in program
        program = program.replace(large, small)
    exec(program, {})
    assert capsys.readouterr().out == "(3, 2)\n"


def test_a_loop_of_ones_own_learns(capsys):
    """Carts that drive faster than 0.5 cost; the threshold moves with the measured cost."""
    (program,) = (x for x in programs(ROOT / "README.md") if "sx.track" in x)
    mine: dict[str, Any] = {}
    exec(program, mine)
    assert mine["learner"].iteration == 20
    assert np.isfinite(mine["metrics"]["policy/kl"])
    finished = mine["rollout"].episodes
    assert finished.count == 8 and finished.length == 100
    moved = (
        mine["learner"].params["policy"]["w"]
        - mine["algorithm"].init(jax.random.key(0)).params["policy"]["w"]
    )
    assert np.any(moved != 0)
    assert capsys.readouterr().out


def test_devices_can_be_shared_by_a_program():
    (program,) = (x for x in programs(EXPERIMENT_README) if "jax_num_cpu_devices" in x)
    program += "print(state.env_state.obs.sharding.num_devices)"
    # In a process of its own: it must come before anything else of jax.
    line = [sys.executable, "-c", program.replace("PointButton1", "ProbeFollow")]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "2\n"


def test_a_method_of_ones_own_learns_what_it_says():
    # With a price above what reward is worth, the policy keeps away from cost.
    mine = example(ALGORITHMS_README, "def make")
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeTradeoff"), num_envs=16)
    spec = loop.make_spec(env, rollout_length=20, total_iterations=60)
    costs = []
    for price in (0.0, 5.0):
        settings = mine["PricedPPO"](
            cost_price=price, minibatches=4, learning_rate=1e-2, hidden=(8,)
        )
        run = jax.jit(lambda key, s=settings: loop.train(mine["make"](spec, s), env, spec, key, 60))
        _, metrics = run(jax.random.key(0))
        costs.append(float(np.nanmean(metrics["episode/cost"][-5:])))
    free, dear = costs
    assert dear < 0.5 * free


def test_a_level_of_ones_own_has_what_it_says():
    env = example(ENVS_README, "PILLARS_CONTACT")["env"]
    state = jax.jit(env.reset)(jax.random.key(0))
    around = state.env.pipeline_state.arena
    for objects, number in ((around.markers["hazards"], 12), (around.world.fixed, 2)):
        assert objects.shape == (128, number, 2)
        assert np.all(np.abs(objects) < 1.2)
    assert state.obs.shape == (128, env.observation_size) == (128, 12 + 3 * 16)


@pytest.mark.usefixtures("quick_compilation")
def test_an_object_of_ones_own_is_pushed_and_charged_for():
    env = example(ENVS_README, "CRATES")["env"]
    state, step = jax.jit(env.reset)(jax.random.key(0)), jax.jit(env.step)
    assert state.obs.shape == (128, 12 + 2 * 16)
    assert state.env.pipeline_state.arena.world.boxes.position.shape == (128, 5, 3)
    before = state.env.pipeline_state.arena.world.boxes.position
    cost = np.zeros(128)
    for _ in range(150):
        state, seen = step(state, np.tile([0.05, 0.0], (128, 1)))  # full power straight ahead
        cost += np.where(state.steps > 0, seen.cost, 0)
    after = state.env.pipeline_state.arena.world.boxes.position
    same_episode = np.asarray(state.steps) >= 150
    pushed = np.abs(after - before).max((1, 2)) > 0.05
    assert np.sum(pushed & same_episode) > 10
    assert not np.any(pushed & same_episode & (cost == 0))
    assert np.all(np.isfinite(state.obs))


def test_a_task_of_ones_own_pays_by_the_metre():
    mine = example(ENVS_README, "Roaming")
    env, task = mine["env"], mine["task"]
    state = jax.jit(env.reset)(jax.random.key(0))
    assert state.obs.shape == (128, 12 + 16)
    one = jax.jit(task.reset)(jax.random.key(1))
    step, paid = jax.jit(task.step), 0.0
    start = one.pipeline_state.arena.world.robot.q
    for _ in range(50):
        one = step(one, np.array([0.05, 0.0]))
        paid += float(one.reward)
    way = np.linalg.norm(one.pipeline_state.arena.world.robot.q[:2] - start[:2])
    np.testing.assert_allclose(paid, way, rtol=1e-5)  # a straight line
    assert way > 0.1


@pytest.mark.usefixtures("quick_compilation")
def test_suite_runs_and_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = re.findall(r"```yaml\n(.*?)```", EXPERIMENT_README.read_text(), re.DOTALL)
    (text,) = (x for x in texts if "variants:" in x)
    cells = grid.expand(yaml.safe_load(text), where="README")
    assert len(cells) == 2 * (1 + 4) * 3
    assert cells[3].variant == "ours,threshold_feedback=0.05,cost_limit=10"
    small = {"PointGoal1, PointGoal2": "ProbeFollow", "seeds: 3": "seeds: 1", "2e6": "80"}
    for large, little in {
        **small,
        "variants:": "num_envs: 4\nrollout_length: 10\nvariants:",
    }.items():
        assert large in text
        text = text.replace(large, little)
    text = text.replace("ppo_lag:  ", "ppo_lag: {hyperparameters: {minibatches: 2}}  ")
    text = text.replace("weight_temperature: 30", "minibatches: 2, cost_minibatches: 2")
    Path("mine.yaml").write_text(text)
    assert cli.main(["suite", "mine.yaml", "--batch", "4"]) == 0
    assert "5 of 5 cells are done, in runs/mine" in capsys.readouterr().out
    assert cli.main(["report", "runs/mine"]) == 0
    assert "ours,threshold_feedback=0.2,cost_limit=25" in Path("report/report.md").read_text()


def test_config_file_loads(tmp_path):
    texts = re.findall(r"```yaml\n(.*?)```", EXPERIMENT_README.read_text(), re.DOTALL)
    (text,) = (x for x in texts if x.startswith("env:"))
    (tmp_path / "mine.yaml").write_text(text)
    config = load_yaml(tmp_path / "mine.yaml")
    assert (config.env, config.steps) == ("PointGoal1", 10_000_000)
    assert config.hyperparameters.discount == 0.997


@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_every_metric_is_explained(algo):
    config = Config(env="ProbeFollow", algo=algo)
    problem = build(config)
    state = jax.eval_shape(
        lambda key: loop.init(problem.algorithm, problem.env, key), jax.random.key(0)
    )
    iteration = loop.iteration(problem.algorithm, problem.env, problem.spec)
    _, metrics = jax.eval_shape(iteration, state)
    explained = ALGORITHMS_README.read_text()
    assert [name for name in metrics if f"`{name}`" not in explained] == []


@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_no_hyperparameter_has_the_name_of_a_field_of_the_run(algo):
    own = set(vars(registry.hyperparameters(algo)))
    assert not own & (set(vars(Config())) | set(vars(TrainOptions())))


@pytest.mark.usefixtures("quick_compilation")
def test_a_schedule_of_ones_own_adds_hazards():
    curriculum = example(ENVS_README, "def harder")["curriculum"]
    first = jax.jit(curriculum.reset)
    for taken, number in ((0, 8), (20_000, 10)):
        markers = first(jax.random.key(0), np.int32(taken)).pipeline_state.arena.markers
        assert markers["hazards"].shape == (16, 2)
        assert np.sum(markers["hazards"][:, 0] < 2) == number


TINY = "--algo ppo --num-envs 4 --rollout-length 10 --steps 80 --minibatches 2 --epochs 1"


def trained(name, *options):
    """Trains on the environment of that name, and evaluates."""
    run = ["train", "--env", name, *options, *TINY.split(), "--overwrite", "--out", "run"]
    assert cli.main(run) == 0
    assert cli.main(["evaluate", "run", "--episodes", "2"]) == 0


def written(mark, name):
    """The program of the environments' README that contains `mark`, which is now in a file."""
    (program,) = (x for x in programs(ENVS_README) if mark in x)
    Path(name).write_text(program)
    return program


@pytest.mark.usefixtures("quick_compilation")
def test_an_environment_of_ones_own_is_trained_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = written("A cart;", "my_task.py")
    assert len(program.splitlines()) <= 40
    trained("my_task:make", "--env-option", "fast=0.4")
    assert "after 100 steps" in smpo_envs.check_env(smpo_envs.make("my_task:make"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("quick_compilation")
def test_an_environment_of_braxs_is_charged(tmp_path, monkeypatch):
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    monkeypatch.chdir(tmp_path)
    written("from brax import envs", "swift.py")
    trained("swift:make")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_commands_for_brax_train(tmp_path, monkeypatch):
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    monkeypatch.chdir(tmp_path)
    for line in ENVS_README.read_text().splitlines():
        if line.startswith("smpo-jax train --env brax:"):
            _, _, _, name, *options, _, _ = line.split()
            trained(name, *options)


@pytest.mark.usefixtures("quick_compilation")
def test_an_environment_in_the_style_of_gymnax_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (program,) = (x for x in programs(ENVS_README) if "class Heater" in x)
    tiny = "steps=80, num_envs=4, rollout_length=10, hyperparameters={'minibatches': 2}"
    assert "steps=1e6" in program
    mine: dict[str, Any] = {"__name__": "mine"}
    exec(program.replace("steps=1e6", tiny), mine)
    assert mine["policy"].predict([0.8]).shape == (1,)
    assert mine["env"].episode_length == 50


@pytest.mark.host
@pytest.mark.usefixtures("quick_compilation")
def test_environments_outside_jax_are_trained_by_their_names(tmp_path, monkeypatch):
    compat = pytest.importorskip("smpo_envs.host.compat")
    try:
        compat.check_installed()
    except ImportError as missing:
        pytest.skip(str(missing))
    monkeypatch.chdir(tmp_path)
    written("def speed(", "my_cost.py")
    short = ("--num-envs", "2", "--episode-length", "10")
    trained("gymnasium:Pendulum-v1", "--env-option", "cost=my_cost:speed", *short)
    trained("SafetySwimmerVelocity-v1", *short)


def program(mark, **changes):
    """The program of the environments' README that contains `mark`, with smaller numbers."""
    (text,) = (x for x in programs(ENVS_README) if mark in x)
    for large, small in changes.items():
        assert large in text
        text = text.replace(large, small)
    return text


@pytest.mark.usefixtures("quick_compilation")
def test_ours_are_made_by_gymnasium(capsys):
    gymnasium = pytest.importorskip("gymnasium", reason="needs the extra 'gymnasium'")
    many = "num_envs=3"
    if gymnasium.__version__.startswith("0."):
        many += ", vectorization_mode='custom'"
    exec(program("gymnasium.make_vec", **{"PointGoal1": "PointCircle1", "num_envs=64": many}), {})
    assert capsys.readouterr().out == "0.0 (400, 400, 3)\n(3,)\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_learns_in_ours():
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, which brings torch")
    importlib.import_module("torch").set_num_threads(
        1
    )  # more wait for each other where cores are few
    small = {"PointGoal1": "ProbeFollow", "64, auto": "16, auto", "1_000_000": "0"}
    mine: dict[str, Any] = {}
    exec(
        program("VecMonitor", **small, **{"seed=0": "seed=0, learning_rate=3e-3, gamma=0.9"}), mine
    )
    model = mine["model"]

    def act(obs):
        return model.predict(np.asarray(obs), deterministic=True)[0]

    assert earned(act) < IDLE
    model.learn(20_000)
    assert earned(act) > LEARNT
    assert len(model.ep_info_buffer) == 100  # what `VecMonitor` saw of episodes
    assert {episode["l"] for episode in model.ep_info_buffer} == {10}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_braxs_trainer_logs_the_cost_of_ours(capsys):
    pytest.importorskip("brax", reason="needs the extra 'brax'")
    tiny = "640, num_envs=8, batch_size=8, num_minibatches=2, unroll_length=10"
    small = {"PointGoal1": "ProbeFollow", "episode_length=1000": "episode_length=10"}
    exec(program("smpo_envs.to_brax", **small, **{"1_000_000": tiny}), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rejax_trains_in_ours(capsys):
    pytest.importorskip("rejax", reason="needs rejax")
    small = {"PointGoal1": "ProbeFollow", "1_000_000": "8_192", "250_000": "4_096"}
    exec(program("rejax.PPO", **small), {})
    assert len(capsys.readouterr().out.split()) == 3  # before, and at two times


@pytest.mark.usefixtures("quick_compilation")
def test_an_environment_with_two_costs_has_two_limits(tmp_path):
    env = example(ENVS_README, "def low_and_high")["low_and_high"]()
    result = sx.run(env=env, algo="ppo_lag", cost_limit=(1, 3), steps=160, num_envs=8,
                    rollout_length=20, out=tmp_path / "run", quiet=True,
                    hyperparameters={"minibatches": 2, "epochs": 1, "hidden": [8]})  # fmt: skip
    assert {"episode/cost/low", "constraint/square/multiplier"} <= set(result.metrics)
