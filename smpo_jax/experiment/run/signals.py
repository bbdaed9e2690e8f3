"""Ctrl-C and SIGTERM as a question to answer between two chunks."""

import os
import signal
import threading
from types import FrameType
from typing import Protocol


class StopFlag(Protocol):
    """Something that may ask the host loop to stop."""

    @property
    def is_set(self) -> bool:
        """Whether it has."""
        ...


class StopOnSignal:
    """Remembers that a stop was asked for, while in its `with` block.

    The first signal only sets it. A second one ends the process at once, as it would have
    without this: what was saved is on disk, and checkpoints are there as a whole or not at all.
    In a thread that is not the main one no signal comes.

    Args:
        listens: False leaves signals to the program around it.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, listens: bool = True) -> None:
        self._listens = listens
        self.received: signal.Signals | None = None

    @property
    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """What a shell reports of a process that the signal ended: 130 or 143."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> "StopOnSignal":
        # Python lets no other thread than the main one take signals.
        is_main = threading.current_thread() is threading.main_thread()
        numbers = self.SIGNALS if self._listens and is_main else ()
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        # Not `print`, which may be what the signal interrupted.
        os.write(2, b"\nstopping when the iterations under way are done; again to stop at once\n")
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
