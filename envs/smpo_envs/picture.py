"""A state of a task from above, as pixels: a few milliseconds, for other libraries' `render`."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from smpo_envs.drawing import (
    COLOURS,
    ROBOT,
    ROBOT_COLOUR,
    ROBOT_RADIUS,
    Drawing,
    ahead,
    colour_of,
    square,
)

PIXELS = 400  # on each side
SMOOTHING = 2  # pixels drawn for one that is shown, on each side
SEE_THROUGH = "99"  # 60 % of the colour


def picture(
    drawing: Drawing, poses: Mapping[str, Float[np.ndarray, "K 3"]]
) -> UInt8[np.ndarray, "H W 3"]:
    """The task where its things are.

    Args:
        drawing: how it looks.
        poses: what `drawing.poses` gives: x, y and heading (m, rad) of each kind and the robot.
    """
    robot = np.asarray(poses[ROBOT], float)[0]
    centre = robot[:2] if drawing.follows else np.zeros(2)
    side = PIXELS * SMOOTHING
    per_metre = side / (2 * drawing.half_width)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image, "RGBA")

    def pixels(xy: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        return side / 2 + (xy - centre) * [per_metre, -per_metre]  # rows run downwards

    def box(xy: Float[np.ndarray, " 2"], radius: float) -> list[float]:
        corners = pixels(np.asarray(xy) + radius * np.array([[-1.0, 1.0], [1.0, -1.0]]))
        return corners.ravel().tolist()

    def polygon(corners: Float[np.ndarray, "n 2"], colour: str) -> None:
        draw.polygon(pixels(corners).ravel().tolist(), fill=colour)

    for x0, y0, x1, y1 in drawing.walls:
        ends = pixels(np.array([[x0, y0], [x1, y1]])).ravel().tolist()
        draw.line(ends, fill=COLOURS["cost"][0], width=3 * SMOOTHING)
    for kind, look in drawing.looks.items():
        colour = colour_of(drawing, kind) + SEE_THROUGH
        for pose in np.asarray(poses[kind], float):
            if look.shape == "square":
                polygon(square(pose, look.size), colour)
            elif look.shape == "ring":
                draw.ellipse(box(pose[:2], look.size), outline=colour, width=2 * SMOOTHING)
            else:
                draw.ellipse(box(pose[:2], look.size), fill=colour)
    draw.ellipse(box(robot[:2], ROBOT_RADIUS), fill=ROBOT_COLOUR)
    polygon(square(ahead(robot, ROBOT_RADIUS), ROBOT_RADIUS / 2), ROBOT_COLOUR)
    return np.array(image.reduce(SMOOTHING))
