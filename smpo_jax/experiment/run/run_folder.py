"""The folder of a run: whether it is free, what is in it, and who may write to it."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.run import checkpoint, writers
from smpo_jax.experiment.settings.config_file import CONFIG_FILE

LOCK_FILE = ".lock"
PROCESS_FILE = ".lock.process"  # where the file system has no locks
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what a file system without locks says


def has_metrics(folder: Path) -> bool:
    """Whether any iteration of the run has been written down."""
    path = folder / writers.METRICS_JSONL
    return path.is_file() and path.stat().st_size > 0


def check_vacant(folder: Path, *, overwrite: bool) -> None:
    """Raises a `UserError` unless a new run may be written to the folder."""
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        return
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder} is not empty and not the folder of a run: choose another --out")
    if not overwrite:
        raise UserError(
            f"{folder} holds a run: go on with --resume {folder}, replace it with --overwrite, "
            "or choose another --out"
        )


def clear(folder: Path) -> None:
    """Removes what a run has written, and nothing else."""
    for name in (checkpoint.FOLDER, writers.TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (writers.METRICS_CSV, writers.METRICS_JSONL, writers.TIMING_CSV, writers.WANDB_ID):
        (folder / name).unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Removes the folder of a run that has not made a single iteration."""
    if not has_metrics(folder):
        clear(folder)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's is in it
            folder.rmdir()


class InUseError(UserError):
    """Another process has the lock of a folder."""


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.2) -> Iterator[None]:
    """Keeps a second process out of the folder; the lock goes with the process, however it ends.

    Args:
        folder: the folder.
        patience: seconds to try for. Without locks of the system it takes a second try where the
            process is gone: the first one removes its file.

    Raises:
        InUseError: there is such a process.
    """
    try:
        lock = _acquired(folder / LOCK_FILE, patience)
    except filelock.Timeout:
        raise InUseError(f"another process is training in {folder}") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process, on whatever machine, trains in the folder."""
    if not any((folder / name).exists() for name in (LOCK_FILE, PROCESS_FILE)):
        return False
    try:
        with locked(folder, patience=0):
            return False
    except InUseError:
        return True


def _acquired(path: Path, patience: float) -> filelock.BaseFileLock:
    """The lock of the system, or where there is none, a file that names the process."""
    try:
        # Its own second kind takes the same path, where a third process removes it by mistake.
        return _taken(filelock.FileLock(path, fallback_to_soft=False), patience)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return _taken(filelock.SoftFileLock(path.with_name(PROCESS_FILE)), patience)


def _taken(lock: filelock.BaseFileLock, patience: float) -> filelock.BaseFileLock:
    lock.acquire(timeout=patience, poll_interval=0.05)
    return lock
