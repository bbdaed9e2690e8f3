"""The files of a trained policy that comes with the package; `load_policy` takes it by name.

A policy is two files of one name: `.npz` has the arrays that acting takes, under their paths in the
learner, and `.json` the record: what it was trained with and by which code, and what it scores.
Neither runs code when it is read. Critics and optimisers are left out.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smpo_jax.experiment.errors import UserError, reason
from smpo_jax.experiment.run.leaves import Leaves, to_leaves
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config
from smpo_jax.types import LearnerState

FORMAT = 1


class Saved(NamedTuple):
    """What the two files hold.

    Attributes:
        config: of the run.
        iteration: updates made.
        leaves: of `acting_part`, under their paths.
        about: the rest of the record: version and commit of the code, how the checkpoint was
            chosen, and the scores, as `smpo-jax evaluate --json` prints them.
    """

    config: Config
    iteration: int
    leaves: Leaves
    about: Mapping[str, Any]


def acting_part(learner: LearnerState) -> LearnerState:
    """The learner with nothing but what its policy takes to act; works on shapes, too."""
    return learner.replace(params={"policy": learner.params["policy"]}, opt_state={}, aux=())


def write(record: Path, config: Config, learner: LearnerState, about: Mapping[str, Any]) -> None:
    """Writes the two files.

    Args:
        record: the `.json`; the arrays come beside it.
        config: of the run.
        learner: what the run has learnt, whole or its `acting_part`.
        about: of `Saved`; in JSON's types.
    """
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **to_leaves(acting_part(learner)))
    content = {
        "format": FORMAT,
        **about,
        "iteration": int(learner.iteration),
        "config": config_file.as_mapping(config),
        "sha256": hashlib.sha256(arrays.getvalue()).hexdigest(),
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    record.with_suffix(".npz").write_bytes(arrays.getvalue())
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(record: Path) -> Saved:
    """What the two files hold, given the `.json`.

    Raises:
        UserError: one is missing or damaged, or of another format.
    """
    about = dict(config_file.read_json(record))
    arrays = record.with_suffix(".npz")
    if about.pop("format", None) != FORMAT:
        raise UserError(f"{record} is not of format {FORMAT}: it is of another version")
    try:
        content = arrays.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {arrays}: {reason(error)}") from error
    if hashlib.sha256(content).hexdigest() != about.pop("sha256"):
        raise UserError(f"{arrays} is damaged: install the package again")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        leaves = {path: file[path] for path in file.files}
    config = config_file.from_mapping(about.pop("config"), where=str(record))
    return Saved(config, about.pop("iteration"), leaves, about)
