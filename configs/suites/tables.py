"""Writes `results.csv`, the numbers of all reports, and those of them that README files show.

    python configs/suites/tables.py          # after a report has changed
    python configs/suites/tables.py --check  # exit status 1 if a file is not up to date

In the README files of the repository and of the folders below this one, what stands between
`<!-- table: NAME -->` and `<!-- end -->` is written by this program. NAME is `results`, the table
of methods and tasks, or SUITE/TASK/VARIANT, one variant's return and cost.
"""

import csv
import io
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import smpo_envs

ROOT = Path(__file__).parents[2]
REPORTS = "configs/suites/reports"
RESULTS = "configs/suites/results.csv"

# Reports stay as they were written. In those named here `smpo` is what is now called `smpo-ppo`,
# and `trpo_smpo` what is now called `smpo`. A report that is written anew leaves this list.
WITH_OLD_NAMES = (
    "baselines",
    "best-ablations",
    "best-transfer",
    "paper-ablations",
    "paper-sanity",
    "paper-sensitivity",
    "robustness-long",
    "robustness-training",
    "transfer",
)
NEW_NAMES = {"trpo_smpo": "smpo", "smpo": "smpo-ppo", "smpo-scheduled": "smpo-ppo-scheduled"}

# The table of results: a method's numbers on a task are those of the first report that has both.
REPORTS_OF_RESULTS = ("comparison", "best-transfer", "transfer")
TASKS = ("PointGoal1", "PointGoal2", "PointButton1", "PointCircle1")
METHODS = {
    "smpo": "`smpo`",
    "smpo-ppo": "`smpo-ppo`",
    "trpo_lag": "`trpo_lag`",
    "trpo_lag-faster": "`trpo_lag`, multiplier's rate 0.1",
    "trpo_pid": "`trpo_pid`",
    "ppo_lag": "`ppo_lag`",
}


class Estimate(NamedTuple):
    """An interquartile mean over seeds and its interval."""

    mean: float
    low: float
    high: float


class Row(NamedTuple):
    """What came of one variant of a suite on one task.

    Attributes:
        seeds: how many finished.
        steps: of the environments, in each seed's run.
        return_, cost: of the episodes that ended in the last tenth of training.
        training_cost: of the mean episode of all of training.
    """

    suite: str
    task: str
    variant: str
    algorithm: str
    cost_limit: float
    seeds: int
    steps: int
    return_: Estimate
    cost: Estimate
    training_cost: Estimate


def read(root: Path) -> list[Row]:
    """The rows of all reports, under today's names."""
    files = sorted(root.glob(f"{REPORTS}/*/variants.csv"))
    return [row for file in files for row in _report(file.parent.name, file)]


def _report(suite: str, file: Path) -> list[Row]:
    lines = list(csv.DictReader(io.StringIO(file.read_text())))
    old = suite in WITH_OLD_NAMES
    given = {line["algo"] for line in lines}
    if ("smpo-ppo" if old else "trpo_smpo") in given:
        what = "has new names: remove it from" if old else "has old names: add it to"
        raise SystemExit(f"the report on {suite} {what} WITH_OLD_NAMES in {__file__}")
    finished = [line for line in lines if int(line["done"])]
    return [_row(suite, line, NEW_NAMES if old else {}) for line in finished]


def _episode_length(task: str) -> int:
    """Steps; of tasks in the real package, which need not be installed here, all have 1000."""
    return 1000 if task.startswith("safety-gymnasium:") else smpo_envs.make(task).episode_length


def _row(suite: str, line: dict[str, str], names: dict[str, str]) -> Row:
    def estimate(name: str, unit: float = 1.0) -> Estimate:
        return Estimate(*(unit * float(line[name + end]) for end in ("", "_low", "_high")))

    return Row(
        suite,
        line["task"],
        names.get(line["variant"], line["variant"]),
        names.get(line["algo"], line["algo"]),
        float(line["cost_limit"]),
        int(line["done"]),
        int(line["steps"]),
        estimate("return"),
        estimate("cost"),
        estimate("cost_rate", _episode_length(line["task"])),
    )


def as_csv(rows: list[Row]) -> str:
    """The table file: `*_low` and `*_high` are the ends of intervals; of one seed there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("return", "cost", "training_cost")
    ends = [name + end for name in names for end in ("", "_low", "_high")]
    writer.writerow([*Row._fields[:-3], *ends])
    for row in rows:
        numbers = ["" if math.isnan(x) else f"{x:.2f}" for one in row[-3:] for x in one]
        writer.writerow([*row[:4], f"{row.cost_limit:g}", row.seeds, row.steps, *numbers])
    return out.getvalue()


def results(rows: list[Row]) -> str:
    """Methods beside tasks, as Markdown."""
    table = {task: {m: _find(rows, task, m) for m in METHODS} for task in TASKS}
    heads = [f"{task} ({_seeds(table[task].values())} seeds)" for task in TASKS]
    lines = [["method", *heads], ["---"] * (1 + len(TASKS))]
    lines += [
        [label, *(_with_intervals(table[task][method]) for task in TASKS)]
        for method, label in METHODS.items()
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _find(rows: list[Row], task: str, method: str) -> Row:
    found = [row for row in rows if (row.task, row.variant) == (task, method)]
    return next(r for suite in REPORTS_OF_RESULTS for r in found if r.suite == suite)


def _seeds(rows: Iterable[Row]) -> str:
    return " or ".join(str(number) for number in sorted({row.seeds for row in rows}))


def _with_intervals(row: Row) -> str:
    return " / ".join(f"{x.mean:.1f} [{x.low:.1f}, {x.high:.1f}]" for x in (row.return_, row.cost))


def fill(text: str, rows: list[Row]) -> str:
    """A README's text with its marked places filled in."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        if name == "results":
            content = "\n" + results(rows)
        else:
            found = [r for r in rows if f"{r.suite}/{r.task}/{r.variant}" == name]
            if not found:
                raise SystemExit(f"a README asks for {name}, and no report has that")
            content = f"{found[0].return_.mean:.1f} / {found[0].cost.mean:.1f}"
        return f"<!-- table: {name} -->{content}<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->.*?<!-- end -->", block, text, flags=re.DOTALL)


def main(words: list[str], root: Path = ROOT) -> int:
    """Writes what is not up to date, or with `--check` only names it."""
    if words not in ([], ["--check"]):
        raise SystemExit(__doc__)
    rows = read(root)
    contents = {root / RESULTS: as_csv(rows)}
    for path in [root / "README.md", *sorted(root.glob("configs/suites/**/README.md"))]:
        contents[path] = fill(path.read_text(), rows)
    old = [path for path, text in contents.items() if not path.exists() or path.read_text() != text]
    for path in old:
        print(f"{path.relative_to(root)}: {'not up to date' if words else 'written'}")
        if not words:
            path.write_text(contents[path])
    return 1 if words and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
