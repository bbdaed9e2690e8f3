import logging
import resource
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_algorithm import ToyPreset

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run import checkpoint
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.run.leaves import from_leaves, to_leaves
from smpo_jax.experiment.run.selection import Score
from smpo_jax.experiment.settings.config import Config


class State(NamedTuple):
    weights: jax.Array
    empty: jax.Array
    key: jax.Array
    keys: jax.Array
    more: dict


def make_state(seed=0, size=4):
    key, keys = jax.random.key(seed), jax.random.split(jax.random.key(seed + 1), 3)
    weights = jnp.arange(size, dtype=jnp.float32) + seed
    more = {"count": jnp.int32(seed), "flag": jnp.array([True, False]), "none": None}
    return State(weights, jnp.zeros((0, 3)), key, keys, more)


def config(**fields):
    return Config(algo="toy", env="ProbeTradeoff", **fields)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def save(folder, iterations, **fields):
    with Checkpoints(folder, config(**fields), write=True) as checkpoints:
        for iteration in iterations:
            checkpoints.save(make_state(iteration), iteration)


def restore(folder, template=None, part="", which: Any = "newest", **fields):
    template = jax.eval_shape(make_state) if template is None else template
    with Checkpoints(folder, config(**fields), write=False) as checkpoints:
        return checkpoints.restore(template, part, which)


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def test_restored_state_is_the_saved_one_bit_for_bit(tmp_path):
    save(tmp_path, [7])
    found = restore(tmp_path)
    assert found.iteration == 7 and not found.damaged
    assert_same(found.state, make_state(7))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    save(tmp_path, range(6), keep_checkpoints=2)
    with Checkpoints(tmp_path, config(), write=False) as checkpoints:
        assert checkpoints.iterations() == [4, 5]


def test_saving_an_iteration_again_changes_nothing(tmp_path):
    save(tmp_path, [3, 3])
    assert restore(tmp_path).iteration == 3


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint in"):
        restore(tmp_path)
    assert not list(tmp_path.iterdir())


def cut_in_half(folder):
    path = largest_file(folder / "state")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(folder):
    path = largest_file(folder / "state")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_the_arrays(folder):
    shutil.rmtree(folder / "state")


def lose_the_record(folder):
    shutil.rmtree(folder / "record")


def empty_the_record(folder):
    (folder / "record" / "metadata").write_text("")


def garble_the_record(folder):
    (folder / "record" / "metadata").write_text('{"format": 1}')


def foreign_record(folder):
    (folder / "record" / "metadata").write_text('{"version": "2.0"}')


