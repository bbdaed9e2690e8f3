"""What each command accepts; the command line is read into these records."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

import tyro

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.config import Config, CostLimit, EnvOptions, WhichCheckpoint
from smpo_jax.experiment.settings.shifts import NO_SWEEP, Sweep
from smpo_jax.ranges import MOST

ExportFormat = Literal["npz", "onnx", "stablehlo"]
ROBUSTNESS_SWEEP = Sweep(("hazards=4,8,12,16", "size=0.1,0.2,0.3,0.4", "extent=1.5,1.2,0.9"))


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the processes of a run meet; see `TrainOptions`, None is left to the scheduler.

    Raises:
        UserError: values that cannot be.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    join_timeout: float = 300.0

    def __post_init__(self) -> None:
        """Refuses what JAX would end the process for."""
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise UserError(f"coordinator: expected HOST:PORT, got {self.coordinator!r}")
        if self.num_processes is not None:
            require_count("num_processes", self.num_processes)
        if self.process_id is not None and self.process_id not in range(self.num_processes or MOST):
            last = (self.num_processes or MOST) - 1
            raise UserError(f"process_id: must be between 0 and {last}, got {self.process_id}")
        if not 1 <= self.join_timeout < MOST:
            raise UserError(f"join_timeout: must be at least 1 s, got {self.join_timeout}")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where a run comes from.

    Attributes:
        config: a YAML file with some or all of the fields below, or the name of one that `smpo-jax
            list` shows; the command line wins over it.
        resume: the folder of a run to go on with; of other options it takes only --steps, the
            length that it is to have. What decays over a run then goes on as if it had always been
            that long.
        overwrite: replace the run that is in the folder.
        distributed: train together with the same command in other processes, on other hosts.
            SLURM, Kubernetes or another scheduler that JAX knows says which; if there is none, the
            next three do.
        coordinator: HOST:PORT of process 0, with a port that is free there.
        num_processes: how many there are.
        process_id: which one this is, from 0; process 0 writes the run's folder.
        join_timeout: seconds that they wait for each other at the start.
    """

    config: Path | None = None
    resume: Path | None = None
    overwrite: bool = False
    distributed: bool = False
    coordinator: str | None = Cluster.coordinator
    num_processes: int | None = Cluster.num_processes
    process_id: int | None = Cluster.process_id
    join_timeout: float = Cluster.join_timeout

    @property
    def cluster(self) -> Cluster | None:
        """The processes to train with; None if this one trains alone.

        Raises:
            UserError: options of a cluster, and none to train in, or values that cannot be.
        """
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(Cluster)}
        if self.distributed:
            return Cluster(**given)
        for name, value in given.items():
            if value != getattr(Cluster, name):
                raise UserError(f"{name}: has no meaning without --distributed")
        return None


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Return and cost of a trained policy.

    Attributes:
        folder: the folder of a run, or pretrained:NAME, a policy that `smpo-jax list` shows.
        checkpoint: newest, best (the highest return among those whose cost, with its 95 % interval,
            kept the limit in training; if none did, the least cost) or an iteration.
        episodes: how many episodes to play.
        on: native, which is what it was trained in; or the task in the real Safety-Gymnasium.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
        json: print JSON.
        cost_limit: the limit that episodes are held against, of several costs one for each with
            commas between them; unless given, the run's. Only a policy of smpo-limits is told.
        hazard_shift: play where hazards differ from the task's own: NAME=VALUE,VALUE of hazards
            (their number), size (radius, m) and extent (half width of the square they are in, m);
            every combination in turn. Unless given, what the run was trained on at its end.
    """

    folder: tyro.conf.Positional[Path]
    checkpoint: WhichCheckpoint = "newest"
    episodes: int = 100
    on: Literal["native", "safety-gymnasium"] = "native"
    deterministic: bool = False
    seed: int = 0
    json: bool = False
    cost_limit: CostLimit | None = None
    hazard_shift: Sweep = NO_SWEEP


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Return, cost and the safety critic's calibration where hazards differ from the task's own.

    Attributes:
        folder: the folder of a run, or of a suite, whose finished cells are taken.
        checkpoint: newest, best (see evaluate --help) or an iteration.
        out: the picture to write, with FILE.csv and FILE-calibration.csv beside it.
        task: which of a suite's tasks; needed if it has several.
        hazard_shift: what varies, one at a time, the rest being the task's own: NAME=VALUE,VALUE of
            hazards, size and extent. Calibration is drawn for the last value of each.
        episodes: how many to play at each point.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
    """

    folder: tyro.conf.Positional[Path]
    checkpoint: WhichCheckpoint = "newest"
    out: Path = Path("robustness.png")
    task: str | None = None
    hazard_shift: Sweep = ROBUSTNESS_SWEEP
    episodes: int = 100
    deterministic: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Learning curves: return and cost against environment steps, one column for each task.

    Attributes:
        folders: folders of runs; those of one algorithm on one task are averaged over seeds.
        out: the picture to write; its ending (png, pdf, svg) says which format.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """A trained policy seen from above: a film of episodes, or a picture of their paths.

    Attributes:
        folder: the folder of a run, or pretrained:NAME, a policy that `smpo-jax list` shows.
        checkpoint: newest, best (see evaluate --help) or an iteration.
        episodes: how many, one after another in a film, side by side in a picture.
        out: the file to write; its ending says whether a film (mp4, gif) or a picture (png, pdf,
            svg). Unless given, episodes.gif in the folder; of pretrained:TASK/ALGO TASK-ALGO.gif.
        deterministic: act with the mean of the policy instead of sampling from it.
        seed: seed of the episodes and of the policy's samples.
        speed: of a film, in multiples of real time.
        log: also add the film, a gif, to the run's TensorBoard and Weights & Biases.
    """

    folder: tyro.conf.Positional[Path]
    checkpoint: WhichCheckpoint = "newest"
    episodes: int = 3
    out: Path | None = None
    deterministic: bool = False
    seed: int = 0
    speed: float = 2.0
    log: bool = False


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """A trained policy, acting without noise, as a file for programs without this package.

    Attributes:
        folder: the folder of a run, or pretrained:NAME, a policy that `smpo-jax list` shows.
        checkpoint: newest, best (see evaluate --help) or an iteration.
        to: npz for arrays that a page of NumPy acts with; onnx for ONNX (needs the extra `onnx`);
            stablehlo for a program of JAX's (needs the extra `export`). Unless given, the ending of
            the file says so.
        out: the file to write. Unless given, policy.npz, or with the ending that --to says.
    """

    folder: tyro.conf.Positional[Path]
    checkpoint: WhichCheckpoint = "newest"
    to: ExportFormat | None = None
    out: Path | None = None


