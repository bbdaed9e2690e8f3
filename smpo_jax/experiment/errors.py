"""How a run can end badly: each kind is one line on stderr and one exit status."""


class UserError(Exception):
    """Something the user can put right. One line, exit status 2."""


class DivergenceError(Exception):
    """NaN or infinity came out of an update. One line, exit status 1."""


def one_line(message: object) -> str:
    """The message without line breaks or runs of blanks."""
    return " ".join(str(message).split())
