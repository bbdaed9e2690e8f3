"""Films of single episodes: the arena, and return and cost so far beside it."""

import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import shapes
from smpo_jax.experiment.results.episodes import Trajectories
from smpo_jax.experiment.results.scene import Scene

FRAMES_PER_SECOND = 25
PALETTE = 64  # colours of a gif


def frames(
    trajectories: Trajectories, *, title: str, cost_limit: float, every: int
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Pictures of every nth step of one episode after another."""
    for episode, length in enumerate(trajectories.length):
        figure = Figure(figsize=(9.0, 6.0), dpi=80, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
        arena = figure.add_subplot(grid[:, 0])
        above, below = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
        return_, cost = (
            values[episode, : length + 1] for values in (trajectories.return_, trajectories.cost)
        )
        parts = [
            Scene(arena, trajectories, episode),
            TimeSeries(above, "return", return_),
            TimeSeries(below, "cost", cost, limit=cost_limit),
        ]
        for step in range(0, length + 1, every):
            for part in parts:
                part.show(step)
            arena.set_title(
                f"{title}   episode {episode + 1} of {len(trajectories.length)}   step {step}",
                loc="left",
            )
            canvas.draw()
            yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write(out: Path, frames: Iterator[UInt8[np.ndarray, "H W 3"]]) -> None:
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


class TimeSeries:
    """A quantity so far, against steps."""

    def __init__(self, axes: Axes, name: str, values: np.ndarray, *, limit: float | None = None):
        self.axes, self.name, self.values = axes, name, values
        colour = shapes.COST_COLOUR if name == "cost" else shapes.PATH_COLOUR
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
