"""Vases as they are drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from smpo_envs.safety_gym import boxes


@pytest.mark.parametrize("face", [(0, 0), (90, 0), (180, 0), (0, 90), (0, -90)])
def test_pose_is_that_of_the_square_seen_from_above_whichever_face_is_up(face):
    # Tipped onto a face, then turned by 30 degrees: a square looks the same every 90 degrees.
    turned = Rotation.from_euler("z", 30, degrees=True) * Rotation.from_euler(
        "xy", face, degrees=True
    )
    at_rest = boxes.at_rest(boxes.VASE, jnp.array([[1.0, -2.0]]), jnp.zeros(1))
    box = at_rest._replace(quaternion=jnp.asarray(turned.as_quat(scalar_first=True))[None])
    x, y, heading = np.asarray(boxes.poses(box))[0]
    assert (x, y) == (1.0, -2.0)
    np.testing.assert_allclose(np.degrees(heading) % 90, 30, atol=1e-3)
