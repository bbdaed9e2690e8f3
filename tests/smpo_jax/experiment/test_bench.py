import json

import pytest

from smpo_jax.experiment import bench

BENCH = "bench --num-envs 2 4 --algos toy --train-envs 4 --rollout-length 5 --repeats 2"


def test_json_has_the_machine_the_rates_and_the_compile_times(command):
    result = command(f"{BENCH} --env ProbeFollow --seeds 3 --json")
    assert result.status == 0, result.err
    seen = json.loads(result.out)
    assert list(seen) == [
        "machine", "env", "repeats", "environment", "training", "real", "ratio",
    ]  # fmt: skip
    assert seen["machine"]["platform"] == "cpu" and seen["machine"]["cores"] >= 1
    assert [row["num_envs"] for row in seen["environment"]] == [2, 4]
    for row in (*seen["environment"], *seen["training"]):
        assert row["steps_per_second"] > 0 and row["compile_seconds"] > 0
    (training,) = seen["training"]
    assert (training["algo"], training["num_envs"], training["seeds"]) == ("toy", 4, 3)
    # 1e7 steps of each of the 3 seeds
    expected = 3e7 / training["steps_per_second"]
    assert training["seconds_per_1e7_steps"] == pytest.approx(expected)
    assert seen["real"] is None and seen["ratio"] is None  # there is no real ProbeFollow


def test_several_devices_share_the_environments(command):
    result = command(f"{BENCH} --env ProbeFollow --devices 2 --json")
    assert result.status == 0, result.err
    seen = json.loads(result.out)
    assert all(row["steps_per_second"] > 0 for row in (*seen["environment"], *seen["training"]))
    result = command(f"{BENCH} --env ProbeFollow --devices 3 --json")
    assert result.status == 2 and "devices=3 must be at least 1 and divide num_envs=4" in result.err


def test_ratio_compares_the_best_native_rate_with_the_real_one(command, monkeypatch):
    monkeypatch.setattr(bench, "real", lambda env: {"task": env, "steps_per_second": 100.0})
    rates = iter([5000.0, 20000.0])
    monkeypatch.setattr(
        bench,
        "environment",
        lambda env, num_envs, repeats: {
            "num_envs": num_envs, "steps_per_second": next(rates), "compile_seconds": 1.0,
        },
    )  # fmt: skip
    out = command("bench --num-envs 2 4 --algos --json --repeats 1").out
    assert json.loads(out)["ratio"] == 200.0


def test_table_has_a_line_for_every_measurement(command):
    out = command(f"{BENCH} --env ProbeFollow").out
    assert "step      2 envs" in out and "step      4 envs" in out and "train toy" in out
    assert "compiled in" in out and "1e7 steps of 1 seed(s)" in out


def test_real_package_that_is_not_installed_is_left_out(monkeypatch):
    import smpo_envs.host

    def missing(task_id):
        raise ImportError("not installed")

    monkeypatch.setattr(smpo_envs.host, "measure_real", missing, raising=False)
    assert bench.real("PointGoal1") is None


@pytest.mark.host
@pytest.mark.xdist_group("host runs")
def test_outside_jax_the_workers_alone_and_training_are_timed(command):
    result = command(
        "bench --env gymnasium:Pendulum-v1 --env-option cost=none --train-envs 4 --algos ppo "
        "--rollout-length 16 --repeats 1 --json"
    )
    assert result.status == 0, result.err
    seen = json.loads(result.out)
    (alone,), (training,) = seen["environment"], seen["training"]
    assert (alone["num_envs"], training["num_envs"], seen["real"]) == (4, 4, None)
    assert training["share"] == training["steps_per_second"] / alone["steps_per_second"]
