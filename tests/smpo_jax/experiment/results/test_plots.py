import csv
from pathlib import Path

import numpy as np
import pytest

from smpo_jax.experiment.results import plots
from smpo_jax.experiment.run.result import RunResult
from smpo_jax.experiment.settings import config_file
from smpo_jax.experiment.settings.config import Config


def write_run(name, *, algo="toy", env="ProbeFollow", seed=0, limit=25.0, values=None, **fields):
    """A run folder with a return of `values` and a cost of three times that."""
    folder = Path(name)
    folder.mkdir(parents=True)
    config = Config(algo=algo, env=env, seed=seed, cost_limit=limit, **fields)
    config_file.save(config, folder)
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "steps", "episode/cost", "episode/count", "episode/return"])
        writer.writerow([1, 100, "nan", 0.0, "nan"])  # no episode had finished yet
        for i, value in enumerate([1.0, 2.0, 3.0] if values is None else values, start=2):
            writer.writerow([i, 100 * i, 3 * value, 4.0, value])
    return folder


def test_run_is_read_without_iterations_in_which_no_episode_finished():
    run = plots.read(write_run("a"))
    np.testing.assert_array_equal(run.steps, [200, 300, 400])
    np.testing.assert_array_equal(run.values["episode/cost"], [3, 6, 9])


def test_run_is_drawn_from_whatever_names_its_folder():
    folder = write_run("a")
    result = RunResult(folder, {}, stopped=False, exit_status=0)
    for named in (folder, str(folder), result):
        (run,) = plots.distinguish([plots.read(named)])
        assert run.folder == folder


def test_average_of_seeds_is_their_mean_with_students_interval():
    runs = [
        plots.read(write_run(f"s{seed}", seed=seed, values=np.full(3, value)))
        for seed, value in enumerate([1.0, 2.0, 3.0])
    ]
    curve = plots.combine(runs, "episode/return")
    np.testing.assert_allclose(curve.middle, 2.0)
    np.testing.assert_allclose(curve.high - curve.middle, 4.3027 / 3**0.5, rtol=1e-4)
    np.testing.assert_allclose(curve.middle - curve.low, 4.3027 / 3**0.5, rtol=1e-4)


def test_a_short_run_does_not_cut_the_others():
    """To step 500 both, 1 apart, beyond it the longer one alone, which has no interval."""
    long = plots.read(write_run("long", values=np.arange(10.0)))
    short = plots.read(write_run("short", seed=1, values=np.arange(4.0) + 1.0))
    curve = plots.combine([long, short], "episode/return")
    assert (curve.steps[0], curve.steps[-1]) == (200, 1100)
    np.testing.assert_allclose(curve.middle[[0, -1]], [0.5, 9.0], atol=1e-12)
    np.testing.assert_array_equal(np.isfinite(curve.low), curve.steps <= 500)


def labels_of(runs):
    return sorted({run.label for run in plots.distinguish(runs)})


def test_runs_that_differ_in_more_than_the_seed_are_told_apart():
    runs = [
        plots.read(write_run("a", limit=1.0)),
        plots.read(write_run("b", limit=25.0, seed=1)),
        plots.read(write_run("c", limit=25.0, seed=2)),
    ]
    assert labels_of(runs) == ["toy, cost_limit=1.0", "toy, cost_limit=25.0"]
    _, labels = plots.draw(runs).axes[0].get_legend_handles_labels()
    assert "toy, cost_limit=25.0 (mean and 95 % interval of 2 seeds)" in labels
    assert labels_of(runs[1:]) == ["toy"]


def test_what_tells_runs_apart_is_as_short_as_it_can_be():
    source = {"init_from": Path("/far/away/a"), "checkpoint": 20}
    runs = [
        plots.read(write_run("a", earlier_lengths=((640, 640),))),
        plots.read(write_run("b", **source)),
        plots.read(write_run("b3", limit=3.0, **source)),
        plots.read(write_run("b6")),
    ]
    assert [run.label for run in plots.distinguish(runs)] == [
        "toy, cost_limit=25.0, lengthened",
        "toy, checkpoint=20, cost_limit=25.0, init_from=a",
        "toy, checkpoint=20, cost_limit=3.0, init_from=a",
        "toy, cost_limit=25.0",
    ]
    figure = plots.draw(runs)
    figure.savefig("curves.png")  # which would warn, were there no room
    for axes in figure.axes:
        assert axes.get_position().width > 0.5 and axes.get_position().height > 0.25
        legend = axes.get_legend()
        if legend is not None:
            box = legend.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_runs_whose_short_labels_were_the_same_are_told_apart_in_full():
    runs = [
        plots.read(write_run("u", init_from=Path("/one/a"))),
        plots.read(write_run("v", init_from=Path("/two/a"))),
        plots.read(write_run("w", earlier_lengths=((640, 640),), init_from=Path("/one/a"))),
        plots.read(write_run("x", earlier_lengths=((640, 320),), init_from=Path("/one/a"))),
    ]
    labels = [run.label for run in plots.distinguish(runs)]
    assert len(set(labels)) == 4 and "init_from=/two/a" in labels[1]
    assert "earlier_lengths=[[640, 320]]" in labels[3]