def lose_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [
    cut_in_half,
    flip_a_bit,
    lose_the_arrays,
    lose_the_record,
    empty_the_record,
    garble_the_record,
    foreign_record,
    lose_everything,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    save(tmp_path, [1, 2])
    damage(tmp_path / "checkpoints" / "2")
    found = restore(tmp_path)
    assert found.iteration == 1 and list(found.damaged) == [2]
    assert found.damaged[2] and "\n" not in found.damaged[2]
    assert_same(found.state, make_state(1))


def test_no_whole_checkpoint_is_one_line(tmp_path):
    save(tmp_path, [1, 2])
    for iteration in ("1", "2"):
        cut_in_half(tmp_path / "checkpoints" / iteration)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole \(2: .*; 1: ") as caught:
        restore(tmp_path)
    assert "\n" not in str(caught.value)


def test_unfinished_folder_of_a_killed_save_is_ignored(tmp_path):
    save(tmp_path, [1, 2])
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "2").rename(checkpoints / "2.orbax-checkpoint-tmp")
    assert restore(tmp_path).iteration == 1
    save(tmp_path, [2])
    assert restore(tmp_path).iteration == 2


def test_damaged_checkpoints_make_way_for_new_ones(tmp_path):
    save(tmp_path, [1, 2])
    flip_a_bit(tmp_path / "checkpoints" / "2")
    with Checkpoints(tmp_path, config(), write=True) as checkpoints:
        checkpoints.discard_after(1)
        assert checkpoints.iterations() == [1]
        checkpoints.save(make_state(2), 2)
    assert_same(restore(tmp_path).state, make_state(2))


def test_checkpoint_of_another_run_is_refused(tmp_path):
    save(tmp_path, [1], seed=1)
    with pytest.raises(UserError, match="belongs to another run: seed is 1 there and 0 here"):
        restore(tmp_path)


def test_other_hyperparameters_are_named_one_by_one(tmp_path):
    save(tmp_path, [1], hyperparameters=ToyPreset(step=1.0, start=2.0))
    with pytest.raises(UserError, match=r"another run: step is 1\.0 there and 3\.0 here"):
        restore(tmp_path, hyperparameters=ToyPreset(step=3.0, start=2.0))


def test_fields_that_only_say_how_to_watch_may_change(tmp_path):
    save(tmp_path, [1], report_every=3, keep_checkpoints=1)
    assert restore(tmp_path, report_every=9, tensorboard=True).iteration == 1


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (make_state(size=5), r"weights is float32\[4\] there and float32\[5\] here"),
        (
            make_state()._replace(weights=jnp.zeros(4, jnp.int32)),
            r"weights is float32\[4\] there and int32\[4\] here",
        ),
        (make_state()._replace(more={}), "more/count is only in the checkpoint"),
        (
            make_state()._replace(more={**make_state().more, "new": jnp.zeros(())}),
            "more/new is only in the run",
        ),
        (make_state()._replace(empty=jnp.zeros((0, 4))), r"empty is float32\[0, 3\] there"),
        (make_state()._replace(key=jnp.zeros(2, jnp.uint32)), None),  # a key is its integers
    ],
)
def test_structure_shape_and_type_are_verified(tmp_path, template, expected):
    save(tmp_path, [1])
    if expected is None:
        assert restore(tmp_path, template).state.key.dtype == jnp.uint32
        return
    with pytest.raises(UserError, match=f"does not fit: {expected}"):
        restore(tmp_path, template)


def test_a_part_can_be_restored_alone(tmp_path):
    save(tmp_path, [5])
    template = {"count": jnp.int32(0), "flag": jnp.zeros(2, bool)}
    found = restore(tmp_path, template, part="more")
    assert found.state["count"] == 5 and set(found.state) == {"count", "flag"}


def test_leaves_are_named_by_their_paths():
    assert list(to_leaves(make_state())) == [
        "weights", "empty", "key", "keys", "more/count", "more/flag",
    ]  # fmt: skip


def test_leaves_hold_keys_as_integers():
    leaves = to_leaves(make_state())
    assert leaves["keys"].dtype == np.uint32 and leaves["keys"].shape == (3, 2)
    assert_same(from_leaves(leaves, make_state(), "", "here"), make_state())


def test_full_disk_is_an_os_error_and_leaves_the_others_as_they_were(tmp_path):
    save(tmp_path, [1])
    large = make_state(size=100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, config(), write=True) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # files cannot grow further
        try:
            with pytest.raises(OSError, match="cannot write a checkpoint to") as caught:
                checkpoints.save(large, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(caught.value).endswith("File too large")
        checkpoints.save(make_state(3), 3)  # there is room again
    assert restore(tmp_path).iteration == 3
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    assert_same(restore(tmp_path).state, make_state(1))


def test_whatever_orbax_raises_is_a_short_os_error(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, config(), write=True) as checkpoints:

        def fail(*_, **__):
            raise ValueError("OUT_OF_RANGE:\n" + 500 * "x" + " No space left on device")

        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(OSError, match=r"OUT_OF_RANGE: .* No space left on device$") as caught:
            checkpoints.save(make_state(), 1)
        assert len(str(caught.value)) < 500


def test_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FileExistsError):
        Checkpoints(tmp_path, config(), write=True)


def scored(folder, scores, **fields):
    """Checkpoints 1, 2, ... of these scores, of which None is interim."""
    with Checkpoints(folder, config(**fields), write=True) as checkpoints:
        for iteration, score in enumerate(scores, start=1):
            checkpoints.save(make_state(iteration), iteration, is_interim=not score, score=score)
        return checkpoints.iterations(), checkpoints.best()


