"""What a policy does, seen from above: films of single episodes, or the paths of many."""

import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Polygon
from PIL import Image

from smpo_envs.drawing import ROBOT, Drawing, Look
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results.episodes import Recording, record
from smpo_jax.experiment.results.policy import load_policy
from smpo_jax.experiment.settings.options import RenderOptions

FRAMES_PER_SECOND = 25
FILMS, PICTURES = (".mp4", ".gif"), (".png", ".pdf", ".svg")
# Of the kinds of each role, one after another.
COLOURS = {
    "target": ("#2a9d4a",),
    "cost": ("#d1495b", "#e08a1e", "#8e5bb0"),
    "object": ("#4a7fb5", "#7f8c96"),
}
ROBOT_COLOUR, PATH_COLOUR, COST_COLOUR = "#222222", "#1f4e9c", "#e3120b"
RAY_START, RAY_LENGTH = 0.18, 0.4  # m from the robot's origin
PALETTE = 64  # colours of a gif
COLUMNS = 4  # of the pictures of paths


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
    if out.suffix.lower() not in FILMS + PICTURES:
        raise UserError(f"--out {out}: its ending must be one of {', '.join(FILMS + PICTURES)}")
    if episodes < 1:
        raise UserError(f"episodes: must be at least 1, got {episodes}")
    if not speed > 0:
        raise UserError(f"speed: must be positive, got {speed}")
    policy = load_policy(folder)
    recording = record(policy, jax.random.key(seed), episodes, deterministic=deterministic)
    title = f"{policy.config.algo} on {policy.config.env}"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() in PICTURES:
        draw_paths(recording, title=title, cost_limit=policy.config.cost_limit).savefig(out)
    else:
        step = recording.drawing.step_seconds
        stride = max(1, round(speed / step / FRAMES_PER_SECOND))
        _write(out, film(recording, title=title, cost_limit=policy.config.cost_limit, every=stride))
    return out


def _write(out: Path, frames: Iterator[UInt8[np.ndarray, "H W 3"]]) -> None:
    """One frame at a time: a film of minutes would not fit in memory."""
    if out.suffix.lower() == ".gif":
        pictures = (Image.fromarray(frame).quantize(PALETTE) for frame in frames)
        first = next(pictures)
        duration = round(1000 / FRAMES_PER_SECOND)  # ms
        first.save(out, save_all=True, append_images=pictures, duration=duration, loop=0)
        return
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError(
            f"--out {out}: mp4 needs the extra `video` (pip install imageio-ffmpeg); gif does not"
        ) from error
    first = next(frames)
    height, width, _ = first.shape
    writer = imageio_ffmpeg.write_frames(str(out), (width, height), fps=FRAMES_PER_SECOND)
    with warnings.catch_warnings():
        # The child is another program at once, and holds none of jax's locks.
        warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
        writer.send(None)  # starts it
    for frame in itertools.chain([first], frames):
        writer.send(frame)
    writer.close()


