"""Files that come with the package; `--config` and `suite` take them by name.

So do commands that read a trained policy: `pretrained:PointGoal1/smpo` instead of a run's folder.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from smpo_jax.experiment.errors import UserError
from smpo_jax.names import nearest

_PACKAGE = Path(__file__).parents[2]
_INSTALLED, _IN_CLONE = _PACKAGE / "presets", _PACKAGE.parent / "configs"
_SUITES = "suites/"
PRETRAINED = "pretrained:"  # before the name of a policy, where the folder of a run is asked for


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


def policies() -> dict[str, Path]:
    """The records of trained policies, by name: `PointGoal1/smpo`."""
    folder = _folder() / "pretrained"
    files = sorted(folder.glob("*/*.json"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def is_policy(folder: Path) -> bool:
    """Whether a trained policy that comes with the package is meant, not the folder of a run."""
    return folder.as_posix().startswith(PRETRAINED)


def find_policy(given: Path) -> Path:
    """The record of the trained policy that is meant by `pretrained:NAME`.

    Raises:
        UserError: there is none of that name; it says which there are.
    """
    name, there = given.as_posix().removeprefix(PRETRAINED), policies()
    if name in there:
        return there[name]
    near = nearest(name, there)
    names = "" if near.startswith("; allowed") else f" (all: {', '.join(there)})"
    raise UserError(f"there is no pretrained policy {name:.80}{near}{names}")


def described(record: Path) -> str:
    """What the policy of a record scores, in a line."""
    found = json.loads(record.read_text(encoding="utf-8"))
    score = found["scores"]["sampled"]
    return (
        f"return {score['return']['value']:.1f}, cost {score['cost']['value']:.1f} at a limit of "
        f"{score['cost_limit']:g}, after {score['steps']:.0e} steps"
    )


def find(given: Path, presets: Mapping[str, Path]) -> Path:
    """The file that is meant: the one at that path, or else the preset of that name.

    Raises:
        UserError: it has no ending, as names of presets haven't, and is neither of the two.
    """
    if given.suffix or os.path.isfile(given):
        return given  # what is wrong with a file is told where it is read
    name = given.as_posix()
    if name not in presets:
        near = nearest(name, presets)
        raise UserError(f"{name:.80} is neither a file nor a preset, see `smpo-jax list`{near}")
    return presets[name]


def _folder() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _IN_CLONE


def _all() -> dict[str, Path]:
    folder = _folder()
    files = sorted(folder.glob("*/*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
