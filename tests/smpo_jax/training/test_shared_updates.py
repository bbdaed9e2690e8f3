"""Updates that devices make together, as the compiler has them, and with more devices."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import messages
import pytest
import toy

import smpo_jax as sx
from smpo_jax.training import loop
from smpo_jax.training.devices import make_mesh

QUICK = ("ppo", "cpo")
OTHERS = [pytest.param(algo, marks=pytest.mark.slow) for algo in sx.ALGORITHMS if algo not in QUICK]


@pytest.fixture(scope="module")
def compiled():
    """The iteration of a method on two devices, as the compiler has it."""

    @functools.cache
    def program(algo):
        env, spec = toy.problem(algo, num_envs=8, rollout_length=16, shards=2)
        algorithm, mesh = toy.small(algo, spec), make_mesh(2, 8)
        state = loop.init(algorithm, env, jax.random.key(0), mesh)
        lowered = jax.jit(loop.iteration(algorithm, env, spec, mesh)).lower(state)
        return lowered.compile().as_text()

    return program


@pytest.mark.parametrize(
    ("algo", "messages_beside_loops"),
    [("ppo", 9), ("cpo", 14), pytest.param("smpo", 18, marks=pytest.mark.slow)],
)
def test_no_sample_moves_between_devices_and_a_trip_of_a_loop_is_one_sum(
    compiled, algo, messages_beside_loops
):
    """What the compiler makes of an update on two devices; a gradient is one array."""
    by_computation = messages.in_computations(compiled(algo))
    entry = by_computation.pop("ENTRY")
    assert {kind for kind, _ in sum(by_computation.values(), entry)} == {"all-reduce"}
    assert max(map(len, by_computation.values())) == 1
    line_search = 3  # divergence, gain and cost of a trial
    assert max(arrays for ((_, arrays),) in by_computation.values()) <= line_search
    assert len(entry) <= messages_beside_loops  # sums before and after a loop are not one message


@pytest.mark.parametrize("algo", [*QUICK, *OTHERS])
def test_devices_meet_in_one_order(compiled, algo):
    """Or each of two waits for the other in another place, and the run hangs."""
    assert messages.unordered(compiled(algo)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_on_two_devices_comes_to_its_end(tmp_path, seed):
    """Without one order none of seven did, at these sizes and with two threads."""
    command = f"train --env PointGoal1 --algo ppo --steps 9.6e5 --devices 2 --seed {seed} --out"
    program = [sys.executable, "-m", "smpo_jax", *command.split(), str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo_lag", "cpo", "smpo"])
def test_four_devices_do_what_one_does_with_four_shards(algo):
    """In a process that has so many; here there are two."""
    helpers = Path(toy.__file__).parent
    code = f"""
import sys; sys.path.insert(0, {str(helpers)!r})
import jax; jax.config.update("jax_num_cpu_devices", 4)
import numpy as np, toy
from smpo_jax.training import loop
from smpo_jax.training.devices import make_mesh
ends = []
for devices in (1, 2, 4):
    env, spec = toy.problem({algo!r}, num_envs=8, rollout_length=8, shards=4)
    algorithm, mesh = toy.small({algo!r}, spec), make_mesh(devices, 8)
    state = loop.init(algorithm, env, jax.random.key(0), mesh)
    state, metrics = loop.chunk(algorithm, env, spec, 3, mesh)(state)
    ends.append(jax.device_get((state.learner, metrics)))
for other in ends[1:]:
    for x, y in zip(*map(jax.tree.leaves, (ends[0], other)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
