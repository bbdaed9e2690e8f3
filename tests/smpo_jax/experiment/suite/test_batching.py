from types import SimpleNamespace

import jax
import pytest

from smpo_jax.experiment.settings.config_file import from_mapping
from smpo_jax.experiment.suite import batching
from smpo_jax.experiment.suite.batching import assign_batches, program_key, split_evenly
from smpo_jax.experiment.suite.grid import Cell

BASE = {"env": "ProbeFollow", "algo": "toy", "steps": 100, "num_envs": 4, "rollout_length": 5}


def config(**fields):
    own = {k: fields.pop(k) for k in list(fields) if k not in {*BASE, "seed", "cost_limit"}}
    host = {k: own.pop(k) for k in list(own) if k in ("report_every", "wandb")}
    return from_mapping({**BASE, **fields, **host, "hyperparameters": own}, where="test")


def cells(*variants):
    return [Cell(name, config(**fields)) for name, fields in variants]


@pytest.mark.parametrize(
    "fields",
    [{"seed": 1}, {"cost_limit": 2}, {"step": 0.5}, {"start": 3.0}, {"report_every": 9},
     {"steps": 99}],
)  # fmt: skip
def test_these_share_a_program(fields):
    assert program_key(config(**fields)) == program_key(config())


@pytest.mark.parametrize(
    "fields",
    [{"env": "ProbeExits"}, {"algo": "ppo"}, {"steps": 200}, {"num_envs": 5}, {"repeats": 1},
     {"sizes": [2]}, {"form": "fancy"}, {"shift": False}, {"scale": 1.0}, {"rollout_length": 6}],
)  # fmt: skip
def test_these_do_not(fields):
    assert program_key(config(**fields)) != program_key(config())


def test_runs_of_a_method_that_is_told_its_limit_share_a_program_under_the_same_one():
    key, same, other = (
        program_key(from_mapping({**BASE, "algo": "smpo-limits", **own}, where="test"))
        for own in ({}, {"seed": 1}, {"cost_limit": 2.0})
    )
    assert key == same != other


def test_parts_are_few_and_even():
    assert [len(part) for part in split_evenly(list(range(10)), 4)] == [4, 4, 2]
    assert [len(part) for part in split_evenly(list(range(9)), 4)] == [3, 3, 3]
    assert [len(part) for part in split_evenly(list(range(3)), 99)] == [3]
    assert [len(part) for part in split_evenly(list(range(3)), 1)] == [1, 1, 1]


def test_a_batch_has_cells_of_one_shape(tmp_path):
    given = cells(
        ("a", {"step": 1.0}), ("b", {"repeats": 1}), ("c", {"step": 2.0}), ("d", {"cost_limit": 9})
    )
    assert assign_batches(None, given, tmp_path, 8).batches == [
        ("ProbeFollow/a/seed0", "ProbeFollow/c/seed0", "ProbeFollow/d/seed0"),
        ("ProbeFollow/b/seed0",),
    ]


def test_cells_that_have_begun_stay_together_and_new_ones_get_a_batch_of_their_own(tmp_path):
    old, new = cells(("a", {}), ("b", {"step": 2.0})), cells(("c", {"step": 3.0}))
    before = assign_batches(None, old, tmp_path, 8)
    (tmp_path / "ProbeFollow/a/seed0/checkpoints/3").mkdir(parents=True)
    after = assign_batches(before, [*old, *new], tmp_path, 1)
    assert after.batches == [*before.batches, ("ProbeFollow/c/seed0",)]
    # one that has begun in a batch that is no longer whole goes on alone
    assert assign_batches(before, [*new, old[0]], tmp_path, 8).batches == [
        ("ProbeFollow/c/seed0",), ("ProbeFollow/a/seed0",),
    ]  # fmt: skip


def test_a_batch_that_has_got_nowhere_stays_unless_another_size_is_asked_for(tmp_path):
    given = cells(("a", {}), ("b", {"step": 2.0}), ("c", {"step": 3.0}))
    before = assign_batches(None, given, tmp_path, 8)
    assert assign_batches(before, given, tmp_path, None) == before
    (tmp_path / "ProbeFollow/a/seed0/checkpoints/0").mkdir(parents=True)
    assert assign_batches(before, given, tmp_path, None) == before
    assert [len(names) for names in assign_batches(before, given, tmp_path, 2).batches] == [2, 1]
    # it failed before its first iteration, for its size perhaps
    (tmp_path / "ProbeFollow/a/seed0/error.txt").write_text("out of memory")
    assert [len(names) for names in assign_batches(before, given, tmp_path, None).batches] == [
        1,
        1,
        1,
    ]


def test_a_batch_whose_cells_have_come_apart_is_planned_anew(tmp_path):
    before = assign_batches(None, cells(("a", {}), ("b", {"step": 2.0})), tmp_path, 8)
    changed = cells(("a", {}), ("b", {"repeats": 4}))
    assert [len(names) for names in assign_batches(before, changed, tmp_path, None).batches] == [
        1,
        1,
    ]


def test_on_a_cpu_a_program_has_one_run():
    assert jax.devices()[0].platform == "cpu"
    assert batching.default_batch_size(config()) == 1


@pytest.mark.parametrize(
    ("stats", "expected"),
    [({"bytes_limit": 2_100, "bytes_in_use": 100}, 10), ({"bytes_limit": 50}, 1), ({}, 1)],
)
def test_elsewhere_it_has_as_many_as_half_of_the_free_memory_holds(monkeypatch, stats, expected):
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(batching, "run_memory", lambda config: 100)
    assert batching.default_batch_size(config()) == expected


def test_memory_of_a_run_counts_its_rollout():
    small, large = (batching.run_memory(config(rollout_length=n)) for n in (5, 505))
    # of `follow`, 1 observation and 1 action: obs, action, log_prob, dist (2), reward, cost,
    # terminated, truncated, next_obs: 10 numbers of 4 bytes for each of 4 environments
    assert large - small == batching.OVERHEAD * 500 * 4 * 10 * 4
