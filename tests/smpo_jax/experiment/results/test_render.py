import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, Polygon
from PIL import Image

import smpo_envs
from smpo_envs.drawing import ROBOT, Drawing, Look
from smpo_jax.experiment.results import film, paths, scene, shapes
from smpo_jax.experiment.results.episodes import Trajectories, play
from smpo_jax.experiment.results.policy import load_policy

TRAIN = "train --algo toy --num-envs 4 --rollout-length 5 --steps 20 --out run"


def trajectories(steps=4, length=None):
    """A robot that goes right by 0.1 a step, earns 1 and pays 1 at every second step."""
    looks = {"hazards": Look("disc", 0.2, "cost"), "goal": Look("square", 0.3, "target")}
    drawing = Drawing(
        looks, poses=dict, sensors=0, lidars=("goal",), step_seconds=0.02, half_width=1.0
    )
    t = np.arange(steps + 1.0)
    still = np.zeros((1, steps + 1, 1, 3))
    robot = still.copy()
    robot[0, :, 0, 0] = 0.1 * t
    goal = still.copy()
    goal[0, steps // 2 :, 0, 1] = 0.5  # it is met, and moves
    return Trajectories(
        drawing=drawing,
        poses={ROBOT: robot, "hazards": still, "goal": goal},
        lidars=np.full((1, steps + 1, 1, 16), 0.5),
        return_=t[None],
        cost=np.floor(t / 2)[None],
        length=np.array([steps if length is None else length]),
    )


def test_paths_are_red_exactly_where_they_cost():
    (axes,) = paths.draw(trajectories(), title="x", cost_limit=1.0).axes
    (path,) = (c for c in axes.collections if isinstance(c, LineCollection))
    assert [len(s) for s in path.get_segments()] == [2] * 4
    # The cost rises with the second and the fourth step.
    red, blue = to_rgba(shapes.COST_COLOUR), to_rgba(shapes.PATH_COLOUR)
    np.testing.assert_allclose(np.asarray(path.get_colors()), [blue, red, blue, red])
    assert axes.get_title() == "return 4.0   cost 2"
    assert axes.title.get_color() == shapes.COST_COLOUR  # 2 > 1


def two_costs():
    """The same robot, whose second cost is never anything."""
    one = trajectories()
    return one._replace(cost={"red": one.cost, "none": 0.0 * one.cost})


def test_pictures_and_films_show_each_of_two_costs():
    limits = {"red": 9.0, "none": 9.0}
    (axes,) = paths.draw(two_costs(), title="x", cost_limit=limits).axes
    assert axes.get_title() == "return 4.0   cost red 2   cost none 0"
    assert axes.title.get_color() == "black"
    (axes,) = paths.draw(two_costs(), title="x", cost_limit={"red": 1.0, "none": 9.0}).axes
    assert axes.title.get_color() == shapes.COST_COLOUR
    frames = list(film.frames(film.from_above(two_costs(), 2), title="x", cost_limit=limits))
    assert len(frames) == 3 and np.any(frames[0] != frames[-1])


def test_paths_show_every_goal_and_other_things_once():
    (axes,) = paths.draw(trajectories(), title="x", cost_limit=9.0).axes
    goals = [patch for patch in axes.patches if isinstance(patch, Polygon)]
    middles = sorted(np.mean(patch.get_xy()[:4], axis=0)[1] for patch in goals)
    np.testing.assert_allclose(middles, [0.0, 0.5], atol=1e-12)
    assert sum(isinstance(patch, Circle) for patch in axes.patches) == 1
    assert axes.title.get_color() == "black"


def test_a_film_has_every_nth_step_and_ends_with_the_episode():
    frames = list(
        film.frames(film.from_above(trajectories(steps=8, length=6), 2), title="x", cost_limit=1.0)
    )
    assert len(frames) == 4  # 0, 2, 4, 6
    assert {frame.shape for frame in frames} == {(480, 720, 3)}
    assert all(np.any(a != b) for a, b in zip(frames[1:], frames, strict=False))


def test_a_film_lays_a_figure_out_once(monkeypatch):
    """Laying out takes about as long as a second of film: it was done for each frame."""
    layouts = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine,
        "execute",
        lambda self, figure: (layouts.append(figure), execute(self, figure))[1],
    )
    frames = film.frames(film.from_above(trajectories(steps=40), 1), title="x", cost_limit=1.0)
    assert len(list(frames)) == 41
    assert len(layouts) == 1


