"""Safety Modulated Policy Optimization (Zhang & Guo 2025, arXiv 2504.03040).

A policy is improved on rewards that a cost-aware weight f scales down as the cost predicted for the
episode nears the limit. The four parts, each in a file of its own:

- `critic`: the safety critic Q^c, eqs. 1-3;
- `weight`: the cost-aware weight f and the modulated reward M(r), eqs. 5-6;
- `gradient`: the gradient of the objective through Q^c, eqs. 10-13;
- `threshold`: the threshold d' that tightens with time, section 4.5.

Every choice that the paper leaves open, or that the author's code makes otherwise, is a setting in
`settings`, where the presets say what they choose and why. With f = 1 and the critic's gradient
off, this is the method that moves the policy: PPO or TRPO.
"""

import jax
import jax.numpy as jnp

from smpo_jax.algorithms import recipes
from smpo_jax.algorithms.smpo import critic as safety_critic
from smpo_jax.algorithms.smpo import gradient, weight
from smpo_jax.algorithms.smpo import threshold as thresholds
from smpo_jax.algorithms.smpo.settings import SMPO, SMPOPPO, SMPOCode, SMPOPaper
from smpo_jax.core import surrogate
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, Rollout, Scalar, Spec

__all__ = ["SMPO", "SMPOPPO", "SMPOCode", "SMPOPaper", "make"]


def make(
    spec: Spec,
    settings: SMPO | SMPOPPO | SMPOPaper | SMPOCode,
    networks: Networks = DEFAULT,
) -> Algorithm:
    """SMPO for a problem: each setting chooses a function here, and none is asked for later."""
    improver = settings.improver(spec, networks)
    ac = improver.ac
    critic = settings.critic(ac, networks)
    modulation = settings.modulation(spec, critic.learning)
    threshold = settings.threshold(spec)
    through_critic = settings.gradient(discrete=spec.discrete)

    def init(key: Key) -> LearnerState:
        learner_key, critic_key = jax.random.split(key)
        learner = critic.init(improver.init(learner_key), critic_key)
        return learner.replace(aux=threshold.init())

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        improve_key, fit_key = jax.random.split(key)
        transition, epoch = rollout.transition, settings.epoch(spec, learner.iteration)
        estimates = recipes.estimate(ac, learner, transition)
        q = safety_critic.see(critic, learner, transition, estimates)
        # Section 4.5: the threshold d' of this epoch.
        aux, d = threshold.update(learner.aux, rollout.episodes, epoch)
        # Eqs. 5-6: the weight f of every step, and the modulated reward M(r).
        f = modulation.weigh(rollout, q.value, d, is_on=epoch >= settings.warmup_epochs)
        reward = modulation.reward(transition.reward, f.value, modulation.shift(transition))
        advantage, target = recipes.advantages(ac, reward, transition, estimates)
        # Eqs. 10-13: what the policy pays for the change of Q^c that it makes.
        price = through_critic.price(modulation.charge(f, transition), rollout, advantage)
        advantage = modulation.advantage(surrogate.standardise(advantage), f.value)
        advantage = through_critic.charge(advantage, price, q.advantage)
        term, extra = through_critic.term(critic.predict(learner)), through_critic.extra(price, q)
        batch = recipes.to_batch(transition, estimates, advantage, {"value": target}, extra)
        metrics = {
            **_explain(f, d, price, rollout, aux),
            **safety_critic.calibration(critic, q, transition),
            "value/explained_variance": recipes.explained_variance(estimates.value, target),
            "smpo/critic_gradient_norm": gradient.norm(ac, term, learner, batch),
        }
        # The policy moves, and V learns, as the improver does it.
        learner, improved = improver.improve(learner, batch, improve_key, term)
        # Eqs. 1-3: Q^c learns what the policy that has moved will cost.
        learner, fitted = safety_critic.fit(critic, learner, transition, estimates, fit_key)
        learner = recipes.end_iteration(ac, learner.replace(aux=aux), transition)
        return learner, {**metrics, **improved, **fitted}

    return Algorithm(init, ac.acting, update, critic.cost_critic())


def _explain(
    f: weight.Weight, d: Scalar, price: weight.Steps, rollout: Rollout, aux: thresholds.State
) -> Metrics:
    """What explains a run: how much is modulated, by which threshold, at which price."""
    return {
        "smpo/weight": jnp.mean(f.value),
        "smpo/negative_share": jnp.mean(jnp.asarray(f.value < 0, f.value.dtype)),
        "smpo/threshold": jnp.asarray(d),
        "smpo/cost_return": aux.window.cost,
        "smpo/spent": jnp.mean(rollout.cost_so_far),
        "smpo/price": jnp.mean(price),
    }
