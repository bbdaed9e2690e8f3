from pathlib import Path

import pytest

from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.settings.config_file import load_yaml

OMNISAFE = """
defaults:
  seed: 0
  train_cfgs: {device: cpu, torch_threads: 16, vector_env_nums: 20, total_steps: 10000000}
  algo_cfgs: {steps_per_epoch: 20000, update_iters: 40, gamma: 0.99, clip: 0.2, lam_c: 0.95}
  logger_cfgs: {use_wandb: true, log_dir: ./runs}
  model_cfgs: {actor: {hidden_sizes: [64, 64], activation: tanh, lr: 0.0003}}
  lagrange_cfgs: {cost_limit: 25.0, lambda_lr: 0.035}
"""


def test_a_configuration_of_omnisafes_is_refused_with_its_keys_in_our_words():
    Path("a.yaml").write_text(OMNISAFE)
    with pytest.raises(UserError) as caught:
        load_yaml(Path("a.yaml"))
    message = str(caught.value)
    assert message.startswith(
        "a.yaml: this is a configuration of OmniSafe's. Here fields are flat;"
    )
    top, own, unknown = message.split("; ")[1:]
    assert top == (
        "at the top: seed, vector_env_nums is num_envs, total_steps is steps, use_wandb is wandb, "
        "log_dir is out, cost_limit"
    )
    assert own == (
        "below `hyperparameters:`: update_iters is epochs, gamma is discount, clip, "
        "lam_c is cost_gae_lambda, hidden_sizes is hidden, activation, lr is learning_rate, "
        "lambda_lr is multiplier_learning_rate"
    )
    assert unknown == "without a counterpart: device, torch_threads, steps_per_epoch"


@pytest.mark.parametrize("group", ["train_cfgs", "algo_cfgs", "lagrange_cfgs"])
def test_one_group_is_enough(group):
    Path("a.yaml").write_text(f"{group}: {{gamma: 0.9}}\n")
    with pytest.raises(UserError, match=r"OmniSafe's.*gamma is discount"):
        load_yaml(Path("a.yaml"))
