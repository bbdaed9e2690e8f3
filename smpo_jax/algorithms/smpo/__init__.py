"""Safety Modulated Policy Optimization (Zhang & Guo 2025, arXiv 2504.03040).

A policy is improved on rewards that a cost-aware weight f scales down as the cost predicted for the
episode nears the limit. The four parts, each in a file of its own:

- `critic`: the safety critic Q^c, eqs. 1-3;
- `weight`: the cost-aware weight f and the modulated reward M(r), eqs. 5-6;
- `gradient`: the gradient of the objective through Q^c, eqs. 10-13;
- `threshold`: the threshold d' that tightens with time, section 4.5.

One run may learn to keep several limits, of which the policy is told (`levels`).

Every choice that the paper leaves open, or that the author's code makes otherwise, is a setting in
`settings`, where the presets say what they choose and why. With f = 1 and the critic's gradient
off, this is the method that moves the policy: PPO or TRPO.

Of several constraints each has a critic, a threshold, a weight and a price of its own; the weights
are multiplied.
"""

import operator

import jax
import jax.numpy as jnp

from smpo_jax.algorithms import recipes
from smpo_jax.algorithms.constrained import COST_VALUE
from smpo_jax.algorithms.smpo import critic as safety_critic
from smpo_jax.algorithms.smpo import gradient, weight
from smpo_jax.algorithms.smpo.settings import (
    SMPO,
    SMPOPPO,
    SMPOCode,
    SMPOEarlier,
    SMPOLimits,
    SMPOPaper,
)
from smpo_jax.core import constraints, surrogate
from smpo_jax.core.constraints import each
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Algorithm, Key, LearnerState, Metrics, PerCost, Rollout, Spec

__all__ = ["SMPO", "SMPOPPO", "SMPOCode", "SMPOEarlier", "SMPOLimits", "SMPOPaper", "make"]


def make(
    spec: Spec,
    settings: SMPO | SMPOPPO | SMPOPaper | SMPOCode | SMPOEarlier,
    networks: Networks = DEFAULT,
) -> Algorithm:
    """SMPO for a problem: each setting chooses a function here, and none is asked for later."""
    improver = settings.improver(spec, networks)
    ac = improver.ac
    # Of each constraint: the critic Q^c, and the threshold d'.
    names = constraints.named(COST_VALUE, spec.cost_limit)
    critics = each(lambda name: settings.critic(ac, networks, name), names)
    levels = each(lambda limit: settings.make_levels(spec, limit), spec.cost_limit)
    thresholds = each(
        lambda own: own.threshold(lambda d: settings.threshold(spec._replace(cost_limit=d))),
        levels,
    )
    cost_critic = safety_critic.cost_critic(critics)
    modulation = settings.modulation(spec, constraints.values(critics)[0].learning)
    through_critic = settings.gradient(discrete=spec.discrete)

    def init(key: Key) -> LearnerState:
        learner_key, critic_key = jax.random.split(key)
        learner = improver.init(learner_key)
        for critic, own_key in constraints.zipped(critics, constraints.keys(critic_key, critics)):
            learner = critic.init(learner, own_key)
        return learner.replace(aux=each(lambda own: own.init(), thresholds))

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        improve_key, fit_key = jax.random.split(key)
        transition, epoch = rollout.transition, settings.epoch(spec, learner.iteration)
        estimates = recipes.estimate(ac, learner, transition)
        views = constraints.views(rollout)
        q = each(
            lambda own, view: safety_critic.see(own, learner, view.transition, estimates),
            critics,
            views,
        )
        # Section 4.5: the thresholds d' of this epoch.
        moved = each(
            lambda threshold, own, state, view: threshold.update(state, own.finished(view), epoch),
            thresholds, levels, learner.aux, views,
        )  # fmt: skip
        aux, thresholds_now = (each(operator.itemgetter(i), moved) for i in (0, 1))
        d = each(lambda own, found, view: own.at(found, view), levels, thresholds_now, views)
        mean = constraints.values(levels)[0].mean(rollout)
        # Eqs. 5-6: the weights f of every step, and the modulated reward M(r).
        is_on = epoch >= settings.warmup_epochs
        f, weights = weight.product(
            each(lambda view, q, d: modulation.weigh(view, q.value, d, is_on=is_on), views, q, d)
        )
        shift = modulation.shift(transition)
        reward = modulation.reward(transition.reward, f, shift)
        inverted = weight.is_paid_for_excess(transition.reward, f, shift)
        advantage, target = recipes.advantages(ac, reward, transition, estimates)
        # Eqs. 10-13: what the policy pays for the change of Q^c that it makes.
        charges = each(lambda own: modulation.charge(own, transition), weights)
        price = each(lambda own: through_critic.price(own, rollout, advantage, mean), charges)
        advantage = modulation.advantage(surrogate.standardise(advantage, mean), f)
        advantage = through_critic.charge(advantage, price, q)
        term = through_critic.term(each(lambda own: own.predict(learner), critics))
        extra = through_critic.extra(price, q)
        batch = recipes.to_batch(ac, transition, estimates, advantage, {"value": target}, extra)
        metrics = {
            **_explain(f, price, views),
            **_steering(levels, thresholds_now, aux),
            **_calibration(critics, q, views),
            "value/explained_variance": recipes.explained_variance(estimates.value, target),
            "smpo/inverted_share": jnp.mean(jnp.asarray(inverted, f.dtype)),
            "smpo/critic_gradient_norm": gradient.norm(ac, term, learner, batch),
        }
        # The policy moves, and V learns, as the improver does it.
        learner, improved = improver.improve(learner, batch, improve_key, term)
        # Eqs. 1-3: Q^c learns what the policy that has moved will cost.
        keys = constraints.keys(fit_key, critics)
        for own, view, own_key in constraints.zipped(critics, views, keys):
            learner, fitted = safety_critic.fit(own, learner, view.transition, estimates, own_key)
            improved |= fitted
        learner = recipes.end_iteration(ac, learner.replace(aux=aux), transition)
        return learner, {**metrics, **improved}

    return Algorithm(init, ac.acting, update, cost_critic, is_counted=settings.is_counted(spec))


def _calibration(critics: PerCost, q: PerCost, views: PerCost) -> Metrics:
    """How well each critic knew what followed."""
    metrics: Metrics = {}
    for critic, seen, view in constraints.zipped(critics, q, views):
        metrics |= safety_critic.calibration(critic, seen, view.transition)
    return metrics


def _steering(levels: PerCost, thresholds: PerCost, aux: PerCost) -> Metrics:
    """Which threshold each limit has, and what its episodes cost."""
    metrics: Metrics = {}
    names = constraints.named("smpo", thresholds)
    for name, own, d, state in constraints.zipped(names, levels, thresholds, aux):
        for what, found in (("threshold", d), ("cost_return", state.window.cost)):
            labelled = own.labelled(jnp.asarray(found))
            metrics |= {f"{name}/{label}{what}": x for label, x in labelled}
    return metrics


def _explain(f: weight.Steps, price: PerCost, views: PerCost) -> Metrics:
    """What explains a run: how much is modulated, at which price."""
    metrics = {
        "smpo/weight": jnp.mean(f),
        "smpo/negative_share": jnp.mean(jnp.asarray(f < 0, f.dtype)),
    }
    names = constraints.named("smpo", price)
    for name, own_price, view in constraints.zipped(names, price, views):
        metrics |= {
            f"{name}/spent": jnp.mean(view.cost_so_far),
            f"{name}/price": jnp.mean(own_price),
        }
    return metrics
