"""Checkpoints of the whole training state, so that a run can be killed at any moment.

A checkpoint is an orbax folder named by its iteration: the leaves of the `TrainState` under their
paths, and a JSON record with the config, the shape of every leaf and a digest of all of them.
Orbax writes into a temporary folder and renames it, so a checkpoint is there as a whole or not at
all; the digest catches files that were damaged afterwards, which orbax itself does not always
notice. Only arrays and JSON are stored: loading runs no code.

A record also says whether the checkpoint is one that every run of this config has, or was only made
for the case of a kill, and what the episodes before it were like. So the best one is known from
those that are there, and a run that was killed and resumed has the same as one that was not.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from smpo_jax.experiment.errors import UserError, one_line
from smpo_jax.experiment.problem import made_with, threads_of
from smpo_jax.experiment.run import selection
from smpo_jax.experiment.run.leaves import Leaves, digest, from_leaves, signature, to_leaves
from smpo_jax.experiment.run.selection import Score
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config, WhichCheckpoint

FORMAT = 1
FOLDER = "checkpoints"
RECORD = Path("record", "metadata")  # where orbax puts the JSON of a checkpoint
SLACK = 1 << 18  # bytes of a checkpoint besides its arrays, generously


class Restored(NamedTuple):
    """What a checkpoint gave back.

    Attributes:
        state: the state, in the structure of the template.
        iteration: updates made when it was saved.
        damaged: what is wrong with newer checkpoints that had to be passed over, iteration -> why.
        made_with: jax version, device and number of threads it was saved under.
    """

    state: Any
    iteration: int
    damaged: dict[int, str]
    made_with: str


class _Summary(NamedTuple):
    """What a record says of its checkpoint; of one that cannot be read, what costs least to assume.

    Attributes:
        is_interim: whether it was made only for the case of a kill.
        score: what the episodes before it were like.
    """

    is_interim: bool = False
    score: Score | None = None


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, config: Config, *, write: bool) -> None:
        """Opens the checkpoints of the run in `folder`.

        Args:
            folder: the run's folder.
            config: what the checkpoints must have been made with.
            write: False opens them for reading only, and changes nothing on disk.
        """
        self._folder = folder / FOLDER
        self._config = config
        if write:
            self._folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self._manager = ocp.CheckpointManager(
                self._folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    read_only=not write,
                    create=False,
                    enable_async_checkpointing=False,
                    multiprocessing_options=_this_process(),
                ),
            )
        self._summaries: dict[int, _Summary] = {}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with _quiet():
            self._manager.close()

    def iterations(self) -> list[int]:
        """The iterations that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The iteration of the best one; None if no episode had ended before any.

        Of equals it is the newest.
        """
        limits = self._config.limits
        limit = limits if len(limits) > 1 else limits["cost"]
        scores = {i: self._summary(i).score for i in self.iterations()}
        ranks = {i: score.rank(limit) for i, score in scores.items() if score is not None}
        return max(ranks, key=lambda i: (ranks[i], i), default=None)

    def save(
        self,
        state: Any,
        iteration: int,
        *,
        is_interim: bool = False,
        score: Score | None = None,
    ) -> None:
        """Writes a checkpoint, then deletes those that are no longer wanted.

        `keep_checkpoints` of the newest stay, and the best one. One that was interim goes as soon
        as there is another.

        Args:
            state: the state.
            iteration: updates made.
            is_interim: made only for the case of a kill.
            score: what the episodes before it were like.

        Raises:
            OSError: it could not be written; those that were there are as they were.
        """
        if iteration in self.iterations():
            return
        leaves = to_leaves(state)
        record = {
            "format": FORMAT,
            "iteration": iteration,
            "made_with": made_with(),
            "config": config_file.as_mapping(self._config),
            "interim": is_interim,
            "score": selection.as_json(score),
            "leaves": signature(leaves),
            "digest": digest(leaves),
        }
        # orbax refuses arrays without elements (the vases of a task that has none); their shape
        # in the record is all there is to know of them.
        stored = {path: leaf for path, leaf in leaves.items() if leaf.size}
        try:
            _reserve(self._folder, sum(leaf.nbytes for leaf in stored.values()) + SLACK)
            with _quiet():
                self._manager.save(
                    iteration,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(stored), record=ocp.args.JsonSave(record)
                    ),
                )
        except Exception as error:  # orbax reports a full disk as a ValueError, among others
            raise OSError(
                f"cannot write a checkpoint to {self._folder}: {_short(error)}"
            ) from error
        self._summaries[iteration] = _Summary(is_interim, score)
        self._prune()

    def restore(self, template: Any, part: str = "", which: WhichCheckpoint = "newest") -> Restored:
        """A checkpoint, checked against the template and the config.

        Args:
            template: a state, or its `jax.eval_shape`.
            part: restore only the leaves below this path, of which `template` is the structure.
            which: the newest that is whole, the best, or that of an iteration.

        Raises:
            UserError: there is no such one, it is damaged, or it belongs to another run.
        """
        if which != "newest":
            return self._restore_only(self.find(which), template, part)
        damaged: dict[int, str] = {}
        for iteration in reversed(self.iterations()):
            try:
                leaves, record = self._read(iteration)
            except _DamagedError as error:
                damaged[iteration] = str(error)
                continue
            return self._restored(iteration, leaves, record, template, part, damaged)
        if damaged:
            worst = "; ".join(f"{iteration}: {why}" for iteration, why in damaged.items())
            raise UserError(f"no checkpoint in {self._folder} is whole ({worst})")
        raise UserError(f"there is no checkpoint in {self._folder}")

    def find(self, which: WhichCheckpoint) -> int:
        """The iteration of a checkpoint, whole or not.

        Raises:
            UserError: there is no such one; it says which there are.
        """
        there, best = self.iterations(), self.best()
        if not there:
            raise UserError(f"there is no checkpoint in {self._folder}")
        found = there[-1] if which == "newest" else best if which == "best" else which
        if found in there:
            return found
        named = [f"{i} (best)" if i == best else str(i) for i in there]
        why = ", where no episode had ended before one" if which == "best" else ""
        raise UserError(
            f"there is no checkpoint {which} in {self._folder}{why}; there are {', '.join(named)}"
        )

    def discard_after(self, iteration: int) -> None:
        """Deletes the checkpoints newer than this one."""
        self._delete(newer for newer in self.iterations() if newer > iteration)

    def _prune(self) -> None:
        there = self.iterations()
        lasting = [i for i in there if not self._summary(i).is_interim]
        wanted = {there[-1], self.best(), *lasting[-self._config.keep_checkpoints :]}
        self._delete(i for i in there if i not in wanted)

    def _delete(self, iterations: Iterable[int]) -> None:
        for iteration in list(iterations):
            shutil.rmtree(self._folder / str(iteration))
            self._summaries.pop(iteration, None)
        self._manager.reload()

    def _summary(self, iteration: int) -> _Summary:
        if iteration not in self._summaries:
            self._summaries[iteration] = self._read_summary(iteration)
        return self._summaries[iteration]

    def _read_summary(self, iteration: int) -> _Summary:
        try:
            with _quiet():
                record = self._manager.restore(
                    iteration, args=ocp.args.Composite(record=ocp.args.JsonRestore())
                )["record"]
            # Those that older versions have written say neither.
            score = selection.from_json(record.get("score"))
            return _Summary(record.get("interim", False), score)
        except Exception:  # whatever orbax makes of a broken file; `restore` tells, if it matters
            return _Summary()

    def _restore_only(self, iteration: int, template: Any, part: str) -> Restored:
        try:
            leaves, record = self._read(iteration)
        except _DamagedError as error:
            raise UserError(
                f"checkpoint {iteration} in {self._folder} is damaged ({error})"
            ) from error
        return self._restored(iteration, leaves, record, template, part, {})

    def _restored(
        self,
        iteration: int,
        leaves: Leaves,
        record: Mapping[str, Any],
        template: Any,
        part: str,
        damaged: dict[int, str],
    ) -> Restored:
        where = f"checkpoint {iteration} in {self._folder}"
        self._check_owner(record["config"], where)
        state = from_leaves(leaves, template, part, where)
        return Restored(state, iteration, damaged, record["made_with"])

    def _read(self, iteration: int) -> tuple[Leaves, Mapping[str, Any]]:
        try:
            with _quiet(), _quiet_readers():
                found = self._manager.restore(
                    iteration,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore()
                    ),
                )
            return _verified(found["state"], found["record"])
        except Exception as error:  # whatever orbax and tensorstore make of a broken file
            raise _DamagedError(_short(error)) from error

    def _check_owner(self, theirs: Mapping[str, Any], where: str) -> None:
        owner = config_file.from_saved(theirs, where=where)
        difference = config_file.difference(owner, self._config)
        # It may have been made before the run was given another length.
        before = self._config.before_changes_of_length()
        if difference and all(config_file.difference(owner, each) for each in before):
            raise UserError(f"{where} belongs to another run: {difference}")


class _DamagedError(Exception):
    """A checkpoint that cannot be used, and why."""


def newest(folder: Path) -> int | None:
    """The iteration of the newest checkpoint of the run in a folder, without opening it."""
    names = (path.name for path in (folder / FOLDER).glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


def threads(folder: Path) -> int | None:
    """With how many threads XLA computed the newest checkpoint of a run, if the file tells.

    Opens nothing and starts no device, which could then not have that number.
    """
    try:
        record = config_file.read_json(folder / FOLDER / str(newest(folder)) / RECORD)
        return threads_of(record["made_with"])
    except (UserError, LookupError, TypeError):
        return None  # `restore` tells of damage


def _this_process() -> ocp.options.MultiprocessingOptions:
    """Has orbax wait for no other process: of those that train together, one has checkpoints."""
    if not jax.distributed.is_initialized():  # whose number, asked for, would start the device
        return ocp.options.MultiprocessingOptions()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


def _verified(
    state: Mapping[str, Any], record: Mapping[str, Any]
) -> tuple[Leaves, Mapping[str, Any]]:
    """The leaves, those without elements included, if they are what the record says."""
    if record["format"] != FORMAT:
        raise ValueError(f"its format is {record['format']}, not {FORMAT}")
    empty = {
        path: np.zeros(shape, dtype)
        for path, (shape, dtype) in record["leaves"].items()
        if 0 in shape
    }
    leaves = {path: np.asarray(leaf) for path, leaf in state.items()} | empty
    if signature(leaves) != record["leaves"] or digest(leaves) != record["digest"]:
        raise ValueError("its arrays are not those that were saved")
    return leaves, record


def _reserve(folder: Path, size: int) -> None:
    """Raises an OSError unless there is room for this many bytes.

    Orbax finds out too, but from threads that then fill the screen with their tracebacks.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".room") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.write(bytes(size))


def _short(error: Exception) -> str:
    """The message in one line; of a long one the two ends, where libraries say what and why."""
    named = isinstance(error, OSError) and error.strerror
    message = one_line(named or error) or type(error).__name__
    return message if len(message) < 300 else f"{message[:100]} ... {message[-180:]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's log, tracebacks of failed saves included, off the screen.

    With a filter of its own for each call: a level that is put back would stay wrong where runs in
    two threads overlap.
    """

    def nothing(_: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("absl")
    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


@contextlib.contextmanager
def _quiet_readers() -> Iterator[None]:
    """Keeps off the screen what orbax's readers say that are under way when another one fails.

    They find the event loop closed, in threads of tensorstore's that tell `sys.unraisablehook`, now
    or later: after a failure the filter stays, which lets everything else pass.
    """
    before = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = filtered
    yield
    sys.unraisablehook = before
