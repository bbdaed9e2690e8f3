"""The processes that an engine has started for the jobs of a test, found by their folder."""

import os
import signal
import time
from pathlib import Path

from processes import PATIENCE


def find(word):
    """Those in the working directory of the test whose command line has this word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            is_ours = os.readlink(entry / "cwd") == str(Path.cwd())
        except OSError:
            continue  # it has ended, or is not ours
        if is_ours and word in line:
            found.append(int(entry.name))
    return found


def holder(folder):
    """The process that has the lock of a run's folder open."""
    path = str((Path(folder) / ".lock").resolve())
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(entry) == path:
                return int(entry.parts[2])
        except OSError:
            continue
    return None


def signal_holder(folder, number):
    """Sends a signal to the process that trains in a folder."""
    for _ in range(PATIENCE * 100):
        pid = holder(folder)
        if pid is not None:
            os.kill(pid, number)
            return pid
        time.sleep(0.01)
    raise AssertionError(f"nobody trains in {folder}")


def end_all(word):
    """Kills what is left of them at the end of a test."""
    for pid in find(word):
        os.kill(pid, signal.SIGKILL)
