"""What to tell someone who got a name wrong."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: object, allowed: Iterable[str]) -> str:
    """`"; did you mean X?"`, or the allowed names where none is near."""
    allowed = list(allowed)
    folded = {candidate.lower(): candidate for candidate in allowed}
    near = get_close_matches(str(name).lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {folded[near[0]]}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else ""