@dataclasses.dataclass(frozen=True)
class SuiteOptions:
    """Trains every cell of a grid of tasks, variants and seeds.

    Attributes:
        file: the YAML file that describes the grid, or the name of one that `smpo-jax list` shows.
        out: the suite's folder; each cell is a run in TASK/VARIANT/seedN below it. Unless given,
            runs/ and the file's name.
        resume: go on with the suite in the folder; cells that are done are left as they are.
        batch: most cells that one program trains at the same time; they may differ in seed, cost
            limit and float hyperparameters. Unless given, 1 on a CPU, elsewhere what fits.
        executor: what trains the cells: processes of this command; local, jobs on this machine that
            go on without it; slurm, jobs of a SLURM cluster, which do, too; ray, tasks of the Ray
            cluster at RAY_ADDRESS, or of Ray on this machine. All but the first keep the suite's
            folder on a disk that the machines share.
        processes: how many programs run at the same time, each in a process of its own; of the
            executor of that name.
        array: most jobs at a time, of the other executors. Unless given, as many as this machine
            has cores with local, and else 1000.
        resources: what each job asks for, NAME=VALUE: with slurm in the words of submitit and
            sbatch (partition=gpu time=240 mem=8GB gpus_per_node=1), with ray in Ray's (num_gpus=1).
        steps: environment steps of every cell, instead of what the file says. Saved with the suite:
            with --resume it need not be given again.
        seeds: the seeds of every task and variant, instead of what the file says; saved likewise.
    """

    file: tyro.conf.Positional[Path]
    out: Path | None = None
    resume: bool = False
    batch: int | None = None
    executor: Literal["processes", "local", "slurm", "ray"] = "processes"
    processes: int = 1
    array: int | None = None
    resources: tuple[str, ...] = ()
    steps: int | None = None
    seeds: tuple[int, ...] = ()

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces the file's own, in the terms of the file."""
        steps = {} if self.steps is None else {"steps": self.steps}
        return steps | ({"seeds": list(self.seeds)} if self.seeds else {})


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Tables and figures of a suite: report.md, cells.csv, variants.csv and pictures.

    Attributes:
        folder: the folder of a suite; it need not be finished.
        out: the folder to write to; what an earlier report left there is replaced.
        published: also list and draw published results on the same tasks.
        window: how much of a run, counted from its end, is its final performance.
    """

    folder: tyro.conf.Positional[Path]
    out: Path = Path("report")
    published: bool = False
    window: float = 0.1


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Tasks and algorithms, one line each; and the names of presets."""


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """A script that has a shell complete commands, options and their choices.

    Attributes:
        shell: bash reads it with eval "$(smpo-jax completion bash)", fish with smpo-jax completion
            fish | source, and zsh from a file _smpo-jax in a folder of its fpath.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Steps per second on this machine, compilation apart; medians of several repeats.

    Attributes:
        env: the task. One outside JAX is stepped in as many environments as are trained in.
        env_options: NAME=VALUE, as for `train`.
        num_envs: numbers of environments to step at the same time.
        devices: how many devices share the environments and the updates; on a CPU, cores.
        algos: algorithms to time training with; none times the environment only.
        train_envs: environments while training.
        rollout_length: steps of each environment between two updates, while training.
        seeds: independent runs trained at the same time by one program.
        repeats: how often each measurement is made.
        json: print JSON.
    """

    env: str = "PointGoal1"
    env_options: EnvOptions = ()
    num_envs: tuple[int, ...] = (1024, 4096)
    devices: int = 1
    algos: tuple[str, ...] = ("ppo", "smpo")
    train_envs: int = Config.num_envs
    rollout_length: int = Config.rollout_length
    seeds: int = 1
    repeats: int = 5
    json: bool = False
