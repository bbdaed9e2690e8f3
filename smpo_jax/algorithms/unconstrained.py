"""PPO and TRPO (Schulman et al. 2017, 2015): the unconstrained baselines; they ignore costs.

Both are paid the same, the standardised generalised advantage of the reward; they differ in how
the policy moves. PPO makes clipped passes,

    max E[min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)],

TRPO one step along the natural gradient (its appendix C),

    max E[ρ A]  subject to  E KL(π_old || π) <= δ,

of the length at which the quadratic model of the divergence is δ, shortened until the true one is
within δ and the surrogate has not fallen. ρ is the ratio of the policy's probability to that of the
one that acted.

Settings and semantics follow OmniSafe's, for large vectorised batches: advantages standardised once
over the rollout, passes stopped by the divergence of the whole batch, gradients clipped per
network, PPO's learning rate decayed linearly.

Deviation: minibatches are about 2 000 samples instead of 64, and passes at most 5 instead of 40,
which is what keeps two CPU cores (or a GPU) busy; the step size is the same.
"""

from dataclasses import dataclass

from smpo_jax.algorithms import recipes
from smpo_jax.algorithms.improvers import FirstOrder, TrustRegion
from smpo_jax.core import surrogate
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Spec


@dataclass(frozen=True, kw_only=True)
class PPO(FirstOrder):
    """PPO has only what all methods with clipped passes have."""


@dataclass(frozen=True, kw_only=True)
class TRPO(TrustRegion):
    """TRPO has only what all methods with natural steps have."""


def make(spec: Spec, settings: PPO | TRPO, networks: Networks = DEFAULT) -> Algorithm:
    """PPO or TRPO for a problem, as the settings say."""
    improver = settings.improver(spec, networks)
    ac = improver.ac

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        estimates = recipes.estimate(ac, learner, transition)
        advantage, target = recipes.advantages(ac, transition.reward, transition, estimates)
        advantage = surrogate.standardise(advantage)
        batch = recipes.to_batch(ac, transition, estimates, advantage, {"value": target})
        learner, metrics = improver.improve(learner, batch, key)
        metrics["value/explained_variance"] = recipes.explained_variance(estimates.value, target)
        return recipes.end_iteration(ac, learner, transition), metrics

    return Algorithm(improver.init, ac.acting, update)
