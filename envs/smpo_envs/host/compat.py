"""Imports PyPI's safety-gymnasium 1.0.0 beside today's Python, MuJoCo and NumPy.

The release of 2023 pins MuJoCo 2.3.3 and does not import on Python >= 3.11. Nothing on disk is
edited: what stops it is mended in memory, and only while or where it matters.

| what breaks | since | mended by |
| --- | --- | --- |
| array defaults of dataclass fields | Python 3.11 | `_array_defaults`, during the import |
| gymnasium-robotics pins MuJoCo < 3 | MuJoCo 3 | `_multi_agent_stand_in`, during the import |
| `model.jnt(array([k]))` | NumPy 2.4 | `_accept_one_element_arrays`, in its module |
| `float(array([x]))` | NumPy 2.4 | `_accept_one_element_arrays`, in its module |
| `np.array([...], copy=False)` | NumPy 2 | `single`, which hands `step` arrays |
| `<option collision="predefined">` | MuJoCo 3 | `_mend_the_swimmer`, in its class |

All navigation tasks of the five robots run, and the velocity tasks of the six. It stays with
gymnasium 0.29: 1.x moved a dozen modules that the package imports. Nothing here imports jax,
so that the worker processes stay light.
"""

import dataclasses
import functools
import importlib
import inspect
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from typing import Any

import numpy as np

REQUIREMENTS = (
    "gymnasium>=0.29.1,<1.0",
    "mujoco>=3.2,<5",
    "xmltodict>=0.13,<2",
    "imageio>=2.34,<3",
)
INSTALL = (
    "pip install " + " ".join(f'"{requirement}"' for requirement in REQUIREMENTS),
    "pip install --no-deps safety-gymnasium==1.0.0",
)


@functools.cache
def import_safety_gymnasium() -> types.ModuleType:
    """The package `safety_gymnasium`, ready to `make` its tasks.

    Raises:
        ImportError: it, or something it needs, is not installed; says what to run.
    """
    check_installed()
    with ExitStack() as during_import:
        during_import.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # deprecations of 2023's code are not the user's concern
        during_import.enter_context(_array_defaults())
        during_import.enter_context(_multi_agent_stand_in())
        try:
            package = importlib.import_module("safety_gymnasium")
            # `make` would import this one later, without the patches.
            importlib.import_module("safety_gymnasium.builder")
        except ModuleNotFoundError as error:
            raise _unavailable(f"it needs the module {error.name!r}, which is missing") from error
    _accept_one_element_arrays(importlib.import_module("safety_gymnasium.bases.base_agent"))
    _mend_the_swimmer()
    return package


def check_installed() -> None:
    """Raises the ImportError of `import_safety_gymnasium`, without importing anything."""
    try:
        version = metadata.version("safety-gymnasium")
        gymnasium = metadata.version("gymnasium")
    except metadata.PackageNotFoundError as error:
        raise _unavailable(f"the package {error.name!r} is not installed") from None
    if version != "1.0.0":
        raise _unavailable(f"version {version} is installed, only 1.0.0 is known to work")
    if not gymnasium.startswith("0."):
        raise _unavailable(f"it needs gymnasium 0.29, and {gymnasium} is installed")


def _unavailable(reason: str) -> ImportError:
    return ImportError(
        f"cannot use safety-gymnasium: {reason}. Install it with\n  " + "\n  ".join(INSTALL)
    )


@contextmanager
def _array_defaults() -> Iterator[None]:
    """Lets `dataclasses.dataclass` take arrays as defaults: each instance gets a copy."""
    original = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        if cls is None:
            return functools.partial(dataclass, **options)
        for name in inspect.get_annotations(cls):
            default = cls.__dict__.get(name)
            if isinstance(default, np.ndarray):
                setattr(cls, name, dataclasses.field(default_factory=default.copy))
        return original(cls, **options)

    # An attribute of a module set on purpose; the checker sees only the overloads of the original.
    dataclasses.dataclass = dataclass  # type: ignore[assignment]
    try:
        yield
    finally:
        dataclasses.dataclass = original


@contextmanager
def _multi_agent_stand_in() -> Iterator[None]:
    """Stands in for gymnasium-robotics, imported for one base class of the multi-agent tasks."""

    class MultiAgentMujocoEnv:
        def __init__(self, *args: object, **kwargs: object) -> None:
            raise ImportError("the multi-agent tasks of safety-gymnasium are not supported here")

    leaf = "gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi"
    parts = leaf.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    if names[0] in sys.modules:  # the real one is in use
        yield
        return
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[leaf])["MultiAgentMujocoEnv"] = MultiAgentMujocoEnv
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _Model:
    """A MuJoCo model whose `jnt` also takes a joint's index as a one-element array."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def jnt(self, index: Any) -> Any:
        return self._model.jnt(_item(index))


def _item(value: Any) -> Any:
    return np.asarray(value).item()


def _accept_one_element_arrays(base_agent: Any) -> None:
    """Lets the agents with joint sensors (all but the Point) use one-element arrays as numbers."""
    original = base_agent.BaseAgent._init_jnt_sensors

    @functools.wraps(original)
    def init_joint_sensors(agent: Any) -> None:
        engine = agent.engine
        agent.engine = base_agent.Engine(_Model(engine.model), engine.data)
        try:
            original(agent)
        finally:
            agent.engine = engine

    base_agent.BaseAgent._init_jnt_sensors = init_joint_sensors
    # Shadows the builtin inside that one module, which calls it on the reading of a hinge.
    base_agent.float = lambda value: float(_item(value))


def _mend_the_swimmer() -> None:
    """Reads the Swimmer's model without an option that MuJoCo 3 has dropped.

    It left collisions to a list of pairs, which is empty: nothing collides. That is said of each
    body now.
    """
    swimmer: Any = importlib.import_module("gymnasium.envs.mujoco.swimmer_v4")
    mujoco: Any = importlib.import_module("mujoco")

    def initialize_simulation(env: Any) -> tuple[Any, Any]:
        with open(env.fullpath) as file:
            text = file.read()
        model = mujoco.MjModel.from_xml_string(text.replace('collision="predefined"', ""))
        if 'collision="predefined"' in text:
            model.geom_contype[:] = model.geom_conaffinity[:] = 0
        model.vis.global_.offwidth, model.vis.global_.offheight = env.width, env.height
        return model, mujoco.MjData(model)

    swimmer.SwimmerEnv._initialize_simulation = initialize_simulation


def log_to_stderr() -> None:
    """Lets MuJoCo write its warnings there, not to a file in the folder where the user stands."""
    mujoco: Any = importlib.import_module("mujoco")
    mujoco.set_mju_user_warning(lambda text: print(f"MuJoCo: {text}", file=sys.stderr))


def leave_out_the_sky() -> None:
    """Builds worlds without their sky, which is only seen in pictures, from now on.

    Its texture is 180 MB per environment, decoded and copied at every reset: most of a reset's time
    and nearly all of an environment's memory. No number of the simulation changes.
    """
    world: Any = importlib.import_module("safety_gymnasium.world")
    original = world.xmltodict
    if not isinstance(original, types.ModuleType):
        return  # it is left out already

    def unparse(model: Any) -> str:
        assets = model["mujoco"]["asset"]
        assets["texture"] = [t for t in assets["texture"] if t.get("@type") != "skybox"]
        return original.unparse(model)

    world.xmltodict = types.SimpleNamespace(parse=original.parse, unparse=unparse)
