"""The arena of one episode, which can be shown step by step."""

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon

from smpo_envs.drawing import ROBOT, ROBOT_COLOUR, ROBOT_RADIUS, ahead, colour_of, square
from smpo_jax.experiment.results import shapes
from smpo_jax.experiment.results.episodes import Trajectories

RAY_START, RAY_LENGTH = 0.18, 0.4  # m from the robot's origin


class Scene:
    """The arena of one episode, of which `show` moves the things that move.

    Attributes:
        handles: of a legend.
        moving: what `show` changes.
    """

    def __init__(self, trajectories: Trajectories, episode: int, axes: Axes, title: str):
        self.axes, self.drawing = axes, trajectories.drawing
        length = trajectories.length[episode]
        self.poses = {
            kind: places[episode, : length + 1] for kind, places in trajectories.poses.items()
        }
        self.lidars = trajectories.lidars[episode]
        robot = self.poses[ROBOT][:, 0]
        shapes.prepare(axes, self.drawing, shapes.view(self.drawing, robot[:, :2]))
        self.patches: dict[str, list[Patch]] = {}
        for kind, look in self.drawing.looks.items():
            colour = colour_of(self.drawing, kind)
            self.patches[kind] = [shapes.patch(look, pose, colour) for pose in self.poses[kind][0]]
            for patch in self.patches[kind]:
                axes.add_patch(patch)
        (self.trail,) = axes.plot([], [], color=shapes.PATH_COLOUR, linewidth=0.8, alpha=0.6)
        self.rays = LineCollection([], linewidths=2.5, capstyle="round")
        axes.add_collection(self.rays)
        colours = to_rgba_array([colour_of(self.drawing, kind) for kind in self.drawing.lidars])
        self.ray_colours = np.repeat(colours, self.lidars.shape[-1], axis=0)
        self.body = Circle((0.0, 0.0), ROBOT_RADIUS, color=ROBOT_COLOUR, zorder=3)
        self.arrow = Polygon(np.zeros((4, 2)), color=ROBOT_COLOUR, zorder=3)
        axes.add_patch(self.body)
        axes.add_patch(self.arrow)
        axes.set_title(title, loc="left")
        self.clock = axes.set_title("", loc="right")
        self.handles = [
            *shapes.handles(self.drawing, self.poses),
            Line2D([], [], color=shapes.PATH_COLOUR, linewidth=0.8, label="its path"),
        ]
        if self.lidars.size:
            ray = Line2D([], [], color="grey", linewidth=2.5, solid_capstyle="round")
            ray.set_label("lidar, longer is nearer")
            self.handles.append(ray)
        self.moving = self._moving()

    def show(self, step: int) -> None:
        """Moves everything to where it is after that many steps."""
        self.clock.set_text(f"step {step}")
        for kind, patches in self.patches.items():
            for patch, pose in zip(patches, self.poses[kind][step], strict=True):
                shapes.move(patch, self.drawing.looks[kind], pose)
        robot = self.poses[ROBOT][step, 0]
        self.body.center = (robot[0], robot[1])
        self.arrow.set_xy(square(ahead(robot, ROBOT_RADIUS), 0.05))
        past = self.poses[ROBOT][: step + 1, 0]
        self.trail.set_data(past[:, 0], past[:, 1])
        self._show_rays(robot, self.lidars[step])
        if self.drawing.follows:
            half = self.drawing.half_width
            self.axes.set_xlim(robot[0] - half, robot[0] + half)
            self.axes.set_ylim(robot[1] - half, robot[1] + half)

    def _moving(self) -> list[Artist]:
        if self.drawing.follows:
            return [self.axes]  # and all that is in them
        things = [
            patch
            for kind, patches in self.patches.items()
            for patch, path in zip(patches, np.moveaxis(self.poses[kind], 1, 0), strict=True)
            if np.any(path != path[0])
        ]
        return [*things, self.trail, self.rays, self.body, self.arrow, self.clock]

    def _show_rays(self, robot: Float[np.ndarray, " 3"], readings: Float[np.ndarray, "L R"]):
        kinds, sectors = readings.shape
        # Kinds side by side within a sector, not on top of each other.
        aside = np.arange(1, kinds + 1)[:, None] / (kinds + 1)
        angles = robot[2] + (np.arange(sectors) + aside) * 2 * np.pi / sectors
        seen = readings > 0
        direction = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[seen]
        ends = RAY_START + RAY_LENGTH * readings[seen][:, None] * np.array([0.0, 1.0])
        self.rays.set_segments([*(robot[:2] + ends[:, :, None] * direction[:, None])])
        self.rays.set_color([*self.ray_colours[seen.ravel()]])
