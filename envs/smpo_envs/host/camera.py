"""Pictures of environments outside JAX, as their packages show them. No screen, and no jax."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

PIXELS = 480  # height and width
FRAMES_PER_SECOND = 30  # of an environment that does not say
# The first of these that a model has: of the whole arena, or beside the robot.
CAMERAS = ("fixedfar", "track")
Picture = UInt8[np.ndarray, "H W 3"]


def camera(env: Any) -> Callable[[], Picture]:
    """What takes a picture of an environment whenever it is called.

    A world of MuJoCo is drawn by MuJoCo's own renderer: those of Gymnasium 0.29 crash with today's
    MuJoCo. All else draws itself, for which it has to be made with `render_mode="rgb_array"`.

    The function raises a ValueError where there is nothing to draw with.
    """
    renderer: Any = None
    shown: Any = None

    def of_mujoco(model: Any, data: Any) -> Picture:
        nonlocal renderer, shown
        mujoco: Any = importlib.import_module("mujoco")
        if shown is not model:  # navigation has a new world in every episode
            if renderer is not None:
                renderer.close()
            model.vis.global_.offwidth = model.vis.global_.offheight = PIXELS
            renderer, shown = mujoco.Renderer(model, PIXELS, PIXELS), model
        options = mujoco.MjvOption()
        options.geomgroup[:] = 1  # hazards and goals are in groups that are hidden by default
        names = [model.camera(i).name for i in range(model.ncam)]
        wanted = [name for name in CAMERAS if name in names]
        renderer.update_scene(data, camera=wanted[0] if wanted else -1, scene_option=options)
        return renderer.render()

    def take() -> Picture:
        world = _world(env)
        try:
            if hasattr(world, "model"):
                return of_mujoco(world.model, world.data)
            picture = env.render()
        except Exception as error:  # of whatever draws, each with errors of its own
            raise ValueError(f"it cannot be drawn here: {type(error).__name__}: {error}") from error
        if picture is None:
            raise ValueError("it cannot be drawn: it has no render_mode rgb_array")
        return np.asarray(picture, np.uint8)

    return take


def step_seconds(env: Any) -> float:
    """What a step takes in the world of an environment, s, as far as it tells."""
    world = _world(env)
    if hasattr(world, "sim_conf"):
        return float(world.sim_conf.frameskip_binom_n * world.model.opt.timestep)
    if hasattr(world, "dt"):
        return float(world.dt)
    return 1 / (env.metadata.get("render_fps") or FRAMES_PER_SECOND)


def _world(env: Any) -> Any:
    """The navigation task, or the environment without its wrappers."""
    return getattr(env.unwrapped, "task", None) or env.unwrapped
