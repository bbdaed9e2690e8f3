import dataclasses
import subprocess
import sys

import pytest
import toy

from smpo_jax.algorithms import registry
from smpo_jax.algorithms.improvers import FirstOrder, TrustRegion


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_entry_leads_to_valid_settings_and_is_described(name):
    entry = registry.ALGORITHMS[name]
    settings = registry.hyperparameters(name)
    assert type(settings) is registry.settings_class(name)
    assert type(settings).__doc__ and entry.summary and entry.paper and entry.year > 1990
    steps = {"passes": FirstOrder, "natural step": TrustRegion}
    assert isinstance(settings, steps[entry.improver])


def test_defaults_of_the_improver_hold_where_a_method_says_nothing_else():
    """Two records may have the same field; which default wins is easily turned round."""
    for name, entry in registry.ALGORITHMS.items():
        settings = registry.hyperparameters(name)
        rate = 1e-3 if entry.improver == "natural step" else 3e-4
        assert settings.learning_rate == rate, name
        decays = entry.improver == "passes" or name in ("cpo", "pcpo")
        assert settings.learning_rate_decay == decays, name


@pytest.mark.parametrize(
    "name, fields, now",
    [("trpo_smpo", (), "smpo"), ("smpo", ("clip", "epochs"), "smpo-ppo"), ("smpo", (), "smpo")],
)
def test_names_of_old_runs_lead_to_what_they_were(name, fields, now):
    found, notice = registry.current(name, fields)
    assert found == now
    assert notice == (None if name == now else f"the algorithm {name} is called {now} now")


def test_overrides_win_over_the_defaults():
    assert registry.hyperparameters("smpo").cost_trace != 0.5
    assert registry.hyperparameters("smpo", cost_trace=0.5).cost_trace == 0.5


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("smpoo", {}, "unknown algorithm 'smpoo'.*did you mean smpo"),
        (
            "ppo",
            {"learning_rat": 1.0},
            "hyperparameter of ppo 'learning_rat'.*did you mean learning_rate",
        ),
        ("ppo", {"learning_rate": -1.0}, "learning_rate=-1.0 must be positive"),
        ("ppo", {"learning_rate": float("nan")}, "learning_rate=nan must be positive"),
        ("ppo", {"learning_rate": "fast"}, "learning_rate='fast' must be positive"),
        ("ppo", {"learning_rate": float("inf")}, "learning_rate=inf must be positive and fini"),
        ("ppo", {"learning_rate": 1e-320}, "learning_rate=1e-320 must be positive and finite, as "),
        ("ppo", {"target_kl": 1e-320}, "target_kl=1e-320 must be positive, as float32"),
        ("ppo", {"value_l2": 1e300}, r"value_l2=1e\+300 must be 0 or more, within float32's range"),
        ("ppo", {"discount": 1e-320}, "discount=1e-320 must be from 0 to 1, within float32"),
        ("smpo", {"target_factor": float("inf")}, "target_factor=inf must be 1 or more and finite"),
        ("smpo", {"weight_temperature": 1e300}, "weight_temperature=1e\\+300 must be positive"),
        ("ppo", {"discount": 1.5}, "discount=1.5 must be from 0 to 1"),
        ("ppo", {"minibatches": 2.5}, "minibatches=2.5 must be a whole number"),
        ("ppo", {"hidden": ()}, r"hidden=\(\) must be one or more positive"),
        ("ppo", {"activation": "tanhh"}, "activation='tanhh' is unknown.*did you mean tanh"),
        ("smpo", {"weight_base": 1.0}, "weight_base=1.0 must be more than 1"),
        ("smpo", {"weight_floor": 1.0}, "weight_floor=1.0 must be less than 1"),
        ("smpo", {"spent": "episodes"}, "spent='episodes' is unknown.*did you mean episode"),
        (
            "smpo",
            {"critic_gradient": "on"},
            "critic_gradient='on' is unknown; allowed: reparameterised, score, advantage, off",
        ),
    ],
)
def test_a_wrong_setting_is_one_clear_error(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        registry.hyperparameters(name, **overrides)


def test_minibatches_that_do_not_divide_the_rollout_are_one_clear_error():
    _, spec = toy.problem(num_envs=7, rollout_length=10)
    with pytest.raises(ValueError, match="10 × num_envs=7 = 70 is not divisible by minibatches=4"):
        registry.make("ppo", spec, minibatches=4)
    with pytest.raises(ValueError, match="is not divisible by cost_minibatches=4"):
        registry.make("smpo", spec, minibatches=5, cost_minibatches=4)


def test_settings_are_frozen():
    settings = registry.hyperparameters("ppo")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.clip = 0.1


def test_listing_the_methods_loads_no_jax():
    code = "import sys, smpo_jax; smpo_jax.ALGORITHMS; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
