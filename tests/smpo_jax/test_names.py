"""Names of other libraries lead to ours, wherever a name is read."""

import dataclasses

import pytest

import smpo_jax as sx
from smpo_jax.algorithms import registry
from smpo_jax.experiment.settings.config import Config
from smpo_jax.names import ELSEWHERE, NOT_HERE, suggest

RECORDS = {Config, *map(registry.settings_class, registry.ALGORITHMS)}
OURS = {field.name for record in RECORDS for field in dataclasses.fields(record)}


@pytest.mark.parametrize("ours", sorted(set(ELSEWHERE.values())))
def test_what_is_elsewhere_leads_to_what_there_is(ours):
    assert ours in OURS | set(registry.ALGORITHMS)


@pytest.mark.parametrize("table", [ELSEWHERE, NOT_HERE])
def test_no_name_of_ours_is_called_another_librarys(table):
    folded = {name.replace("_", "").replace("-", "") for name in OURS | set(registry.ALGORITHMS)}
    assert not folded & set(table)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PPOLag", "ppo_lag"),
        ("TRPOLag", "trpo_lag"),
        ("CPPOPID", "pid_lag"),
        ("TRPOPID", "trpo_pid"),
        ("PPOSaute", "ppo_saute"),
        ("TRPOSimmerPID", "trpo_simmer"),
        ("PPOEarlyTerminated", "ppo_early_terminated"),
        ("OnCRPO", "crpo"),
        ("ppo_lagrangian", "ppo_lag"),
        ("FOCOPS", "focops"),
        ("SAC", "off-policy"),
    ],
)
def test_method_of_another_library_leads_to_ours(name, expected):
    with pytest.raises(ValueError, match=expected):
        sx.algorithms.registry.find(name)


def test_hyperparameter_of_another_library_leads_to_ours():
    with pytest.raises(ValueError, match=r"'lr'; here it is called learning_rate$"):
        registry.hyperparameters("ppo", lr=3e-4)


def test_what_a_method_does_not_have_is_said_so():
    with pytest.raises(ValueError, match="here it is called clip, which cannot be set in this"):
        registry.hyperparameters("trpo", clip_ratio=0.2)


def test_a_long_name_is_answered_soon():
    assert suggest("x" * 10**6, OURS).startswith("; allowed: ")
