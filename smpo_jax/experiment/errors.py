"""How a run can end badly: each kind is one line on stderr and one exit status."""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator

PROGRAM = "smpo-jax"
LONGEST = 2000  # characters of a message: inputs that it shows may be of any length


class UserError(Exception):
    """Something the user can put right. One line, exit status 2."""

    def __init__(self, message: object) -> None:
        line = one_line(message)
        half = LONGEST // 2
        super().__init__(line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}")


class LackOfMemoryError(UserError):
    """There is less memory than the user has asked for."""


class DivergenceError(Exception):
    """NaN, infinity or negative costs came out of training. One line, exit status 1."""


def exit_status(work: Callable[[], int]) -> int:
    """Does the work; whatever ends it badly is told in one line.

    Returns:
        What it returns; 1 if training diverged, 2 for a mistake of the user's or a disk that cannot
        be written, 130 after Ctrl-C.
    """
    try:
        with memory_told():
            return work()
    except DivergenceError as error:
        return _fail(error, status=1)
    except UserError as error:
        return _fail(error, status=2)
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for what the interpreter flushes last)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", status=2)
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)


def _fail(message: object, *, status: int) -> int:
    print(f"{PROGRAM}: error: {one_line(message)}", file=sys.stderr)
    return status


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Makes a `LackOfMemoryError` of what Python, JAX and XLA raise where they get no memory."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        asked = re.search(r"allocat\w* (?:of )?([\d.]+ ?(?:bytes|[KMGT]i?B))", text)
        size = f": {asked[1]} could not be had" if asked else ""
        raise LackOfMemoryError(
            f"there is not enough memory{size}; take fewer environments, episodes or hidden units"
        ) from error


def one_line(message: object) -> str:
    """The message without line breaks or runs of blanks."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Why it failed, in one line; of what the system reports, without the path."""
    if "set_int_max_str_digits" in str(error):  # Python's advice to its programmers
        return "a number of too many digits"
    named = isinstance(error, OSError) and error.strerror
    return one_line(named or error)


@functools.cache  # once, however often the same is found
def tell(notice: str) -> None:
    """Says something on stderr that is no error."""
    print(f"{PROGRAM}: {notice}", file=sys.stderr)