def test_the_same_folder_twice_is_one_seed():
    run = plots.read(write_run("a"))
    again = plots.read(Path("../") / Path.cwd().name / "a")
    assert len(plots.distinguish([run, again])) == 1
    assert plots.draw([run, again]).axes[0].get_lines()[0].get_label() == "toy (1 seed)"


def test_smoothing_keeps_the_length_and_the_mean_of_a_constant():
    values = plots._smooth(np.full(500, 7.0))
    np.testing.assert_allclose(values, 7.0)
    # 2 % of 500 is 10 values: 5 to each side, fewer at the ends
    spike = np.zeros(500)
    spike[100] = 11.0
    np.testing.assert_allclose(plots._smooth(spike)[94:107], [0, *[1.0] * 11, 0], atol=1e-9)


def test_figure_has_a_column_per_task_a_line_per_algorithm_and_the_limit():
    runs = [
        plots.read(write_run("a0")),
        plots.read(write_run("a1", seed=1)),
        plots.read(write_run("b", algo="ppo")),
        plots.read(write_run("c", env="ProbeExits", limit=2.0)),
    ]
    figure = plots.draw(runs)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["ProbeExits", "ProbeFollow"]
    _, labels = figure.axes[1].get_legend_handles_labels()
    assert labels == ["ppo (1 seed)", "toy (mean and 95 % interval of 2 seeds)"]
    below = figure.axes[3]  # cost of ProbeFollow
    limits = [line for line in below.lines if line.get_linestyle() == "--"]
    assert [list(np.asarray(line.get_ydata())) for line in limits] == [[25.0, 25.0]]
    colours = {line.get_color() for line in figure.axes[1].lines}
    assert len(colours) == 2


@pytest.mark.parametrize("limit", [0.0, 25.0, 1000.0])
def test_limit_and_curves_are_in_view(limit):
    figure = plots.draw([plots.read(write_run("a", limit=limit))])
    bottom, top = figure.axes[1].get_ylim()
    assert bottom == 0 and top > max(9.0, limit)  # costs are 3, 6 and 9
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < 1.0 and top > 3.0


def test_wide_interval_of_few_seeds_does_not_flatten_the_curves():
    runs = [
        plots.read(write_run("low", values=np.full(3, 1.0))),
        plots.read(write_run("high", seed=1, values=np.full(3, 5.0))),
    ]
    # mean 3; with one degree of freedom the interval reaches 12.7 * 2.83 / sqrt(2) = 25 beyond it
    assert plots.draw(runs).axes[0].get_ylim() == (2.0, 4.0)


@pytest.mark.parametrize("name", ["curves.png", "new/folder/curves.svg", "curves.pdf"])
def test_plot_writes_a_picture(command, name):
    write_run("a")
    write_run("b", seed=1)
    result = command("plot", "a", "b", "--out", name)
    assert result.status == 0, result.err
    assert result.out.strip() == name and Path(name).stat().st_size > 1000


def test_plot_of_an_unknown_format_is_refused(command):
    write_run("a")
    result = command("plot a --out curves.docx")
    assert result.status == 2 and "its ending must be one of" in result.error


@pytest.mark.parametrize("content", [None, "", "iteration\n1\n", "not,a\nmetrics,file\n"])
def test_run_without_metrics_is_one_line(command, content):
    folder = write_run("a")
    (folder / "metrics.csv").unlink()
    if content is not None:
        (folder / "metrics.csv").write_text(content)
    result = command("plot a --out curves.png")
    assert result.status == 2 and "metrics.csv" in result.error


def test_run_in_which_no_episode_finished_is_one_line(command):
    write_run("a", values=[])
    result = command("plot a --out curves.png")
    assert result.status == 2 and "no episode has finished" in result.error
