"""What a policy does, seen from above: a film of single episodes, or the paths of many."""

import os
from pathlib import Path
from typing import Any

import jax

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import film, paths, photographs
from smpo_jax.experiment.results.episodes import play
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.run import writers
from smpo_jax.experiment.settings import config_file, presets
from smpo_jax.experiment.settings.coercion import coerce_argument, require_count
from smpo_jax.experiment.settings.config import Config, WhichCheckpoint
from smpo_jax.experiment.settings.options import RenderOptions

FILMS, PICTURES = (".mp4", ".gif"), (".png", ".pdf", ".svg")


def main(options: RenderOptions) -> None:
    """Renders and prints the file's name."""
    print(
        render(
            options.folder,
            checkpoint=options.checkpoint,
            out=options.out,
            episodes=options.episodes,
            seed=options.seed,
            deterministic=options.deterministic,
            speed=options.speed,
            log=options.log,
        )
    )


def render(
    folder: str | os.PathLike[str],
    *,
    checkpoint: WhichCheckpoint = "newest",
    out: str | os.PathLike[str] | None = None,
    episodes: int = 3,
    seed: int = 0,
    deterministic: bool = False,
    speed: float = 2.0,
    log: bool = False,
    env: Any = None,
) -> Path:
    """Films a trained policy (mp4, gif), or draws its paths (png, pdf, svg).

    Args:
        folder: of a run, or `pretrained:NAME` as in `load_policy`.
        checkpoint: newest, best or an iteration, as in `load_policy`.
        out: the file to write; unless given `episodes.gif` in the run's folder, or for
            `pretrained:PointGoal1/smpo` `PointGoal1-smpo.gif` here.
        episodes: one after another in a film, side by side in a picture.
        seed: of the episodes and of the policy's samples.
        deterministic: act with the mean of the policy.
        speed: of a film, in multiples of real time.
        log: also add the film, a gif, to the run's TensorBoard and Weights & Biases.
        env: the run's environment, where that was given as an object.

    Returns:
        The file.

    Raises:
        UserError: no run is there, its task cannot be drawn, or the file cannot be of that kind.
    """
    home: Path = coerce_argument("folder", folder, Path)
    out = _default_out(home) if out is None else coerce_argument("out", out, Path)
    _check(out, episodes, speed)
    if log and presets.is_policy(home):
        raise UserError(f"log: {home.as_posix()} has no run to log to")
    if log:
        _check_log(config_file.load(home, env), out)
    policy = load_policy(home, checkpoint, env=env)
    title, limit = f"{policy.config.algo} on {policy.config.env}", policy.spec.cost_limit
    if policy.config.source.is_outside:
        if out.suffix.lower() in PICTURES:
            raise UserError(
                f"--out {out}: {policy.config.env} is outside JAX, of which there are only films: "
                + ", ".join(FILMS)
            )
        seen = photographs.play(policy, seed, episodes, deterministic=deterministic, speed=speed)
    else:
        drawn = play(policy, jax.random.key(seed), episodes, deterministic=deterministic)
        if out.suffix.lower() in PICTURES:
            out.parent.mkdir(parents=True, exist_ok=True)
            paths.draw(drawn, title=title, cost_limit=limit).savefig(out)
            return out
        seen = film.from_above(drawn, film.stride(speed, drawn.drawing.step_seconds))
    out.parent.mkdir(parents=True, exist_ok=True)
    film.write(out, film.frames(seen, title=title, cost_limit=limit))
    if log:
        steps = policy.iteration * policy.config.steps_per_iteration
        writers.log_film(out, home, policy.config, steps)
    return out


def _default_out(home: Path) -> Path:
    if not presets.is_policy(home):
        return home / "episodes.gif"
    presets.find_policy(home)  # a wrong name is told before any file is
    return Path(home.as_posix().removeprefix(presets.PRETRAINED).replace("/", "-") + ".gif")


def _check(out: Path, episodes: int, speed: float) -> None:
    if out.suffix.lower() not in FILMS + PICTURES:
        raise UserError(f"--out {out}: its ending must be one of {', '.join(FILMS + PICTURES)}")
    require_count("episodes", episodes)
    if not speed > 0:
        raise UserError(f"speed: must be positive, got {speed}")


def _check_log(config: Config, out: Path) -> None:
    writers.require_installed(config)
    if not (config.tensorboard or config.wandb):
        raise UserError("log: the run was made with neither tensorboard nor wandb")
    if out.suffix.lower() != ".gif":
        raise UserError(f"--out {out}: only a gif can be logged")
