"""Sauté TRPO: TRPO that sees what is left of its budget and earns little once nothing is.

All of Sauté is in `saute`, all of TRPO in `trpo`. As in OmniSafe on the Goal tasks,
observations are not normalised.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import saute, trpo
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(saute.Budget, trpo.Hyperparameters):
    """TRPO's and Sauté's."""

    normalise_observations: bool = False  # by running mean and standard deviation


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """Sauté TRPO for a problem with an account of its costs."""
    return saute.wrap(lambda inner: trpo.make(inner, hyperparameters), spec, hyperparameters)
