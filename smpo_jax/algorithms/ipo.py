"""Interior-point policy optimisation (Liu, Ding & Liu 2020): a logarithmic barrier at the limit.

The barrier's slope in the measured cost, κ / (d − J_c), is the price of a unit of cost, so that
this is PPO-Lagrangian with another rule for the multiplier (see `core.multipliers.barrier`).

Deviation: the slope is taken at the last measured cost and held fixed during an iteration, as in
OmniSafe; rewards and costs are not normalised (OmniSafe does), advantages are as in `ppo_lag`.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, ppo_lag, recipes
from smpo_jax.core import multipliers
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.Constrained, base.FirstOrder):
    """PPO's, and those of the barrier; OmniSafe's numbers."""

    barrier_coefficient: float = 0.01  # κ: how far from the limit the barrier is felt
    multiplier_maximum: float = 1.0  # the slope at the limit and beyond

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "barrier_coefficient", "multiplier_maximum")
        super().__post_init__()


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """IPO for a problem."""
    settings = hyperparameters
    ac = recipes.actor_critic(spec, settings, critics=recipes.VALUES)
    dual = multipliers.barrier(
        coefficient=settings.barrier_coefficient, maximum=settings.multiplier_maximum
    )
    return ppo_lag.penalised(ac, settings, dual, recipes.clipped_objective(ac))
