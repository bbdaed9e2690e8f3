"""Files that come with the package; `--config` and `suite` take them by name."""

import os
from collections.abc import Mapping
from pathlib import Path

from smpo_jax.experiment.errors import UserError
from smpo_jax.names import suggest

_PACKAGE = Path(__file__).parents[2]
_INSTALLED, _IN_CLONE = _PACKAGE / "presets", _PACKAGE.parent / "configs"
_SUITES = "suites/"


def runs() -> dict[str, Path]:
    """The files of single runs, by name: `PointGoal1/smpo`."""
    return {name: file for name, file in _all().items() if not name.startswith(_SUITES)}


def suites() -> dict[str, Path]:
    """The files of suites, by name: `comparison`."""
    return {
        name.removeprefix(_SUITES): file
        for name, file in _all().items()
        if name.startswith(_SUITES)
    }


def find(given: Path, presets: Mapping[str, Path]) -> Path:
    """The file that is meant: the one at that path, or else the preset of that name.

    Raises:
        UserError: it has no ending, as names of presets haven't, and is neither of the two.
    """
    if given.suffix or os.path.isfile(given):
        return given  # what is wrong with a file is told where it is read
    name = given.as_posix()
    if name not in presets:
        near = suggest(name, presets)
        raise UserError(f"{name:.80} is neither a file nor a preset, see `smpo-jax list`{near}")
    return presets[name]


def _all() -> dict[str, Path]:
    folder = _INSTALLED if _INSTALLED.is_dir() else _IN_CLONE
    files = sorted(folder.glob("*/*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
