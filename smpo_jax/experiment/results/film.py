"""Films of single episodes: the arena, and return and cost so far beside it."""

import functools
import itertools
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image, ImageDraw, ImageFont

from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.results import plots, shapes
from smpo_jax.experiment.results.episodes import Trajectories
from smpo_jax.experiment.results.scene import Scene
from smpo_jax.types import PerCost

FRAMES_PER_SECOND = 20
PALETTE = 64  # colours of a gif


class View(Protocol):
    """What is seen of one episode, in axes of its own.

    Attributes:
        moving: what `show` changes.
        handles: of a legend.
    """

    moving: list[Artist]
    handles: list[Line2D]

    def show(self, step: int) -> None:
        """How it is after that many steps."""
        ...


class Episode(NamedTuple):
    """An episode of `T` steps; index 0 of `T + 1` is the start.

    Attributes:
        view: what is seen of it, from axes and a title.
        return_: sum of the rewards so far.
        cost: sum of the costs so far, of each constraint.
        every: steps from one frame to the next.
    """

    view: Callable[[Axes, str], View]
    return_: Float[np.ndarray, " T+1"]
    cost: PerCost  # of Float[np.ndarray, " T+1"]
    every: int


def from_above(trajectories: Trajectories, every: int) -> list[Episode]:
    """Episodes of a task that can be drawn, with a frame of every nth step."""
    return [
        Episode(
            functools.partial(Scene, trajectories, episode),
            trajectories.return_[episode, : length + 1],
            each(operator.itemgetter((episode, slice(length + 1))), trajectories.cost),
            every,
        )
        for episode, length in enumerate(trajectories.length)
    ]


def stride(speed: float, step_seconds: float) -> int:
    """Steps from one frame to the next, for a film so many times as fast as the world."""
    return max(1, round(speed / step_seconds / FRAMES_PER_SECOND))


def frames(
    episodes: Iterable[Episode], *, title: str, cost_limit: PerCost
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Pictures of one episode after another."""
    for number, episode in enumerate(episodes, start=1):
        figure = Figure(figsize=(9.0, 6.0), dpi=80, layout="constrained")
        costs = constraints.zipped(constraints.named("cost", cost_limit), episode.cost, cost_limit)
        heights = [4, *(4 for _ in costs), 3]
        grid = figure.add_gridspec(len(heights), 2, width_ratios=(2, 1), height_ratios=heights)
        scene = episode.view(figure.add_subplot(grid[:, 0]), f"{title}   episode {number}")
        parts = [
            scene,
            TimeSeries(figure.add_subplot(grid[0, 1]), "return", episode.return_),
            *(
                TimeSeries(figure.add_subplot(grid[row, 1]), name, cost, limit=limit)
                for row, (name, cost, limit) in enumerate(costs, start=1)
            ),
        ]
        below = figure.add_subplot(grid[-1, 1])
        below.set_axis_off()
        below.legend(
            handles=scene.handles, loc="center left", frameon=False, fontsize="small", borderpad=0.0
        )
        for part in parts:
            part.show(0)
        backdrop = Backdrop(figure, [artist for part in parts for artist in part.moving])
        for step in range(0, len(episode.return_), episode.every):
            for part in parts:
                part.show(step)
            yield backdrop.picture()


class Backdrop:
    """A figure that is laid out and painted once, without what moves; `picture` adds that."""

    def __init__(self, figure: Figure, moving: Iterable[Artist]):
        in_turn = sorted(moving, key=lambda artist: artist.get_zorder())
        for artist in in_turn:
            artist.set_animated(True)  # left out by `draw`
        self.moving = [artist for artist in in_turn if not isinstance(artist, Text)]
        self.canvas = FigureCanvasAgg(figure)
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(figure.bbox)
        self.writings = [Writing(a, figure) for a in in_turn if isinstance(a, Text)]

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The figure with what moves where it is now."""
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            artist.draw(self.canvas.get_renderer())
        # In less than half the time of a slice and a copy of it.
        image = Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")
        draw = ImageDraw.Draw(image)
        for writing in self.writings:
            writing.draw(draw)
        return np.asarray(image)


class Writing:
    """One line of a figure that has been laid out; Pillow writes it in a tenth of the time."""

    def __init__(self, text: Text, figure: Figure):
        assert text.get_verticalalignment() == "baseline"
        self.text = text
        x, y = text.get_transform().transform(text.get_position())
        self.place = (x, figure.bbox.height - y)
        self.anchor = {"left": "ls", "center": "ms", "right": "rs"}[text.get_horizontalalignment()]
        self.colour = to_hex(text.get_color())
        path = findfont(text.get_fontproperties())
        self.font = ImageFont.truetype(path, float(text.get_fontsize()) * figure.dpi / 72)

    def draw(self, image: ImageDraw.ImageDraw) -> None:
        """Writes what the text is now."""
        image.text(
            self.place, self.text.get_text(), fill=self.colour, font=self.font, anchor=self.anchor
        )


def write(out: Path, frames: Iterator[UInt8[np.ndarray, "H W 3"]]) -> None:
    """One frame at a time: a film of minutes would not fit in memory."""
    if out.suffix.lower() == ".gif":
        # One palette for all, of a beginning in which everything has begun to move: nothing
        # flickers, and to find a palette takes longer than to draw a frame.
        beginning = list(itertools.islice(frames, FRAMES_PER_SECOND))
        both = Image.fromarray(np.concatenate([beginning[0], beginning[-1]]))
        # This keeps white white, and the rounds of k-means the colours of the legend.
        palette = both.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
        pictures = (
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in itertools.chain(beginning, frames)
        )
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
    """A quantity so far, against steps.

    Attributes:
        moving: what `show` changes.
    """

    def __init__(self, axes: Axes, name: str, values: np.ndarray, *, limit: float | None = None):
        self.values = values
        colour = shapes.PATH_COLOUR if name == "return" else shapes.COST_COLOUR
        (self.line,) = axes.plot([], [], color=colour)
        axes.set_title(name.replace("/", " "), loc="left")
        self.now = axes.set_title("", loc="right")  # apart: the less text moves, the sooner drawn
        self.moving: list[Artist] = [self.line, self.now]
        axes.set_xlim(0, max(1, len(values) - 1))
        high, low = float(np.max(values)), float(np.min(values))
        if limit is not None and math.isfinite(limit):
            plots.mark_limit(axes, limit)
            high = max(high, limit)
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)

    def show(self, step: int) -> None:
        """Draws it up to a step."""
        self.line.set_data(np.arange(step + 1), self.values[: step + 1])
        self.now.set_text(f"{self.values[step]:.1f}")
