"""The methods by name. Importing this loads no jax; `make` loads the one method it builds."""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from smpo_jax.names import suggest

if TYPE_CHECKING:
    from smpo_jax.augmentation import Augmentation
    from smpo_jax.types import Algorithm, Scalar, Spec


class Entry(NamedTuple):
    """A method, or a named preset of one.

    Attributes:
        module: where `Hyperparameters` and `make(spec, hyperparameters)` are.
        paper: its source.
        year: of the paper.
        summary: one line.
        preset: hyperparameters that differ from the module's defaults.
        augmentation: "module:function" that makes, of settings and cost limit, what the method
            adds to its environment; empty for nothing.
    """

    module: str
    paper: str
    year: int
    summary: str
    preset: dict[str, Any]
    augmentation: str = ""


_SMPO_PAPER = "Zhang & Guo, Safety Modulation: Cost-Modulated Rewards, arXiv 2504.03040"

_SAUTE = "Sootla et al., Sauté RL: Almost Surely Safe Reinforcement Learning, arXiv 2202.06558"
_EARLY_TERMINATED = "Sun et al., Safe Exploration by Solving Early Terminated MDP, arXiv 2107.04200"

# What our presets of SMPO share.
_OUR_MODULATION = {
    # Nearly linear: a steep weight is a step that says nothing on the way, and a unit of
    # cost has much the same price wherever it is.
    "weight_base": 2.718281828459045,
    "weight_temperature": 100.0,
    # Wide: where these bind, a lower threshold only makes more states equally bad.
    "weight_floor": -20.0,
    "prediction_clip": 20.0,
    # The episode's own C_t is not in the observation, and past the budget can only punish.
    "spent": "none",
    "prediction_scale": "episode",
    # Rewards below zero times f < 0 would be gains.
    "shift_amount": 0.03,
    # Looks twenty steps ahead, which also undoes most of the penalty's shrinkage.
    "cost_trace": 0.95,
    "cost_rounds": 4,
    "cost_epochs": 1,
    "cost_max_gradient_norm": 40.0,
    "cost_activation": "tanh",
    # A coefficient then means the same whatever the rewards' scale.
    "critic_gradient_standardised": True,
}