def test_best_is_kept_beside_the_newest_until_there_is_a_better_one(tmp_path):
    good, poor, better = (Score(return_, 1.0, 1.0, 9) for return_ in (5.0, 1.0, 6.0))
    fields = {"keep_checkpoints": 2, "cost_limit": 3.0}
    assert scored(tmp_path / "a", [good, poor, poor, poor], **fields) == ([1, 3, 4], 1)
    assert scored(tmp_path / "b", [good, poor, better, poor], **fields) == ([3, 4], 3)
    assert scored(tmp_path / "c", [good, good], **fields) == ([1, 2], 2)  # equals: the newest
    assert restore(tmp_path / "a", which="best", **fields).iteration == 1


def test_best_is_the_same_after_a_kill_at_any_point(tmp_path):
    scores = [Score(return_, 1.0, 1.0, 9) for return_ in (1.0, 7.0, 2.0, 3.0, 7.0, 4.0, 1.0)]
    whole = scored(tmp_path / "whole", scores, keep_checkpoints=1)
    for killed_after in range(1, len(scores)):
        folder = tmp_path / str(killed_after)
        scored(folder, scores[:killed_after], keep_checkpoints=1)
        with Checkpoints(folder, config(keep_checkpoints=1), write=True) as checkpoints:
            for iteration in range(killed_after + 1, len(scores) + 1):
                checkpoints.save(make_state(iteration), iteration, score=scores[iteration - 1])
            assert (checkpoints.iterations(), checkpoints.best()) == whole == ([5, 7], 5)


def test_interim_checkpoint_goes_when_there_is_another(tmp_path):
    one = Score(1.0, 1.0, 0.0, 9)
    assert scored(tmp_path / "a", [one, None])[0] == [1, 2]
    assert scored(tmp_path / "b", [one, None, None, one, None])[0] == [1, 4, 5]


def test_checkpoint_that_is_not_there_is_one_line_that_says_which_are(tmp_path):
    one = Score(1.0, 1.0, 0.0, 9)
    scored(tmp_path, [one, None, one])
    with pytest.raises(UserError, match=r"no checkpoint 2 in \S+; there are 1, 3 \(best\)$"):
        restore(tmp_path, which=2)
    scored(tmp_path / "early", [None])
    with pytest.raises(UserError, match=r"no checkpoint best in .* no episode had .* there are 1$"):
        restore(tmp_path / "early", which="best")


def test_damaged_checkpoint_that_was_named_is_not_replaced_by_another(tmp_path):
    scored(tmp_path, [Score(1.0, 1.0, 0.0, 9)] * 2)
    flip_a_bit(tmp_path / "checkpoints" / "2")
    for which in ("best", 2):
        with pytest.raises(UserError, match=r"checkpoint 2 in .* is damaged"):
            restore(tmp_path, which=which)
    assert restore(tmp_path).iteration == 1


def test_checkpoint_from_before_the_run_was_made_longer_is_its_own(tmp_path):
    save(tmp_path, [3], steps=1000)
    longer = config(steps=1000).with_length(2000, made=600)
    for each, fits in ((longer, True), (config(steps=2000), False)):
        with Checkpoints(tmp_path, each, write=False) as checkpoints:
            if fits:
                assert checkpoints.restore(jax.eval_shape(make_state)).iteration == 3
            else:
                with pytest.raises(UserError, match=r"another run: .*steps is 1000 there"):
                    checkpoints.restore(jax.eval_shape(make_state))


def test_runs_in_two_threads_leave_the_log_as_it_was():
    logger = logging.getLogger("absl")
    before = logger.level, list(logger.filters)
    first, second = checkpoint._quiet(), checkpoint._quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # while the other is still at it
    record = logging.makeLogRecord({})
    assert not logger.filter(record)
    second.__exit__(None, None, None)
    assert logger.filter(record) and (logger.level, logger.filters) == before
