"""What is refused before it is begun, because it cannot fit into memory."""

import pytest

from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import build
from smpo_jax.experiment.settings.config import Config

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host runs")]


@pytest.fixture
def worlds():
    """4,000 worlds of the real package, of which none is made."""
    pytest.importorskip("mujoco")
    config = Config(
        env="safety-gymnasium:SafetyPointGoal1-v0", algo="ppo_lag", num_envs=4000, rollout_length=4
    )
    return config, build(config)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_worlds_of_workers_are_counted(worlds, monkeypatch, on_cpu):
    monkeypatch.setattr(sizes, "machine_memory", lambda: 2**31)
    if not on_cpu:  # whose memory is then of no help
        monkeypatch.setattr(sizes, "_on_cpu", lambda: False)
        monkeypatch.setattr(sizes, "memory", lambda: 2**40)
    # 0.65 MiB of each at least are 2.5 GiB; 2 GiB hold 3,150
    message = r"num_envs: 4,000 need 2\.[56] GiB of memory at least, .* 2.0 GiB; at most about 3,"
    with pytest.raises(UserError, match=message):
        sizes.require_runs_fit(*worlds)
    monkeypatch.setattr(sizes, "machine_memory", lambda: 2**32)
    sizes.require_runs_fit(*worlds)
