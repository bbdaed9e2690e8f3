"""Pictures that JAX draws: where things are in them, beside the drawing for people."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import smpo_envs
from smpo_envs.adapters import as_value
from smpo_envs.drawing import Drawing, Look
from smpo_envs.from_above import Camera, channels, draw, from_above
from smpo_envs.picture import PIXELS, picture

LOOKS = {
    "hazards": Look("disc", 0.5, "cost"),
    "vases": Look("square", 0.4, "object"),
    "circle": Look("ring", 1.5, "target"),
}
DRAWING = Drawing(LOOKS, lambda state: state, 0, (), 0.02, half_width=2.0, follows=True)
CAMERA = Camera(pixels=8, half_width=2.0)  # pixels of 0.5 m
NOTHING = jnp.zeros((0, 3))
NO_SENSORS = jnp.zeros(0)


def shown(robot, drawing=DRAWING, camera=CAMERA, sensors=NO_SENSORS, **poses):
    everything = dict.fromkeys(drawing.looks, NOTHING) | {
        kind: jnp.asarray([pose]) for kind, pose in poses.items()
    }
    return np.asarray(draw(drawing, camera, {"robot": jnp.asarray([robot]), **everything}, sensors))


def test_what_is_ahead_is_up_and_what_is_left_is_left():
    # A disc 1.25 m ahead is about row 1 (of middles 1.75, 1.25, ... m), between columns 3 and 4.
    ahead = shown([0.0, 0.0, 0.0], hazards=[1.25, 0.0, 0.0])[..., 0]
    np.testing.assert_allclose(ahead[1, 3:5], 1.0)
    assert ahead[4:].sum() == 0 and ahead[:, [0, 1, 6, 7]].sum() == 0
    left = shown([0.0, 0.0, 0.0], hazards=[0.0, 1.25, 0.0])[..., 0]
    np.testing.assert_allclose(left, ahead.T, atol=1e-6)


def test_the_picture_moves_and_turns_with_the_robot():
    place, quarter = [1.0, -3.0], np.pi / 2
    still = shown([0.0, 0.0, 0.0], hazards=[1.25, 0.0, 0.0], vases=[0.0, 1.0, 0.3])
    turned = shown(
        [*place, quarter],
        hazards=[place[0], place[1] + 1.25, 0.0],
        vases=[place[0] - 1.0, place[1], 0.3 + quarter],
    )
    np.testing.assert_allclose(turned, still, atol=1e-5)


def test_a_disc_covers_its_area():
    # π 0.5² m² of pixels of 0.0039 m²; the edges are within a few per cent of a pixel's share.
    fine = Camera(pixels=64, half_width=2.0)
    cover = shown([0.0, 0.0, 0.0], camera=fine, hazards=[0.6, -0.2, 0.0])[..., 0]
    assert cover.sum() * fine.pixel**2 == pytest.approx(np.pi * 0.25, rel=0.01)


def test_sensors_are_bands_in_the_last_channel():
    seen = shown([0.0, 0.0, 0.0], sensors=jnp.array([3.0, -1.0]))
    np.testing.assert_array_equal(seen[:4, :, -1], 3.0)
    np.testing.assert_array_equal(seen[4:, :, -1], -1.0)


def test_walls_have_a_channel():
    drawing = DRAWING._replace(walls=((1.25, -8.0, 1.25, 8.0),))
    assert channels(drawing) == ("hazards", "vases", "circle", "walls")
    wall = shown([0.0, 0.0, 0.0], drawing=drawing)[..., -1]
    np.testing.assert_allclose(wall[1], 1.0, atol=1e-6)  # across, 1.25 m ahead
    np.testing.assert_allclose(np.delete(wall, 1, axis=0), 0.0, atol=1e-6)


@pytest.mark.parametrize("kind", ["hazards", "vases", "circle"])
@pytest.mark.parametrize("heading", [0.4, 2.5])
def test_shows_what_the_picture_for_people_shows(kind, heading):
    """Theirs has y upwards: the world is turned about the robot until that is ahead."""
    rng = np.random.default_rng(int(10 * heading))
    robot = np.array([0.3, -0.8, heading])
    places = np.column_stack([rng.uniform(-1.5, 1.5, (3, 2)), rng.uniform(-3, 3, 3)]) + robot
    turn = np.pi / 2 - heading
    c, s = np.cos(turn), np.sin(turn)
    offset = (places - robot)[:, :2] @ np.array([[c, s], [-s, c]])
    upright = np.column_stack([robot[:2] + offset, places[:, 2] + turn])
    drawing = DRAWING._replace(looks={kind: LOOKS[kind]})
    poses = {"robot": np.array([[*robot[:2], np.pi / 2]]), kind: upright}
    theirs = (picture(drawing, poses) < 255).any(axis=-1)
    camera = Camera(pixels=80, half_width=2.0)
    cover = draw(
        drawing, camera, {"robot": jnp.asarray(robot[None]), kind: jnp.asarray(places)}, NO_SENSORS
    )[..., 0]
    # Of the pixels that are wholly covered, or not at all, theirs has 5 x 5; the robot's are left.
    blocks = theirs.reshape(80, PIXELS // 80, 80, PIXELS // 80).swapaxes(1, 2).reshape(80, 80, -1)
    away = np.hypot(camera.ahead, camera.left) > 0.3
    cover = np.asarray(cover)
    some, all_ = np.any(blocks, axis=-1), np.all(blocks, axis=-1)
    assert some[(cover > 0.9) & away].all()
    assert not all_[(cover < 0.1) & away].any()
    assert not some[(cover == 0) & away].mean() > 0.02  # edges, by half a pixel
    assert (cover > 0.9)[away].sum() > 50


def test_a_task_from_above_keeps_the_contract():
    seen = {"PointGoal1": ("hazards", "vases", "goal"), "PointCircle1": ("circle", "walls")}
    for name, kinds in seen.items():
        drawing = as_value(smpo_envs.make(name)).drawing
        assert drawing is not None and channels(drawing) == (*kinds, "sensors")
    env = from_above(smpo_envs.make("PointCircle1"), Camera(pixels=16))
    assert env.observation_shape == (16, 16, 3) and env.observation_size == 768
    assert "of them above 0" in smpo_envs.check_env(env, steps=50)


def test_a_task_goes_on_as_it_does_otherwise():
    task = smpo_envs.make("PointGoal0")
    env = from_above(task, Camera(pixels=12))
    key, action = jax.random.key(0), jnp.array([0.6, -0.2])
    plain, seen = jax.jit(task.reset)(key), jax.jit(env.reset)(key)
    for _ in range(3):
        plain, seen = jax.jit(task.step)(plain, action), jax.jit(env.step)(seen, action)
    np.testing.assert_allclose(seen.reward, plain.reward, rtol=1e-5)
    bands = seen.obs.reshape(env.observation_shape)[:, 0, -1]
    np.testing.assert_allclose(bands, plain.obs[:12], rtol=1e-4, atol=1e-5)  # 12 sensors, 12 rows


def test_what_cannot_be_seen_is_refused():
    task = as_value(smpo_envs.make("PointGoal0"))
    with pytest.raises(ValueError, match="no drawing, so it cannot be seen from above"):
        from_above(dataclasses.replace(task, drawing=None))
    with pytest.raises(ValueError, match="pixels=0 must be a whole number"):
        from_above(task, Camera(pixels=0))
    with pytest.raises(ValueError, match="half_width=-1 must be a number of metres above 0"):
        from_above(task, Camera(half_width=-1))