def film(
    recording: Recording, *, title: str, cost_limit: float, every: int
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Pictures of every nth step of one episode after another."""
    for episode, length in enumerate(recording.length):
        figure = Figure(figsize=(9.0, 6.0), dpi=80, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
        arena = figure.add_subplot(grid[:, 0])
        scene = Scene(arena, recording, episode)
        curves = [
            Curve(
                figure.add_subplot(grid[0, 1]), "return", recording.return_[episode, : length + 1]
            ),
            Curve(
                figure.add_subplot(grid[1, 1]),
                "cost",
                recording.cost[episode, : length + 1],
                limit=cost_limit,
            ),
        ]
        for step in range(0, length + 1, every):
            scene.show(step)
            for curve in curves:
                curve.show(step)
            arena.set_title(
                f"{title}   episode {episode + 1} of {len(recording.length)}   step {step}",
                loc="left",
            )
            canvas.draw()
            yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_paths(recording: Recording, *, title: str, cost_limit: float) -> Figure:
    """One small picture for each episode: the path, red where it cost, and things at the start."""
    number = len(recording.length)
    columns = min(COLUMNS, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows + 0.4), dpi=110, layout="constrained")
    figure.suptitle(f"{title}: {number} episodes, cost limit {cost_limit:g}; red where it costs")
    for episode, length in enumerate(recording.length):
        axes = figure.add_subplot(rows, columns, episode + 1)
        path = recording.poses[ROBOT][episode, : length + 1, 0, :2]
        window = _window(recording.drawing, path)
        _prepare(axes, recording.drawing, window)
        for kind, look in recording.drawing.looks.items():
            places = recording.poses[kind][episode, : length + 1]
            # All goals of the episode, but other things only where they stood at first.
            shown = np.unique(places[:, 0], axis=0) if look.role == "target" else places[0]
            for pose in shown:
                axes.add_patch(_patch(look, pose, _colour(recording.drawing, kind), alpha=0.3))
        costs = np.diff(recording.cost[episode, : length + 1]) > 0
        pieces = np.stack([path[:-1], path[1:]], axis=1)
        colours = np.where(costs[:, None], to_rgba(COST_COLOUR), to_rgba(PATH_COLOUR))
        axes.add_collection(LineCollection(list(pieces), colors=colours, linewidths=1.0))
        axes.plot(*path[0], "o", color=ROBOT_COLOUR, markersize=5)
        cost = recording.cost[episode, length]
        axes.set_title(
            f"return {recording.return_[episode, length]:.1f}   cost {cost:.0f}",
            fontsize="medium",
            color=COST_COLOUR if cost > cost_limit else "black",
        )
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


class Scene:
    """The arena of one episode, of which `show` moves the things that move."""

    def __init__(self, axes: Axes, recording: Recording, episode: int):
        self.axes, self.drawing = axes, recording.drawing
        self.poses = {kind: places[episode] for kind, places in recording.poses.items()}
        self.lidars = recording.lidars[episode]
        length = recording.length[episode]
        robot = self.poses[ROBOT][: length + 1, 0]
        _prepare(axes, self.drawing, _window(self.drawing, robot[:, :2]))
        self.patches: dict[str, list[Patch]] = {}
        for kind, look in self.drawing.looks.items():
            colour = _colour(self.drawing, kind)
            self.patches[kind] = [_patch(look, pose, colour) for pose in self.poses[kind][0]]
            for patch in self.patches[kind]:
                axes.add_patch(patch)
        (self.trail,) = axes.plot([], [], color=PATH_COLOUR, linewidth=0.8, alpha=0.6)
        self.rays = LineCollection([], linewidths=2.5, capstyle="round")
        axes.add_collection(self.rays)
        self.body = Circle((0.0, 0.0), 0.1, color=ROBOT_COLOUR, zorder=3)
        self.arrow = Polygon(np.zeros((4, 2)), color=ROBOT_COLOUR, zorder=3)
        axes.add_patch(self.body)
        axes.add_patch(self.arrow)
        handles = [
            Patch(color=_colour(self.drawing, kind), label=f"{kind} ({look.role})", alpha=0.6)
            for kind, look in self.drawing.looks.items()
            if len(self.poses[kind][0])
        ]
        if handles:
            axes.legend(handles=handles, loc="upper right", fontsize="small", framealpha=0.8)

    def show(self, step: int) -> None:
        """Moves everything to where it is after that many steps."""
        for kind, patches in self.patches.items():
            for patch, pose in zip(patches, self.poses[kind][step], strict=True):
                _move(patch, self.drawing.looks[kind], pose)
        robot = self.poses[ROBOT][step, 0]
        self.body.center = (robot[0], robot[1])
        self.arrow.set_xy(_square(_ahead(robot, 0.1), 0.05))
        past = self.poses[ROBOT][: step + 1, 0]
        self.trail.set_data(past[:, 0], past[:, 1])
        self._show_rays(robot, self.lidars[step])
        if self.drawing.follows:
            half = self.drawing.half_width
            self.axes.set_xlim(robot[0] - half, robot[0] + half)
            self.axes.set_ylim(robot[1] - half, robot[1] + half)

    def _show_rays(self, robot: Float[np.ndarray, " 3"], readings: Float[np.ndarray, "L R"]):
        segments, colours = [], []
        for i, (kind, reading) in enumerate(zip(self.drawing.lidars, readings, strict=True)):
            # Kinds side by side within a sector, not on top of each other.
            aside = (i + 1) / (len(readings) + 1)
            angles = robot[2] + (np.arange(len(reading)) + aside) * 2 * np.pi / len(reading)
            for angle, value in zip(angles, reading, strict=True):
                if value > 0:
                    direction = np.array([np.cos(angle), np.sin(angle)])
                    ends = np.array([RAY_START, RAY_START + RAY_LENGTH * value])
                    segments.append(robot[:2] + ends[:, None] * direction)
                    colours.append(_colour(self.drawing, kind))
        self.rays.set_segments(segments)
        self.rays.set_color(colours)


class Curve:
    """A quantity so far, against steps."""

    def __init__(self, axes: Axes, name: str, values: np.ndarray, *, limit: float | None = None):
        self.axes, self.name, self.values = axes, name, values
        colour = COST_COLOUR if name == "cost" else PATH_COLOUR
        (self.line,) = axes.plot([], [], color=colour)
        axes.set_xlim(0, max(1, len(values) - 1))
        high, low = float(np.max(values)), float(np.min(values))
        if limit is not None and math.isfinite(limit):
            axes.axhline(
                limit, color="black", linestyle="--", linewidth=1, label=f"limit {limit:g}"
            )
            axes.legend(frameon=False, fontsize="small", loc="upper left")
            high = max(high, limit)
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)

    def show(self, step: int) -> None:
        """Draws it up to a step."""
        self.line.set_data(np.arange(step + 1), self.values[: step + 1])
        self.axes.set_title(f"{self.name} {self.values[step]:.1f}", loc="left")


def _prepare(axes: Axes, drawing: Drawing, window: tuple[float, float, float, float]) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(window[0], window[1])
    axes.set_ylim(window[2], window[3])
    for x0, y0, x1, y1 in drawing.walls:
        axes.plot([x0, x1], [y0, y1], color=COLOURS["cost"][0], linewidth=3, alpha=0.6)


def _window(drawing: Drawing, path: Float[np.ndarray, "T 2"]) -> tuple[float, float, float, float]:
    """What is shown: the arena, and more of it where the robot goes there."""
    half = drawing.half_width
    low, high = np.min(path, axis=0) - 0.3, np.max(path, axis=0) + 0.3
    if not drawing.follows:
        low, high = np.minimum(low, -half), np.maximum(high, half)
    side = np.max(high - low) / 2  # a square
    middle = (low + high) / 2
    return (middle[0] - side, middle[0] + side, middle[1] - side, middle[1] + side)


def _colour(drawing: Drawing, kind: str) -> str:
    """Of the role; kinds of the same role have different ones, as far as there are any."""
    role = drawing.looks[kind].role
    same = [other for other, look in drawing.looks.items() if look.role == role]
    return COLOURS[role][min(same.index(kind), len(COLOURS[role]) - 1)]


def _patch(look: Look, pose: Float[np.ndarray, " 3"], colour: str, alpha: float = 0.6) -> Patch:
    if look.shape == "square":
        return Polygon(_square(pose, look.size), color=colour, alpha=alpha)
    hollow = {"fill": False, "linewidth": 2.0} if look.shape == "ring" else {"linewidth": 0.0}
    return Circle((pose[0], pose[1]), look.size, color=colour, alpha=alpha, **hollow)


def _move(patch: Patch, look: Look, pose: Float[np.ndarray, " 3"]) -> None:
    if isinstance(patch, Polygon):
        patch.set_xy(_square(pose, look.size))
    elif isinstance(patch, Circle):
        patch.center = (pose[0], pose[1])


def _ahead(pose: Float[np.ndarray, " 3"], distance: float) -> Float[np.ndarray, " 3"]:
    x, y, angle = pose
    return np.array([x + distance * np.cos(angle), y + distance * np.sin(angle), angle])


def _square(pose: Float[np.ndarray, " 3"], half: float) -> Float[np.ndarray, "4 2"]:
    x, y, angle = pose
    c, s = np.cos(angle), np.sin(angle)
    corners = half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return np.array([x, y]) + corners @ np.array([[c, s], [-s, c]])
