"""Waiting for processes that train."""

import time
from pathlib import Path

PATIENCE = 600  # seconds that a busy machine may take for what should take ten


def wait_for_iteration(child, folder, iteration):
    """Waits until this many rows are on disk; the process must not end before."""
    path = Path(folder) / "metrics.jsonl"
    for _ in range(PATIENCE * 100):
        if path.is_file() and path.read_bytes().count(b"\n") >= iteration:
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{folder} did not reach iteration {iteration}")


def finish(child):
    """(exit status, stdout, stderr) once it has ended."""
    out, err = child.communicate(timeout=PATIENCE)
    return child.returncode, out, err