ALGORITHMS: dict[str, Entry] = {
    "ppo": Entry(
        module="smpo_jax.algorithms.ppo",
        paper="Schulman et al., Proximal Policy Optimization Algorithms, arXiv 1707.06347",
        year=2017,
        summary="clipped surrogate; ignores costs",
        preset={},
    ),
    "ppo_lag": Entry(
        module="smpo_jax.algorithms.ppo_lag",
        paper="Ray, Achiam & Amodei, Benchmarking Safe Exploration in Deep RL, OpenAI",
        year=2019,
        summary="PPO that pays for cost, at a price found by gradient ascent",
        preset={},
    ),
    "pid_lag": Entry(
        module="smpo_jax.algorithms.pid_lag",
        paper="Stooke et al., Responsive Safety by PID Lagrangian Methods, arXiv 2007.03964",
        year=2020,
        summary="PPO that pays for cost, at a price that a PID controller sets",
        preset={},
    ),
    "ipo": Entry(
        module="smpo_jax.algorithms.ipo",
        paper="Liu et al., Interior-point Policy Optimization, arXiv 1910.09615",
        year=2020,
        summary="PPO that pays for cost, at a price that rises steeply near the limit",
        preset={},
    ),
    "p3o": Entry(
        module="smpo_jax.algorithms.p3o",
        paper="Zhang et al., Penalized Proximal Policy Optimization, arXiv 2205.11814",
        year=2022,
        summary="PPO with an exact penalty on exceeding the limit",
        preset={},
    ),
    "focops": Entry(
        module="smpo_jax.algorithms.focops",
        paper="Zhang et al., First Order Constrained Optimization, arXiv 2002.06506",
        year=2020,
        summary="projects the optimal policy of the trust-region problem on the network",
        preset={},
    ),
    "cup": Entry(
        module="smpo_jax.algorithms.cup",
        paper="Yang et al., Constrained Update Projection, arXiv 2209.07089",
        year=2022,
        summary="PPO on rewards, then a projection back towards the limit",
        preset={},
    ),
    "ppo_saute": Entry(
        module="smpo_jax.algorithms.ppo_saute",
        paper=_SAUTE,
        year=2022,
        summary="PPO that sees its budget and earns little once it is spent",
        preset={},
        augmentation="smpo_jax.algorithms.saute:augmentation",
    ),
    "ppo_simmer": Entry(
        module="smpo_jax.algorithms.ppo_simmer",
        paper="Sootla et al., Enhancing Safe Exploration Using Safety State Augmentation, "
        "arXiv 2206.02675",
        year=2022,
        summary="Sauté PPO whose budget a PI controller sets",
        preset={},
        augmentation="smpo_jax.algorithms.saute:augmentation",
    ),
    "ppo_early_terminated": Entry(
        module="smpo_jax.algorithms.ppo",
        paper=_EARLY_TERMINATED,
        year=2021,
        summary="PPO on episodes that end when their cost reaches the limit",
        preset={},
        augmentation="smpo_jax.algorithms.early_terminated:augmentation",
    ),
    "trpo": Entry(
        module="smpo_jax.algorithms.trpo",
        paper="Schulman et al., Trust Region Policy Optimization, arXiv 1502.05477",
        year=2015,
        summary="one natural-gradient step; ignores costs",
        preset={},
    ),
    "trpo_lag": Entry(
        module="smpo_jax.algorithms.trpo_lag",
        paper="Ray, Achiam & Amodei, Benchmarking Safe Exploration, OpenAI",
        year=2019,
        summary="TRPO on A - lambda A_c; lambda by gradient ascent",
        preset={},
    ),
    "trpo_pid": Entry(
        module="smpo_jax.algorithms.trpo_pid",
        paper="Stooke et al., Responsive Safety by PID Lagrangian Methods, arXiv 2007.03964",
        year=2020,
        summary="TRPO on A - lambda A_c; lambda by PID control",
        preset={},
    ),
    "rcpo": Entry(
        module="smpo_jax.algorithms.trpo_lag",
        paper="Tessler et al., Reward Constrained Policy Optimization, arXiv 1805.11074",
        year=2019,
        summary="natural gradient of A - lambda A_c, without a line search",
        preset={"line_search": False},
    ),
    "cpo": Entry(
        module="smpo_jax.algorithms.cpo",
        paper="Achiam et al., Constrained Policy Optimization, arXiv 1705.10528",
        year=2017,
        summary="natural-gradient step within a linear model of the constraint",
        preset={},
    ),
    "pcpo": Entry(
        module="smpo_jax.algorithms.pcpo",
        paper="Yang et al., Projection-Based Constrained Policy Optimization, arXiv 2010.03152",
        year=2020,
        summary="natural-gradient step, then projected onto the constraint",
        preset={},
    ),
    "crpo": Entry(
        module="smpo_jax.algorithms.crpo",
        paper="Xu, Liang & Lan, CRPO: Primal Approach for Safe RL, arXiv 2011.05869",
        year=2021,
        summary="TRPO for the reward within the limit, against the cost beyond it",
        preset={},
    ),
    "trpo_saute": Entry(
        module="smpo_jax.algorithms.trpo_saute",
        paper=_SAUTE,
        year=2022,
        summary="TRPO that sees its budget and earns little once it is spent",
        preset={},
        augmentation="smpo_jax.algorithms.saute:augmentation",
    ),
    "trpo_early_terminated": Entry(
        module="smpo_jax.algorithms.trpo",
        paper=_EARLY_TERMINATED,
        year=2021,
        summary="TRPO on episodes that end when their cost reaches the limit",
        preset={},
        augmentation="smpo_jax.algorithms.early_terminated:augmentation",
    ),
    "smpo": Entry(
        module="smpo_jax.algorithms.smpo",
        paper=_SMPO_PAPER,
        year=2025,
        summary="cost-modulated rewards, our preset: all four parts, learns before it tightens",
        preset={
            **_OUR_MODULATION,
            # One step, as in the paper: with the whole recursion (trace 1) one trial did not learn.
            "critic_gradient": "reparameterised",
            # From loose to tight so slowly that the feedback keeps up: down to the limit within 50
            # epochs, the policy stands still before it has learnt to move.
            "threshold_factor": 8.0,
            "threshold_epochs": 500.0,
            # A fixed weight ends at whatever cost it ends at; this ends at the limit.
            "threshold_feedback": 0.1,
            "threshold_maximum": 8.0,
        },
    ),
    "trpo_smpo": Entry(
        module="smpo_jax.algorithms.trpo_smpo",
        paper=_SMPO_PAPER,
        year=2025,
        summary="cost-modulated rewards, steered cost, natural-gradient steps",
        preset={
            # Large steps to learn to move, smaller ones to settle.
            "target_kl": 0.02,
            "target_kl_decay": 0.4,
            **_OUR_MODULATION,
            # The whole recursion, as a price on the cost that was measured: each unit is paid for
            # where it falls due, and f, which pays for forecasts, can stay near 1. The coefficient
            # decides how the two share the work.
            "critic_gradient": "advantage",
            "critic_gradient_trace": 1.0,
            "critic_gradient_coefficient": 0.4,
            # d' itself only follows the measured cost; what falls from 2 d to d, as the paper's
            # threshold does, is the cost that it is steered to.
            "threshold_factor": 8.0,
            "threshold_epochs": 1e9,
            "threshold_maximum": 12.0,
            "threshold_feedback": 0.12,
            "feedback_proportional": 1.0,
            "feedback_bound": 0.5,
            "target_factor": 2.0,
            "target_epochs": 150.0,
        },
    ),
    "smpo-paper": Entry(
        module="smpo_jax.algorithms.smpo",
        paper=_SMPO_PAPER,
        year=2025,
        summary="cost-modulated rewards, as literally as the paper can be read",
        preset={},
    ),
}


