"""Records which contacts MuJoCo finds between two bodies: tests/data/contacts.npz.

    pip install mujoco==2.3.3 "numpy<1.24"
    python tests/helpers/record_contacts.py tests/data/contacts.npz

Of each kind of pair, bodies beside each other as the tasks have them: turned at random, tilted a
little, from far apart to deep inside each other, or one below the other.
"""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

mujoco: Any = importlib.import_module("mujoco")  # it has no types

NUMBER = 100
WHEEL = 'type="cylinder" size="0.05 0.025"'
CUBE = 'type="box" size="0.1 0.1 0.1"'
ARROW = 'type="box" size="0.05 0.05 0.05"'
BODY = 'type="box" size="0.1 0.1 0.05"'
BUMPER = 'type="box" size="0.1 0.01 0.05"'
STANDING, HOVERING = 0.1, 0.1995  # heights of vases and of gremlins, m
# First and second body; how far apart; heights; how much the first is tilted, rad.
KINDS = {
    "wheel_vase": (WHEEL, CUBE, (0.11, 0.22), (0.05, STANDING), 0.01),
    "wheel_gremlin": (WHEEL, CUBE, (0.11, 0.2), (0.05, HOVERING), 0.01),
    "arrow_vase": (ARROW, CUBE, (0.15, 0.21), (0.1, STANDING), 0.0),
    "arrow_gremlin": (ARROW, CUBE, (0.15, 0.21), (0.1, HOVERING), 0.0),
    "body_vase": (BODY, CUBE, (0.2, 0.28), (0.1, STANDING), 0.02),
    "body_gremlin": (BODY, CUBE, (0.2, 0.28), (0.1, HOVERING), 0.02),
    "bumper_vase": (BUMPER, CUBE, (0.11, 0.2), (0.1, STANDING), 0.02),
    "arrow_under_gremlin": (ARROW, CUBE, (0.0, 0.15), (0.1, HOVERING), 0.0),
    "body_under_gremlin": (BODY, CUBE, (0.0, 0.2), (0.1, HOVERING), 0.02),
}
Place = tuple[np.ndarray, np.ndarray]  # position and rotation matrix


def turned(axis: np.ndarray, angle: float) -> np.ndarray:
    """A rotation matrix."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def places(kind: str, rng: np.random.Generator) -> Iterator[tuple[Place, Place]]:
    """Where the two bodies are."""
    first, _, reach, heights, tilt = KINDS[kind]
    axle = turned(np.array([0.0, 1.0, 0.0]), np.pi / 2) if first == WHEEL else np.eye(3)

    def rotation(tilt: float) -> np.ndarray:
        upright = turned(np.array([0.0, 0.0, 1.0]), rng.uniform(0, 2 * np.pi))
        return upright @ turned(rng.normal(size=3), tilt * rng.normal())

    for _ in range(NUMBER):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(*reach)
        second = [far * np.cos(angle), far * np.sin(angle), heights[1] + 0.002 * rng.normal()]
        yield (
            (np.array([0.0, 0.0, heights[0]]), rotation(tilt) @ axle),
            (np.array(second), rotation(0.02)),
        )


def recorded(kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Positions, rotations, and contacts: distance, normal, point; NaN where there is none."""
    first, second, *_ = KINDS[kind]
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><body mocap="true"><geom {first}/></body>'
        f"<body><freejoint/><geom {second}/></body></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    position, rotation, contacts = [], [], np.full((NUMBER, 8, 7), np.nan)
    for row, ((at, turn), (beside, other)) in enumerate(places(kind, rng)):
        quaternions = np.zeros((2, 4))
        for quaternion, matrix in zip(quaternions, (turn, other), strict=True):
            mujoco.mju_mat2Quat(quaternion, matrix.reshape(-1))
        data.mocap_pos[0], data.mocap_quat[0] = at, quaternions[0]
        data.qpos[:3], data.qpos[3:] = beside, quaternions[1]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        position.append(data.geom_xpos.copy())
        rotation.append(data.geom_xmat.reshape(2, 3, 3).copy())
        for i, contact in enumerate(data.contact[: data.ncon]):
            contacts[row, i] = [contact.dist, *contact.frame[:3], *contact.pos]
    return {"position": np.array(position), "rotation": np.array(rotation), "contacts": contacts}


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{kind}_{name}": x for kind in KINDS for name, x in recorded(kind, rng).items()
    }
    np.savez_compressed(sys.argv[1], **arrays)