@pytest.mark.parametrize("follows", [False, True])
def test_a_frame_of_a_film_is_what_the_whole_figure_shows(follows):
    """Painted over what stands still, or drawn anew as a whole: the same picture.

    Pillow puts letters up to three pixels further left than Matplotlib.
    """
    seen = trajectories(steps=8)
    seen = seen._replace(drawing=seen.drawing._replace(follows=follows))
    drawn = Figure(figsize=(4.0, 4.0), dpi=80)
    arena = scene.Scene(seen, 0, drawn.add_subplot(), "x")
    backdrop = film.Backdrop(drawn, arena.moving)
    arena.show(6)
    frame = backdrop.picture()
    for artist in arena.moving:
        artist.set_animated(False)
    backdrop.canvas.draw()
    whole = np.asarray(backdrop.canvas.buffer_rgba())[..., :3]
    left, low, right, high = arena.clock.get_window_extent().extents
    text = np.s_[round(320 - high) - 1 : round(320 - low) + 2, round(left) - 4 : round(right) + 5]
    ink, expected = (255.0 - picture[text].mean(axis=-1) for picture in (frame, whole))
    assert ink.sum() == pytest.approx(expected.sum(), rel=0.1)
    assert np.corrcoef(ink.sum(axis=1), expected.sum(axis=1))[0, 1] > 0.95
    ends, expected_ends = (np.flatnonzero(x.sum(axis=0))[[0, -1]] for x in (ink, expected))
    np.testing.assert_allclose(ends, expected_ends, atol=3)
    without = [picture.copy() for picture in (frame, whole)]
    for picture in without:
        picture[text] = 255
    # Apart from where what moves is now above what stands, it is the same to the byte.
    assert np.mean(np.any(without[0] != without[1], axis=-1)) < 0.002


def test_legend_names_each_kind_that_is_there_in_its_shape_and_the_robot():
    seen = trajectories()
    looks = {**seen.drawing.looks, "buttons": Look("ring", 0.1, "object")}
    handles = shapes.handles(
        seen.drawing._replace(looks=looks),
        {kind: places[0] for kind, places in seen.poses.items()} | {"buttons": np.zeros((5, 0, 3))},
    )
    found = {handle.get_label(): handle.get_marker() for handle in handles}
    assert found == {"hazards (cost)": "o", "goal (target)": "s", "robot": "o"}
    walled = seen.drawing._replace(looks={}, walls=((0.0, 0.0, 1.0, 1.0),))
    assert [each.get_label() for each in shapes.handles(walled, {})] == ["walls (cost)", "robot"]