def find(name: str) -> Entry:
    """The entry of that name, or a ValueError with the nearest ones."""
    return _lookup("algorithm", name, ALGORITHMS)


def hyperparameters(name: str, **overrides: Any) -> Any:
    """The validated settings of a method: module defaults, then its preset, then `overrides`."""
    entry = find(name)
    record = importlib.import_module(entry.module).Hyperparameters
    fields = {field.name: field for field in dataclasses.fields(record)}
    for override in overrides:
        _lookup(f"hyperparameter of {name}", override, fields)
    return record(**{**entry.preset, **overrides})


def make(name: str, spec: "Spec", **overrides: Any) -> "Algorithm":
    """The method `name` for the problem `spec`, its preset changed by `overrides`."""
    settings = hyperparameters(name, **overrides)
    return importlib.import_module(find(name).module).make(spec, settings)


def augmentation(name: str, cost_limit: "Scalar", **overrides: Any) -> "Augmentation":
    """What the method `name` adds to its environment; see `smpo_jax.augmentation.augment`."""
    entry = find(name)
    if not entry.augmentation:
        return importlib.import_module("smpo_jax.augmentation").NONE
    module, _, function = entry.augmentation.partition(":")
    build = getattr(importlib.import_module(module), function)
    return build(hyperparameters(name, **overrides), cost_limit)


def _lookup(what: str, name: str, table: dict[str, Any]) -> Any:
    if name in table:
        return table[name]
    raise ValueError(f"unknown {what} {name!r}{suggest(name, sorted(table))}")
