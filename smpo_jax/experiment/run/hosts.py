"""Processes, on one host or several, that train together: how they meet and part.

JAX makes one machine of their devices. A process that is lost ends the others, each with one line.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from typing import NamedTuple, NoReturn

import jax

from smpo_jax.experiment.errors import PROGRAM, UserError, exit_status, one_line, reason
from smpo_jax.experiment.run import runtime_log
from smpo_jax.experiment.run.messages import LostError
from smpo_jax.experiment.settings.options import Cluster

HEARTBEAT = 30  # seconds without a sign of life after which a process is lost
FAREWELL = 60  # seconds that processes wait for each other at the end
LOST = int(signal.SIGABRT)  # the exit status of those that have lost another one


class Company(NamedTuple):
    """The processes that this one has joined.

    Attributes:
        last_words: what is said if one of them is lost.
        log: the process that reads what the runtime writes.
    """

    last_words: str
    log: subprocess.Popen[bytes]

    def part(self) -> None:
        """Leaves the others, when all of them are about to."""
        jax.distributed.shutdown()

    def fall_out(self, error: BaseException) -> NoReturn:
        """Ends this process at once: those that wait for it see that it is gone."""
        status = 1
        if isinstance(error, LostError):
            status = LOST
            words = f"{runtime_log.WORDS}{PROGRAM}: error: {self.last_words} ({error})\n"
            os.write(2, words.encode())
        else:
            try:
                status = exit_status(lambda: _raise(error))
            except BaseException:
                traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        for number in (1, 2):  # all that is written for the log, which so ends
            os.close(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.log.wait(timeout=5)
        os._exit(status)


def join(cluster: Cluster, last_words: str) -> Company:
    """Meets the others: from here on JAX knows all devices. Before anything else of jax.

    Args:
        cluster: where they meet; what it leaves out, SLURM, Kubernetes or another scheduler that
            JAX knows has to say.
        last_words: what is said if another process is lost, also when the runtime is at work.

    Raises:
        UserError: there is no such place.
    """
    _require_free_port(cluster)
    log = _take_log()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = cluster.coordinator or "their coordinator"
    _leave_last_words(
        f"distributed: the processes have not met at {where} within {cluster.join_timeout:g} s; "
        "every one of them has to reach it, and to be started with a --process-id of its own"
    )
    asked = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would hear of it afterwards
    with warnings.catch_warnings(record=True) as notices:
        try:
            jax.distributed.initialize(
                cluster.coordinator,
                cluster.num_processes,
                cluster.process_id,
                initialization_timeout=max(1, round(cluster.join_timeout)),
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=FAREWELL,
            )
        except Exception as error:  # of schedulers, of sockets, of JAX's own checks
            told = [str(notice.message) for notice in notices]
            raise UserError(_why_not(cluster, error, told)) from error
    signal.signal(signal.SIGINT, asked)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which JAX would keep to itself
    _leave_last_words(last_words)
    return Company(last_words, log)


def _require_free_port(cluster: Cluster) -> None:
    """Raises a `UserError` where the runtime would crash."""
    if cluster.coordinator is None or cluster.process_id != 0:
        return
    port = int(cluster.coordinator.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            raise UserError(f"coordinator: port {port} cannot be had: {reason(error)}") from error


def _why_not(cluster: Cluster, error: Exception, notices: list[str]) -> str:
    """Why processes cannot meet, in one line."""
    if "should be defined" in str(error) or "must be defined" in str(error):
        named = f" ({one_line('; '.join(notices))})" if notices else ""
        return (
            "distributed: no scheduler that JAX knows says which processes there are; say "
            f"--coordinator HOST:PORT --num-processes N --process-id I{named}"
        )
    where = f" at {cluster.coordinator}" if cluster.coordinator else ""
    return f"distributed: the processes cannot meet{where}: {one_line(error)}"


def _take_log() -> subprocess.Popen[bytes]:
    """Has `runtime_log` read what is written by others than Python, who would fill the screen."""
    reader, writer = os.pipe()
    log = subprocess.Popen(
        [sys.executable, "-I", runtime_log.__file__],
        stdin=reader,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it: it ends with this process
    )
    os.close(reader)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        number = stream.fileno()
        own = open(  # noqa: SIM115  (as long as the process lives)
            os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
        )
        setattr(sys, name, own)
        os.dup2(writer, number)
    os.close(writer)
    _abort_quietly()
    return log


def _abort_quietly() -> None:
    """Makes an exit status of the signal by which the runtime ends the process: no core is dumped.

    In C, as Python's own handlers would not run any more.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        libc = ctypes.CDLL(None)
        libc.signal(signal.SIGABRT, libc._exit)


def _leave_last_words(words: str) -> None:
    os.write(2, f"{runtime_log.LAST_WORDS}{PROGRAM}: error: {one_line(words)}\n".encode())


def _raise(error: BaseException) -> int:
    raise error