@pytest.mark.parametrize("costs", [[0.0, 30.0], [24.0, 26.0], [0.0, 500.0]])
def test_nothing_crosses_the_label_of_the_limit(costs):
    figure = Figure(figsize=(3, 3), layout="constrained")
    series = film.TimeSeries(figure.add_subplot(), "cost", np.array(costs), limit=25.0)
    series.show(1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    (label,) = axes.texts
    box = label.get_window_extent()
    assert label.get_text() == "limit\n25"
    assert box.x0 > axes.bbox.x1 and box.x1 <= figure.bbox.x1


def test_a_gif_keeps_its_background_white_and_the_colours_of_things(tmp_path):
    film.write(
        tmp_path / "x.gif",
        film.frames(film.from_above(trajectories(), 1), title="x", cost_limit=1.0),
    )
    with Image.open(tmp_path / "x.gif") as picture:
        for number in range(getattr(picture, "n_frames", 0)):
            picture.seek(number)
            assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        seen = np.asarray(picture.convert("RGB"), float).reshape(-1, 3)
    for colour in (shapes.COLOURS["cost"][0], shapes.COLOURS["target"][0]):
        painted = 255 * (0.6 * np.array(to_rgba(colour)[:3]) + 0.4)  # on white
        near = np.abs(seen - painted).max(axis=1) <= 3
        assert near.sum() > 500, colour


def test_the_scene_shows_where_things_are():
    figure_of = Figure()
    arena = scene.Scene(trajectories(), 0, figure_of.add_subplot(), "x")
    arena.show(4)
    np.testing.assert_allclose(arena.body.center, [0.4, 0.0])
    np.testing.assert_allclose(np.mean(arena.arrow.get_xy()[:4], axis=0), [0.5, 0.0], atol=1e-12)
    (goal,) = arena.patches["goal"]
    assert isinstance(goal, Polygon)
    np.testing.assert_allclose(np.mean(goal.get_xy()[:4], axis=0), [0.0, 0.5], atol=1e-12)
    # A ray of half its length for each of the 16 sectors.
    rays = arena.rays.get_segments()
    lengths = [np.linalg.norm(ray[1] - ray[0]) for ray in rays]
    np.testing.assert_allclose(lengths, [0.5 * scene.RAY_LENGTH] * 16)


DRAWN = [name for name, task in smpo_envs.TASKS.items() if task.task_id]


@pytest.mark.parametrize("name", DRAWN)
def test_every_task_of_the_original_can_be_drawn(name):
    env = smpo_envs.make(name)
    assert isinstance(env, smpo_envs.Environment)
    drawing = env.drawing
    assert drawing is not None
    state = jax.eval_shape(env.reset, jax.random.key(0))
    poses = jax.eval_shape(drawing.poses, state.pipeline_state)
    assert set(poses) == {ROBOT, *drawing.looks}
    assert all(places.shape[1:] == (3,) for places in poses.values())
    assert set(drawing.lidars) <= set(drawing.looks)
    assert env.observation_size == drawing.sensors + 16 * len(drawing.lidars)


def test_a_recording_is_what_happens(command):
    assert command(f"{TRAIN} --env PointCircle1").status == 0
    seen = play(load_policy(Path("run")), jax.random.key(1), 3, deterministic=True)
    assert np.all(seen.length == 500)
    robot = seen.poses[ROBOT][:, :, 0]
    assert robot.shape == (3, 501, 3) and seen.lidars.shape == (3, 501, 1, 16)
    # It starts in the square, at no cost; then it is charged for each step beyond the strip.
    assert np.all(np.abs(robot[:, 0, :2]) <= 0.8) and not np.any(seen.cost[:, 0])
    beyond = np.abs(robot[:, 1:, 0]) > 1.125
    np.testing.assert_array_equal(np.diff(seen.cost, axis=1), beyond)
    # The nearest lidar reading is that of the middle, 6 m being out of reach.
    distance = np.linalg.norm(robot[:, :, :2], axis=-1)
    np.testing.assert_allclose(seen.lidars.max((2, 3)), 1 - distance / 6, atol=1e-5)


def test_an_episode_that_ends_early_is_recorded_to_its_end(command):
    """The augmented environment: its episodes end once they have cost more than the limit."""
    sizes = "--num-envs 4 --rollout-length 8 --steps 32 --minibatches 2 --hidden 8"
    task = "--env PointCircle1 --algo ppo_early_terminated --cost-limit 0"
    assert command(f"train {task} {sizes} --out run").status == 0
    seen = play(load_policy(Path("run")), jax.random.key(0), 16)
    for cost, length in zip(seen.cost, seen.length, strict=True):
        assert np.all(cost[:length] == 0)
        assert length == 500 or cost[length] == 1


@pytest.mark.parametrize("ending", ["gif", "mp4", "png"])
def test_files_of_every_kind(command, ending):
    assert command(f"{TRAIN} --env PointRun0").status == 0
    result = command(f"render run --episodes 2 --speed 50 --out deep/er/x.{ending}")
    assert result.status == 0 and result.out == f"deep/er/x.{ending}\n"
    path = Path(result.out.strip())
    if ending == "gif":
        with Image.open(path) as film:
            # 500 steps, every 125th, and the start, twice.
            assert getattr(film, "n_frames", 0) == 10
    elif ending == "mp4":
        assert b"ftyp" in path.read_bytes()[:16]
    else:
        with Image.open(path) as picture:
            assert picture.size[0] > picture.size[1]


def test_film_is_added_to_tensorboard(command):
    assert command(f"{TRAIN} --env PointRun0 --tensorboard").status == 0
    assert command("render run --episodes 1 --speed 50 --log").status == 0
    gif = Path("run/episodes.gif").read_bytes()
    assert sum(gif in path.read_bytes() for path in Path("run/tensorboard").iterdir()) == 1
    result = command("render run --log --out x.mp4")
    assert result.status == 2 and "only a gif can be logged" in result.error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("render run --log", "made with neither tensorboard nor wandb"),
        ("render run --out x.webm", "--out x.webm: its ending must be one of .mp4, .gif, .png"),
        ("render run --episodes 0", "episodes: must be at least 1, got 0"),
        ("render run --speed 0", "speed: must be positive, got 0.0"),
        ("render run", "env: ProbeFollow cannot be drawn"),
        ("render missing", "missing is not the folder of a run"),
    ],
)
def test_mistakes(command, arguments, expected):
    assert command(f"{TRAIN} --env ProbeFollow").status == 0
    result = command(arguments)
    assert result.status == 2 and expected in result.error


def test_mp4_without_its_extra_says_what_to_install(command, monkeypatch):
    assert command(f"{TRAIN} --env PointRun0").status == 0
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    result = command("render run --episodes 1 --speed 50 --out x.mp4")
    assert result.status == 2 and "pip install imageio-ffmpeg" in result.error
    assert not Path("x.mp4").exists()
