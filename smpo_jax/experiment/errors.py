"""How a run can end badly: each kind is one line on stderr and one exit status."""

import re

LONGEST = 2000  # characters of a message: inputs that it shows may be of any length


class UserError(Exception):
    """Something the user can put right. One line, exit status 2."""

    def __init__(self, message: object) -> None:
        line = one_line(message)
        half = LONGEST // 2
        super().__init__(line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}")


class DivergenceError(Exception):
    """NaN or infinity came out of an update. One line, exit status 1."""


def lack_of_memory(error: BaseException) -> str | None:
    """What to say of an error, of Python's, JAX's or XLA's, that is a lack of memory; else None."""
    text = str(error)
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
        return None
    asked = re.search(r"allocat\w* (?:of )?([\d.]+ ?(?:bytes|[KMGT]i?B))", text)
    size = f": {asked[1]} could not be had" if asked else ""
    return f"there is not enough memory{size}; take fewer environments, episodes or hidden units"


def one_line(message: object) -> str:
    """The message without line breaks or runs of blanks."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Why it failed, in one line; of what the system reports, without the path."""
    named = isinstance(error, OSError) and error.strerror
    return one_line(named or error)
