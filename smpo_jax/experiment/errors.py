"""How a run can end badly: each kind is one line on stderr and one exit status."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right. One line, exit status 2."""


class DivergenceError(Exception):
    """NaN or infinity came out of an update. One line, exit status 1."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean X?"`, or the allowed names where none is near."""
    allowed = list(allowed)
    folded = {candidate.lower(): candidate for candidate in allowed}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {folded[near[0]]}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else ""


def one_line(message: object) -> str:
    """The message without line breaks or runs of blanks."""
    return " ".join(str(message).split())
