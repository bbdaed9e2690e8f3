"""CPPO-PID (Stooke, Achiam & Abbeel 2020): PPO-Lagrangian whose multiplier a PID controller sets.

The proportional term answers the excess of the measured cost at once, the integral is what gradient
ascent would do, the derivative brakes while cost rises; together they damp the swing about the
limit that an integral alone has. See `core.multipliers.pid`, and `ppo_lag` for the rest.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, ppo_lag, recipes
from smpo_jax.types import Algorithm, Spec


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.PID, base.FirstOrder):
    """PPO's, and those of the controller."""


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """CPPO-PID for a problem."""
    ac = recipes.actor_critic(spec, hyperparameters, critics=recipes.VALUES)
    objective = recipes.clipped_objective(ac)
    return ppo_lag.penalised(ac, hyperparameters, hyperparameters.dual(), objective)
