"""TRPO-PID: TRPO on the Lagrangian's advantage, whose multiplier a PID controller sets.

The controller is that of Stooke, Achiam & Abbeel (2020), as in `pid_lag`; all else is `trpo_lag`.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base
from smpo_jax.algorithms.trpo_lag import penalised_trpo
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.PID, base.TrustRegion):
    """TRPO's, and those of a multiplier by PID control."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """TRPO-PID for a problem."""
    return penalised_trpo(spec, hyperparameters, hyperparameters, hyperparameters.dual())
