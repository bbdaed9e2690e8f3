"""The trained policies of a run, or of all finished cells of a suite."""

from pathlib import Path

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.results.robustness import Member
from smpo_jax.experiment.suite import suite_folder


def find(folder: Path, task: str | None) -> list[Member]:
    """The policy of a run, or those of a suite's finished cells on a task.

    Raises:
        UserError: there is none, or the suite has several tasks and none was named.
    """
    if not (folder / suite_folder.SUITE_FILE).is_file():
        policy = load_policy(folder)
        return [Member(policy.config.algo, policy)]
    cells = [
        cell
        for cell in suite_folder.load(folder).cells
        if suite_folder.status(folder, cell) == "done" and task in (None, cell.config.env)
    ]
    tasks = sorted({cell.config.env for cell in cells})
    if not cells:
        raise UserError(f"no cell of {folder} is done{f' on {task}' if task else ''}")
    if len(tasks) > 1:
        raise UserError(f"{folder} has several tasks: choose one with --task {'|'.join(tasks)}")
    return [Member(cell.variant, load_policy(folder / cell.name)) for cell in cells]
