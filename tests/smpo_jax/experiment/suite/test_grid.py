from pathlib import Path

import pytest
import yaml

from smpo_jax.algorithms import registry
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.suite import grid

ROOT = Path(__file__).parents[4]


def expand(text):
    return grid.expand(yaml.safe_load(text), where="s.yaml")


def test_cells_are_tasks_times_variants_times_seeds():
    cells = expand("tasks: [ProbeFollow, ProbeExits]\nseeds: [3, 5]\nvariants: [toy, ppo]")
    assert [cell.name for cell in cells] == [
        "ProbeFollow/toy/seed3", "ProbeFollow/toy/seed5", "ProbeFollow/ppo/seed3",
        "ProbeFollow/ppo/seed5", "ProbeExits/toy/seed3", "ProbeExits/toy/seed5",
        "ProbeExits/ppo/seed3", "ProbeExits/ppo/seed5",
    ]  # fmt: skip
    first = cells[0].config
    assert (first.env, first.algo, first.seed) == ("ProbeFollow", "toy", 3)
    # the preset of the algorithm (repeats) and its defaults, as in a run of its own
    assert first.hyperparameters.repeats == 2 and first.hyperparameters.step == 0.1


def test_a_number_of_seeds_counts_from_zero_and_one_seed_is_the_default():
    assert [c.config.seed for c in expand("tasks: [ProbeFollow]\nseeds: 3\nvariants: [toy]")] == [
        0, 1, 2,
    ]  # fmt: skip
    assert [c.config.seed for c in expand("tasks: [ProbeFollow]\nvariants: [toy]")] == [0]


def test_grid_crosses_hyperparameters_and_fields_of_the_run():
    cells = expand(
        """
        tasks: [ProbeFollow]
        variants:
          mine:
            algo: toy
            hyperparameters: {start: 1, step: 9}
            grid: {step: [0.5, 1e-3], cost_limit: [1, 2.5], sizes: [[2, 3]]}
        """
    )
    assert {
        cell.variant: (cell.config.hyperparameters.step, cell.config.cost_limit) for cell in cells
    } == {
        "mine,step=0.5,cost_limit=1,sizes=2x3": (0.5, 1.0),
        "mine,step=0.5,cost_limit=2.5,sizes=2x3": (0.5, 2.5),
        "mine,step=1e-3,cost_limit=1,sizes=2x3": (0.001, 1.0),
        "mine,step=1e-3,cost_limit=2.5,sizes=2x3": (0.001, 2.5),
    }
    assert all(cell.config.hyperparameters.start == 1.0 for cell in cells)
    assert all(cell.config.hyperparameters.sizes == (2, 3) for cell in cells)


def test_what_comes_later_wins():
    cells = expand(
        """
        tasks: {ProbeFollow: , ProbeExits: {steps: 200, cost_limit: 2}}
        steps: 100
        cost_limit: 1
        variants:
          plain: {algo: toy}
          own: {algo: toy, cost_limit: 3}
          crossed: {algo: toy, cost_limit: 3, grid: {cost_limit: [4]}}
        """
    )
    found = {cell.name: (cell.config.steps, cell.config.cost_limit) for cell in cells}
    assert found == {
        "ProbeFollow/plain/seed0": (100, 1.0),
        "ProbeFollow/own/seed0": (100, 3.0),
        "ProbeFollow/crossed,cost_limit=4/seed0": (100, 4.0),
        "ProbeExits/plain/seed0": (200, 2.0),
        "ProbeExits/own/seed0": (200, 3.0),
        "ProbeExits/crossed,cost_limit=4/seed0": (200, 4.0),
    }


HEAD = "tasks: [ProbeFollow]\nvariants: "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "s.yaml: tasks: expected a list of one or more, got None"),
        ("[1]", "s.yaml: expected `key: value` lines, got [1]"),
        ("tasks: []\nvariants: [toy]", "s.yaml: tasks: expected a list of one or more, got []"),
        ("tasks: [PointGaol1]\nvariants: [toy]", "did you mean 'PointGoal1'?"),
        ("tasks: [ProbeFollow]", "s.yaml: variants: expected a list of one or more, got None"),
        (HEAD + "[tyo]", "algo: there is no algorithm 'tyo'; did you mean toy?"),
        (HEAD + "[toy, toy]", "s.yaml: the cell ProbeFollow/toy/seed0 is there twice"),
        (HEAD + "[toy]\nseeds: [1, 1]", "the cell ProbeFollow/toy/seed1 is there twice"),
        (HEAD + "[toy]\nseeds: 0", "s.yaml: seeds: expected a list of one or more, got []"),
        (HEAD + "[toy]\nseeds: [a]", "s.yaml: seeds: expected an integer, got 'a'"),
        (HEAD + "[toy]\nseeds: true", "s.yaml: seeds: expected an integer, got True"),
        (HEAD + "[toy]\nstep: 1", "s.yaml: unknown key 'step'; did you mean steps?"),
        (HEAD + "[toy]\nseed: 1", "s.yaml: seed is given by `seeds:`"),
        (HEAD + "[toy]\nout: x", "s.yaml: out is given by --out"),
        (HEAD + "[toy]\nhyperparameters: {step: 1}", "hyperparameters is given by `variants:`"),
        (HEAD + "[toy]\nsteps: many", "variants: toy: steps: expected an integer, got 'many'"),
        (HEAD + "{a/b: {algo: toy}}", "a variant's name is part of a folder's"),
        (HEAD + "{..: {algo: toy}}", "a variant's name is part of a folder's"),
        (HEAD + "{toy: 3}", "s.yaml: variants: toy: expected `key: value` lines, got 3"),
        (HEAD + "{toy: {seed: 3}}", "s.yaml: variants: toy: seed is given by `seeds:`"),
        (HEAD + "{toy: {step: 3}}", "variants: toy: step belongs under `hyperparameters:`"),
        (HEAD + "{toy: {hyperparameters: {stpe: 3}}}", "toy has no hyperparameter 'stpe'"),
        (HEAD + "{toy: {hyperparameters: {step: -3}}}", "step=-3.0 must be 0 or more"),
        (HEAD + "{toy: {grid: {step: 3}}}", "grid: step: expected a list of one or more, got 3"),
        (HEAD + "{toy: {grid: {stpe: [3]}}}", "toy has no hyperparameter 'stpe'"),
        (HEAD + "{toy: {grid: {seed: [3]}}}", "toy: grid: seed is given by `seeds:`"),
        (HEAD + "{toy: {grid: {algo: [ppo]}}}", "toy: grid: algo is given by `variants:`"),
        (HEAD + "{toy: {grid: {step: [2, 2.0]}}}", "toy,step=2/seed0 is there twice"),
    ],
)
def test_mistake_names_the_place_and_what_is_allowed(text, expected):
    with pytest.raises(UserError) as caught:
        expand(text)
    assert expected in str(caught.value)


def test_key_given_twice_and_missing_file_are_one_line(command, tmp_path):
    Path("s.yaml").write_text("seeds: 1\nseeds: 2\n")
    assert "the key 'seeds' is given twice" in command("suite s.yaml").error
    assert command("suite missing.yaml").error.startswith("cannot read config missing.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/suites/*.yaml")), ids=lambda p: p.stem)
def test_every_suite_in_the_repository_loads_and_builds(path):
    specs = {}
    for cell in grid.load(path):
        config = cell.config
        where = (config.env, str(config.hazard_shift))
        if where not in specs:  # environments are most of the time that building takes
            specs[where] = build(config).spec
        registry.build(config.algo, specs[where], config.hyperparameters)
