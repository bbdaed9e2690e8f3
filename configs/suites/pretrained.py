"""Writes the policies of the package, from runs of `frontier.yaml` or `pretrained.yaml`.

    smpo-jax suite pretrained --processes 2
    python configs/suites/pretrained.py runs/pretrained/*/*/seed0

Of each run the checkpoint is chosen by its own evaluation, for all methods alike: those of
the second half of the run play 300 native episodes each, actions sampled. Of those whose mean cost
keeps the limit with its 95 % interval the one of the highest return is taken; if none does, the one
of the least excess. What is recorded is measured afterwards, in 1 000 other episodes.

`configs/pretrained/TASK/ALGO.json` and `.npz` are written; the rows of the table in its README are
printed.
"""

import argparse
import contextlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

import smpo_envs
import smpo_jax
from smpo_jax.experiment import cli
from smpo_jax.experiment.problem import single_env
from smpo_jax.experiment.results import intervals, pretrained
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.run.checkpoint import Checkpoints
from smpo_jax.experiment.run.selection import Score
from smpo_jax.experiment.settings import config_file
from smpo_jax.training.evaluation import make_evaluator

HERE = Path(__file__).parent
TRIALS, EPISODES = 300, 1000
SEED_OF_TRIALS, SEED = 1, 2  # of episodes


def evaluate(folder: Path, iteration: int, *options: object) -> dict[str, Any]:
    """What `smpo-jax evaluate --json` prints."""
    words = ["evaluate", folder, "--checkpoint", iteration, "--json", *options]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main([str(word) for word in words])
    if status:
        raise SystemExit(status)
    return json.loads(printed.getvalue())


def chosen(folder: Path) -> int:
    """The iteration of the best checkpoint of the second half of a run."""
    config = config_file.load(folder)
    with Checkpoints(folder, config, write=False) as checkpoints:
        there = checkpoints.iterations()
    first = load_policy(folder, there[-1])
    env = smpo_envs.VectorEnv(single_env(config), TRIALS, stagger=False)
    play = make_evaluator(first.algorithm, env, TRIALS, deterministic=False)

    def rank(iteration: int) -> tuple[bool, float, float]:
        episodes = play(load_policy(folder, iteration).learner, jax.random.key(SEED_OF_TRIALS))
        cost = intervals.mean(np.asarray(episodes.cost))
        score = Score(float(np.mean(episodes.return_)), cost.value, cost.high - cost.value, TRIALS)
        return score.rank(config.limits["cost"])

    return max((i for i in there if i >= there[-1] / 2), key=lambda i: (rank(i), i))


def write(folder: Path, out: Path, commit: str) -> str:
    """Writes the files of one run's policy, and returns its row of the table."""
    iteration = chosen(folder)
    policy = load_policy(folder, iteration)
    options = ("--episodes", EPISODES, "--seed", SEED)
    scores = {
        "sampled": evaluate(folder, iteration, *options),
        "deterministic": evaluate(folder, iteration, *options, "--deterministic"),
    }
    name = Path(policy.config.env, policy.config.algo)
    about = {"version": smpo_jax.__version__, "commit": commit, "scores": scores}
    pretrained.write(out / name.with_suffix(".json"), policy.config, policy.learner, about)
    cells = [
        f"{each['return']['value']:.1f} / {each['cost']['value']:.1f}" for each in scores.values()
    ]
    over = f"{100 * scores['sampled']['over_limit']['value']:.0f} %"
    steps = f"{scores['sampled']['steps'] / 1e6:.1f}"
    words = (f"`pretrained:{name.as_posix()}`", steps, *cells, over)
    return f"| {' | '.join(words)} |"


def main() -> None:
    """Writes all that are named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, default=HERE.parent / "pretrained")
    parser.add_argument("--commit", help="of the code that trained; unless given, that of HEAD")
    given = parser.parse_args()
    head = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = given.commit or subprocess.run(head, check=True, capture_output=True, text=True).stdout
    for folder in given.runs:
        print(write(folder, given.out, commit.strip()))


if __name__ == "__main__":
    main()
