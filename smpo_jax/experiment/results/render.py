"""What a policy does, seen from above: a film of single episodes, or the paths of many."""

from pathlib import Path

import jax

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import film, paths
from smpo_jax.experiment.results.episodes import play
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.settings.coercion import require_count
from smpo_jax.experiment.settings.options import RenderOptions

FILMS, PICTURES = (".mp4", ".gif"), (".png", ".pdf", ".svg")


def main(options: RenderOptions) -> None:
    """Renders and prints the file's name."""
    print(
        render(
            options.folder,
            out=options.out,
            episodes=options.episodes,
            seed=options.seed,
            deterministic=options.deterministic,
            speed=options.speed,
        )
    )


def render(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    episodes: int = 3,
    seed: int = 0,
    deterministic: bool = False,
    speed: float = 2.0,
) -> Path:
    """Films a trained policy (mp4, gif), or draws its paths (png, pdf, svg).

    Args:
        folder: of a run; its newest checkpoint is used.
        out: the file to write; `episodes.gif` in the folder unless given.
        episodes: one after another in a film, side by side in a picture.
        seed: of the episodes and of the policy's samples.
        deterministic: act with the mean of the policy.
        speed: of a film, in multiples of real time.

    Returns:
        The file.

    Raises:
        UserError: no run is there, its task cannot be drawn, or the file cannot be of that kind.
    """
    folder = Path(folder)
    out = folder / "episodes.gif" if out is None else Path(out)
    _check(out, episodes, speed)
    policy = load_policy(folder)
    seen = play(policy, jax.random.key(seed), episodes, deterministic=deterministic)
    title, limit = f"{policy.config.algo} on {policy.config.env}", policy.config.cost_limit
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() in PICTURES:
        paths.draw(seen, title=title, cost_limit=limit).savefig(out)
    else:
        stride = max(1, round(speed / seen.drawing.step_seconds / film.FRAMES_PER_SECOND))
        film.write(out, film.frames(seen, title=title, cost_limit=limit, every=stride))
    return out


def _check(out: Path, episodes: int, speed: float) -> None:
    if out.suffix.lower() not in FILMS + PICTURES:
        raise UserError(f"--out {out}: its ending must be one of {', '.join(FILMS + PICTURES)}")
    require_count("episodes", episodes)
    if not speed > 0:
        raise UserError(f"speed: must be positive, got {speed}")
