"""`smpo-jax robustness`: the policies of a run, or of a suite's finished cells, under shift."""

from pathlib import Path

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import plots, robustness_figure, tables
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.results.robustness import (
    CalibrationAt,
    LabelledPolicy,
    PerformanceAt,
    calibrate_critics,
    calibration_rows,
    performance_row,
    play,
    shift_points,
)
from smpo_jax.experiment.settings import presets
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.config import WhichCheckpoint
from smpo_jax.experiment.settings.options import RobustnessOptions
from smpo_jax.experiment.suite import suite_folder


def main(options: RobustnessOptions) -> None:
    """Plays, and writes the figure and its two tables.

    Raises:
        UserError: nothing trained is there, or a shift that its task cannot have.
    """
    require_count("episodes", options.episodes)
    if not options.hazard_shift:
        raise UserError("hazard_shift: robustness needs something that varies, as in size=0.2,0.3")
    policies = find(options.folder, options.task, options.checkpoint)
    points = shift_points(policies[0].policy.config.env, options.hazard_shift.values)
    performance: list[PerformanceAt] = []
    calibration: list[CalibrationAt] = []
    for variant in dict.fromkeys(each.variant for each in policies):
        group = [each for each in policies if each.variant == variant]
        performance += play(group, points, options)
        calibration += calibrate_critics(group, points, options)
    plots.save(robustness_figure.draw(performance, calibration), options.out)
    tables.write(options.out.with_suffix(".csv"), map(performance_row, performance))
    if calibration:
        name = f"{options.out.stem}-calibration.csv"
        rows = (row for each in calibration for row in calibration_rows(each))
        tables.write(options.out.with_name(name), rows)
    print(options.out)


def find(
    folder: Path, task: str | None, checkpoint: WhichCheckpoint = "newest"
) -> list[LabelledPolicy]:
    """The policy of a run, or those of a suite's finished cells on a task.

    Raises:
        UserError: there is none, or the suite has several tasks and none was named.
    """
    if presets.is_policy(folder):
        raise UserError(
            f"{folder.as_posix()} has no critics to calibrate; its returns and costs under shift "
            "are those of smpo-jax evaluate --hazard-shift"
        )
    if not (folder / suite_folder.SUITE_FILE).is_file():
        policy = load_policy(folder, checkpoint)
        return [LabelledPolicy(policy.config.algo, policy)]
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
    return [
        LabelledPolicy(cell.variant, load_policy(folder / cell.name, checkpoint)) for cell in cells
    ]
