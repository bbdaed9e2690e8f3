"""How a run can end badly: each kind is one line on stderr and one exit status."""

import functools
import sys


class UserError(Exception):
    """Something the user can put right. One line, exit status 2."""


class DivergenceError(Exception):
    """NaN, infinity or negative costs came out of training. One line, exit status 1."""


def one_line(message: object) -> str:
    """The message without line breaks or runs of blanks."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Why it failed, in one line; of what the system reports, without the path."""
    named = isinstance(error, OSError) and error.strerror
    return one_line(named or error)


@functools.cache  # once, however often the same is found
def tell(notice: str) -> None:
    """Says something on stderr that is no error."""
    print(f"smpo-jax: {notice}", file=sys.stderr)
