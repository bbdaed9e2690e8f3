"""Methods that pay a price for cost: PPO and TRPO on the advantage of the Lagrangian.

The policy is paid (A − λ A_c) / (1 + λ), where the multiplier λ follows the measured episode cost:
up while it exceeds the limit, down while it does not. With λ = 0 this is PPO or TRPO. Of several
constraints each has a multiplier and a critic, (A − Σ λᵢ A_cᵢ) / (1 + Σ λᵢ). What differs from
method to method is the rule for λ and how the policy moves:

- `ppo_lag`, `trpo_lag` (Ray, Achiam & Amodei 2019): λ by gradient ascent, by Adam.
- `rcpo`, as OmniSafe calls it (after Tessler, Mankowitz & Mannor 2019): `trpo_lag` whose natural
  step is taken whole, without a line search.
- `pid_lag` (CPPO-PID), `trpo_pid` (Stooke, Achiam & Abbeel 2020): λ by a PID controller. The
  proportional term answers the excess of the measured cost at once, the integral is what gradient
  ascent would do, the derivative brakes while cost rises; together they damp the swing about the
  limit that an integral alone has (see `core.multipliers.pid`).
- `ipo` (Liu, Ding & Liu 2020): the slope κ / (d − J_c) of a logarithmic barrier in the measured
  cost (see `core.multipliers.barrier`).

Deviation: λ moves once per iteration, as in OmniSafe, but an iteration is larger here (32 000 steps
by default instead of 20 000); minibatches and passes are those of PPO. Of IPO, the slope is taken
at the last measured cost and held fixed during an iteration, as in OmniSafe; rewards and costs are
not normalised (OmniSafe does).
"""

from dataclasses import dataclass

from smpo_jax.algorithms import base, constrained, recipes
from smpo_jax.algorithms.improvers import FirstOrder, Improver, TrustRegion
from smpo_jax.core import surrogate
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class PPOLag(base.Lagrangian, FirstOrder):
    """PPO's, and those of a multiplier by gradient ascent."""


@dataclass(frozen=True, kw_only=True)
class TRPOLag(base.Lagrangian, TrustRegion):
    """TRPO's, and those of a multiplier by gradient ascent."""


@dataclass(frozen=True, kw_only=True)
class RCPO(TRPOLag):
    """TRPO-Lagrangian's, without its line search."""

    line_search: bool = False  # shortens the step; without, only one far beyond target_kl


@dataclass(frozen=True, kw_only=True)
class PIDLag(base.PID, FirstOrder):
    """PPO's, and those of the controller."""


@dataclass(frozen=True, kw_only=True)
class TRPOPID(base.PID, TrustRegion):
    """TRPO's, and those of the controller."""


@dataclass(frozen=True, kw_only=True)
class IPO(base.Barrier, FirstOrder):
    """PPO's, and those of the barrier."""


def make(
    spec: Spec,
    settings: PPOLag | TRPOLag | PIDLag | TRPOPID | IPO,
    networks: Networks = DEFAULT,
) -> Algorithm:
    """The method for a problem that the settings are of."""
    critics = constrained.critics(spec)
    return penalised(settings, settings.improver(spec, networks, critics=critics))


def penalised(settings: base.Lagrangian | base.PID | base.Barrier, improver: Improver) -> Algorithm:
    """A policy that pays λ per unit of cost, however λ is set and however the policy moves."""
    ac, dual = improver.ac, settings.dual()

    def init(key: Key) -> LearnerState:
        return improver.init(key).replace(aux=constrained.start(dual, ac.spec))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        aux, multiplier, measured = constrained.update_multiplier(
            dual, settings, learner.aux, rollout, ac.spec.cost_limit
        )
        estimates = recipes.estimate(ac, learner, transition)
        found, metrics = constrained.advantages(ac, settings, learner, transition, estimates)
        advantage = surrogate.penalised(found.reward, found.cost, multiplier)
        batch = constrained.to_batch(ac, transition, estimates, found, advantage)
        learner, improved = improver.improve(learner, batch, key)
        learner = recipes.end_iteration(ac, learner.replace(aux=aux), transition)
        return learner, {**improved, **metrics, **measured}

    return Algorithm(init, ac.acting, update, constrained.cost_critic(ac, settings))
