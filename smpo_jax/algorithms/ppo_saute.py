"""Sauté PPO: PPO that sees what is left of its budget and earns little once nothing is.

All of Sauté is in `saute`, all of PPO in `ppo`.

Deviation: at most 10 passes over a rollout where OmniSafe makes 80 on the Goal tasks (and its PPO
40), for the reasons given in `ppo`. Observations are not normalised, as there.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import ppo, saute
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(saute.Budget, ppo.Hyperparameters):
    """PPO's and Sauté's."""

    epochs: int = 10  # passes over a rollout, at most
    normalise_observations: bool = False  # by running mean and standard deviation


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """Sauté PPO for a problem with an account of its costs."""
    return saute.wrap(lambda inner: ppo.make(inner, hyperparameters), spec, hyperparameters)
