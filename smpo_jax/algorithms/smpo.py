"""Safety Modulated Policy Optimization (Zhang & Guo 2025, arXiv 2504.03040).

PPO on rewards that a cost-aware weight f scales down as the cost predicted for the episode nears
the limit, with four parts: a safety critic Q^c (eqs. 1-3), the weight (eqs. 5-6), the gradient of
the objective through Q^c (eqs. 10-13), and a threshold that tightens with time (section 4.5).

Every choice the paper leaves open, or its code makes otherwise, is a hyperparameter. The defaults
read the paper literally; the preset `smpo` says what we found to work better, and why.
With f = 1 and the critic's gradient off, this is PPO. `trpo_smpo` is the same with
natural-gradient steps.

Deviation: the gradient through Q^c is taken at (s_t, a_t), weighted by what the steps before t put
at stake, rather than at (s_{t+1}, a') weighted by step t. It is the same sum, written so that the
policy's output there is already at hand, and so that it can be carried on along the episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, recipes, safety_critic
from smpo_jax.core import distributions, episodes, modulation, optimise, returns, surrogate
from smpo_jax.networks import ACTIVATIONS
from smpo_jax.types import (
    Algorithm,
    CostCritic,
    DiagonalGaussian,
    Key,
    LearnerState,
    Metrics,
    Rollout,
    Spec,
    Transition,
)

Steps = Float[Array, "T N"]


@dataclass(frozen=True, kw_only=True)
class Modulation(base.ActorCritic):
    """SMPO's choices. An epoch is `epoch_steps` environment steps, as in the paper."""

    # The weight f(x), x = spent + clip(predicted, 0, prediction_clip * d') - d'
    weight_base: float = 3.0  # b: larger is steeper
    weight_temperature: float = 1.0  # divides x; b^(1/temperature) is the base in effect
    weight_floor: float = -5.0  # f is never below; 0 forbids negative weights
    prediction_clip: float = 1.0  # bound on the predicted cost, in multiples of d'
    spent: str = "episode"  # C_t: episode (its own), expected (J_c t / length), none
    prediction_scale: str = "none"  # none; episode, remaining: Q^c's cost per step times steps
    modulates: str = "reward"  # reward, or (standardised) advantage
    shift: str = "constant"  # of rewards, so that none is negative: constant, or running minimum
    shift_amount: float = 0.0  # the constant
    # The safety critic
    cost_discount: float = 0.99  # of the safety critic
    cost_regularisation: float = 0.1  # lambda, times mean Q^c squared
    cost_samples: int = 0  # K actions for the expectation in the target; 0 takes the mean action
    cost_trace: float = 0.0  # lambda of the return in the target; 0 is one-step expected SARSA
    cost_learning_rate: float = 3e-4  # Adam's; decays as the policy's does
    cost_rounds: int = 1  # times that targets are computed per iteration
    cost_epochs: int = 5  # passes on each set of targets
    cost_minibatches: int = 16  # gradient steps per pass; must divide num_envs * rollout_length
    cost_max_gradient_norm: float = 1.0  # of the safety critic
    cost_hidden: tuple[int, ...] = (64, 64)  # units of its hidden layers
    cost_activation: str = "relu"  # tanh, relu or silu
    # The gradient through the safety critic
    critic_gradient: str = "score"  # score (function), reparameterised, advantage, or off
    critic_gradient_coefficient: float = 1.0  # times its loss
    critic_gradient_reward: str = "reward"  # what is at stake: reward, or reward-to-go
    critic_gradient_trace: float = 0.0  # 0: one step, as in the paper; 1: the whole recursion
    critic_gradient_standardised: bool = False  # divided, like the advantage, by the latter's std
    # The threshold d'
    epoch_steps: float = 20_000.0  # environment steps in an epoch
    warmup_epochs: float = 5.0  # of plain PPO, while the safety critic learns
    threshold_factor: float = 2.0  # eta: the first threshold in multiples of the limit
    threshold_epochs: float = 50.0  # e_max: epochs until the threshold is the limit
    threshold_feedback: float = (
        0.0  # d' += feedback * (target - J_c) per epoch, beside the schedule
    )
    feedback_proportional: float = 0.0  # d' also has this times (target - J_c), not summed up
    feedback_bound: float = 1e6  # on |target - J_c|, in multiples of the limit
    target_factor: float = 1.0  # the first target in multiples of the limit
    target_epochs: float = 0.0  # epochs until the target is the limit
    threshold_minimum: float = 1.0  # d' is never below (cost per episode)
    threshold_maximum: float = 4.0  # nor above, in multiples of the limit
    episode_window: float = 100.0  # episodes that J_c is a mean of

    def __post_init__(self):
        base.require(self, ("more than 1", lambda x: x > 1), "weight_base")
        base.require(self, ("less than 1", lambda x: x < 1), "weight_floor")
        base.require(self, base.POSITIVE, "weight_temperature", "prediction_clip")
        base.require(self, base.NONNEGATIVE, "shift_amount", "cost_regularisation", "cost_samples")
        base.require(self, base.FRACTION, "cost_discount", "cost_trace", "critic_gradient_trace")
        base.require(self, base.POSITIVE, "cost_learning_rate", "cost_max_gradient_norm")
        base.require(self, base.COUNT, "cost_rounds", "cost_epochs", "cost_minibatches")
        base.require(self, base.SIZES, "cost_hidden")
        base.require(self, base.NONNEGATIVE, "critic_gradient_coefficient", "threshold_feedback")
        base.require(self, base.NONNEGATIVE, "warmup_epochs", "threshold_epochs")
        base.require(self, base.POSITIVE, "epoch_steps", "threshold_minimum", "episode_window")
        base.require(self, base.NONNEGATIVE, "feedback_proportional", "target_epochs")
        base.require(self, base.POSITIVE, "feedback_bound")
        base.require(self, ("1 or more", lambda x: x >= 1), "threshold_factor", "threshold_maximum")
        base.require(self, ("1 or more", lambda x: x >= 1), "target_factor")
        base.choose("cost_activation", self.cost_activation, ACTIVATIONS)
        for name, table in CHOICES.items():
            base.choose(name, getattr(self, name), table)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(base.FirstOrder, Modulation):
    """PPO's, and SMPO's choices."""


class Aux(NamedTuple):
    """What SMPO carries from one iteration to the next, besides networks."""

    window: episodes.Window  # J_c, the measured episode cost
    threshold_offset: Float[Array, ""]  # what feedback has added to the schedule


class Samples(NamedTuple):
    """Samples for the policy, and what the gradient through Q^c needs; leaves `[B, ...]`."""

    batch: recipes.Batch
    price: Float[Array, " B"]  # of a unit of Q^c, in the units of the batch's advantage
    cost_value: Float[Array, " B"]  # Q^c(s, a)


# What the policy pays besides, from its output.
PolicyTerm = Callable[[DiagonalGaussian, Samples], Float[Array, ""]]


class Improvement(NamedTuple):
    """How policy and V learn from what has been modulated.

    Attributes:
        init: a key -> the learner, but for what is SMPO's own.
        improve: from a learner and its samples to the next; with what the policy pays besides.
    """

    init: Callable[[Key], LearnerState]
    improve: Callable[[LearnerState, Samples, PolicyTerm | None, Key], tuple[LearnerState, Metrics]]


def make(spec: Spec, hyperparameters: Hyperparameters) -> Algorithm:
    """SMPO for a problem, with PPO's passes."""
    ac = recipes.actor_critic(spec, hyperparameters)

    def improve(learner, samples, policy_term, key):
        objective = recipes.clipped_objective(ac, policy_term=policy_term, batch_of=_batch_of)
        loss = recipes.actor_critic_loss(ac, objective, batch_of=_batch_of)
        return recipes.fit(ac, loss, learner, samples, key, batch_of=_batch_of)

    return modulated(ac, hyperparameters, Improvement(ac.init, improve))


def modulated(ac: recipes.ActorCritic, settings: Modulation, how: Improvement) -> Algorithm:
    """SMPO, whatever improves policy and V."""
    spec = ac.spec
    critic = make_critic(spec, settings)
    modulate = MODULATES[settings.modulates]
    term = CRITIC_GRADIENT[settings.critic_gradient]

    def init(key: Key) -> LearnerState:
        learner = how.init(key)
        params = critic.network.init(jax.random.fold_in(key, 1))
        opt_state = critic.optimiser.init({"cost_value": params})
        return learner.replace(
            params={**learner.params, "cost_value": params},
            opt_state={**learner.opt_state, "cost_value": opt_state},
            aux=Aux(episodes.empty_window(), jnp.zeros(())),
        )

    def update(learner: LearnerState, rollout: Rollout, key: Key) -> tuple[LearnerState, Metrics]:
        transition = rollout.transition
        estimates = recipes.estimate(ac, learner, transition)
        predict = critic.predict(learner.params["cost_value"])
        cost_value = predict(estimates.obs, transition.action)
        next_dist = ac.policy.apply(learner.params["policy"], estimates.next_obs)

        epoch = learner.iteration * (spec.num_envs * spec.rollout_length / settings.epoch_steps)
        aux, threshold = tighten(settings, spec, learner.aux, rollout, epoch)
        weight, price = weigh(settings, spec, rollout, cost_value, aux.window.cost, threshold)
        is_warmed_up = epoch >= settings.warmup_epochs
        weight = jnp.where(is_warmed_up, weight, 1.0)
        price = jnp.where(is_warmed_up, price, 0.0)

        reward = modulate.reward(transition.reward, weight, shift_of(settings, transition))
        advantage, target = recipes.advantages(ac, reward, transition, estimates)
        if settings.critic_gradient_standardised:
            price /= jnp.std(advantage) + 1e-8
        price *= settings.critic_gradient_coefficient
        advantage = modulate.advantage(surrogate.standardise(advantage), weight)
        if settings.critic_gradient == "advantage":
            dear = safety_critic.advantage(critic, predict, transition, estimates, next_dist)
            # Below 0, where the steps before went the wrong way, the price would reward cost.
            advantage -= jnp.maximum(price, 0.0) * surrogate.centre(dear)
        samples = Samples(
            recipes.to_batch(transition, estimates, advantage, value=target),
            *optimise.flatten((price, cost_value)),
        )
        policy_term = None if term is None else lambda dist, s: term(predict, dist, s)
        strength = _gradient_norm(ac, policy_term, learner, samples)
        metrics = safety_critic.calibration(
            cost_value,
            predict(estimates.next_obs, next_dist.mean),
            transition,
            discount=settings.cost_discount,
        )
        learner, fitted = how.improve(learner, samples, policy_term, key)
        learner, cost_fitted = _fit_critic(
            ac, critic, settings, learner, transition, estimates, jax.random.fold_in(key, 1)
        )
        return recipes.advance(ac, learner.replace(aux=aux), transition), {
            **fitted,
            **cost_fitted,
            **metrics,
            "value/explained_variance": recipes.explained_variance(estimates.value, target),
            "smpo/weight": jnp.mean(weight),
            "smpo/negative_share": jnp.mean(jnp.asarray(weight < 0, weight.dtype)),
            "smpo/threshold": threshold,
            "smpo/cost_return": aux.window.cost,
            "smpo/spent": jnp.mean(rollout.cost_so_far),
            "smpo/price": jnp.mean(price),
            "smpo/critic_gradient_norm": strength,
        }

    return Algorithm(init, ac.acting, update, _cost_critic(ac, critic))


def _cost_critic(ac: recipes.ActorCritic, critic: safety_critic.SafetyCritic) -> CostCritic:
    """Q^c as a prediction of the costs to come, what the penalty takes from it given back."""

    def predict(learner, obs, action):
        q = critic.predict(learner.params["cost_value"])(ac.normalise(learner, obs), action)
        settings = critic.settings
        return q * modulation.shrinkage(settings.discount, settings.trace, settings.regularisation)

    return CostCritic(critic.settings.discount, predict)


def make_critic(spec: Spec, settings: Modulation) -> safety_critic.SafetyCritic:
    """The safety critic; a learner keeps its parameters as `cost_value`."""
    base.require_divisible(spec, settings.cost_minibatches, "cost_minibatches")
    learning = safety_critic.Settings(
        discount=settings.cost_discount,
        trace=settings.cost_trace,
        regularisation=settings.cost_regularisation,
        samples=settings.cost_samples,
        rounds=settings.cost_rounds,
        epochs=settings.cost_epochs,
        minibatches=settings.cost_minibatches,
    )
    return safety_critic.make(
        spec,
        learning,
        hidden=settings.cost_hidden,
        activation=settings.cost_activation,
        max_gradient_norm=settings.cost_max_gradient_norm,
    )


def tighten(
    settings: Modulation, spec: Spec, aux: Aux, rollout: Rollout, epoch: Float[Array, ""]
) -> tuple[Aux, Float[Array, ""]]:
    """The threshold d' of this iteration: the schedule's, moved by the cost measured since."""
    window = episodes.remember(aux.window, rollout.episodes, size=settings.episode_window)
    scheduled = modulation.scheduled_threshold(
        spec.cost_limit,
        epoch,
        factor=settings.threshold_factor,
        epochs=settings.threshold_epochs,
    )
    target = modulation.scheduled_threshold(
        spec.cost_limit, epoch, factor=settings.target_factor, epochs=settings.target_epochs
    )
    is_measured = (epoch >= settings.warmup_epochs) & (window.count > 0)
    bound = settings.feedback_bound * jnp.maximum(spec.cost_limit, settings.threshold_minimum)
    slack = modulation.slack(target, window.cost, bound=bound)
    slack = jnp.where(is_measured, slack, 0.0)
    epochs = spec.num_envs * spec.rollout_length / settings.epoch_steps
    offset = aux.threshold_offset + settings.threshold_feedback * epochs * slack
    largest = jnp.maximum(settings.threshold_maximum * spec.cost_limit, settings.threshold_minimum)

    def bounded(threshold: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.clip(threshold, settings.threshold_minimum, largest)

    threshold = bounded(scheduled + offset)
    # The offset is what was used, not what was asked for: at a bound it must not wind up. Without
    # a limit there is nothing to be off from.
    used = jnp.where(jnp.isfinite(scheduled), threshold - scheduled, 0.0)
    offset = jnp.where(is_measured, used, aux.threshold_offset)
    return Aux(window, offset), bounded(threshold + settings.feedback_proportional * slack)


def weigh(
    settings: Modulation,
    spec: Spec,
    rollout: Rollout,
    cost_value: Steps,
    mean_cost: Float[Array, ""],
    threshold: Float[Array, ""],
) -> tuple[Steps, Steps]:
    """(f, price of a unit of Q^c(s_t, a_t) in reward) of every step."""
    transition = rollout.transition
    per_step = modulation.cost_per_step(
        settings.cost_discount, settings.cost_trace, settings.cost_regularisation
    )
    scale = PREDICTION_SCALE[settings.prediction_scale](
        per_step, rollout.elapsed, spec.episode_length
    )
    predicted = jnp.clip(scale * cost_value, 0.0, settings.prediction_clip * threshold)
    spent = SPENT[settings.spent](rollout, mean_cost, spec)
    weight = modulation.cost_aware_weight(
        spent + predicted - threshold,
        threshold,
        base=settings.weight_base,
        temperature=settings.weight_temperature,
        floor=settings.weight_floor,
    )
    # The clip on the prediction guards f; like f's floor it does not make further cost free.
    at_stake = AT_STAKE[settings.critic_gradient_reward](
        transition.reward + shift_of(settings, transition), transition, settings.discount
    )
    price = modulation.price(
        -weight.slope * scale * at_stake,
        rollout.elapsed,
        transition.terminated,
        transition.truncated,
        discount=settings.cost_discount,
        trace=settings.critic_gradient_trace,
    )
    return weight.value, price


def shift_of(settings: Modulation, transition: Transition) -> Steps:
    """What is added to a reward before f multiplies it, and taken off again after."""
    return SHIFT[settings.shift](transition, settings.shift_amount)


def reparameterised(
    predict: safety_critic.Predict, dist: DiagonalGaussian, samples: Samples
) -> Float[Array, ""]:
    """Price times Q^c(s, a_θ), to be minimised: the action moves with the policy, not its noise."""
    batch = samples.batch
    noise = (batch.action - batch.dist.mean) * jnp.exp(-batch.dist.log_std)
    action = dist.mean + jnp.exp(dist.log_std) * noise
    return jnp.mean(samples.price * predict(batch.obs, action))


def score(
    predict: safety_critic.Predict, dist: DiagonalGaussian, samples: Samples
) -> Float[Array, ""]:
    """Price times Q^c(s, a) π_θ(a|s) / π(a|s), to be minimised.

    Its gradient is that of the paper's W Q^c log π_θ where the policies agree, and right beyond.
    """
    del predict
    batch = samples.batch
    ratio = surrogate.ratio(distributions.log_prob(dist, batch.action), batch.log_prob)
    return jnp.mean(samples.price * samples.cost_value * ratio)


class Modulate(NamedTuple):
    """What f multiplies."""

    reward: Callable[[Steps, Steps, Steps], Steps]  # (r, f, shift) -> M(r)
    advantage: Callable[[Steps, Steps], Steps]  # (standardised A, f) -> A'


# The choices by name. f (r + shift) − shift is written so that f = 1 leaves r exactly.
MODULATES = {
    "reward": Modulate(lambda r, f, shift: r + (f - 1.0) * (r + shift), lambda a, f: a),
    "advantage": Modulate(lambda r, f, shift: r, lambda a, f: f * a),
}
SHIFT = {
    "constant": lambda transition, amount: jnp.full_like(transition.reward, amount),
    "minimum": lambda transition, amount: jnp.maximum(
        -modulation.running_minimum(
            transition.reward, episodes.ends(transition.terminated, transition.truncated)
        ),
        0.0,
    ),
}
SPENT = {
    "episode": lambda rollout, mean_cost, spec: rollout.cost_so_far,
    "expected": lambda rollout, mean_cost, spec: mean_cost * rollout.elapsed / spec.episode_length,
    "none": lambda rollout, mean_cost, spec: jnp.zeros_like(rollout.cost_so_far),
}
PREDICTION_SCALE = {
    "none": lambda per_step, elapsed, length: jnp.ones_like(elapsed),
    "episode": lambda per_step, elapsed, length: jnp.full_like(elapsed, per_step * length),
    "remaining": lambda per_step, elapsed, length: per_step * (length - elapsed),
}
AT_STAKE = {
    "reward": lambda reward, transition, discount: reward,
    "reward-to-go": lambda reward, transition, discount: returns.to_go(
        reward, transition.terminated, transition.truncated, discount=discount
    ),
}
# What the policy pays besides its advantage; with `advantage` the price is part of that.
CRITIC_GRADIENT = {
    "reparameterised": reparameterised,
    "score": score,
    "advantage": None,
    "off": None,
}
CHOICES: dict[str, dict[str, Any]] = {
    "modulates": MODULATES,
    "shift": SHIFT,
    "spent": SPENT,
    "prediction_scale": PREDICTION_SCALE,
    "critic_gradient_reward": AT_STAKE,
    "critic_gradient": CRITIC_GRADIENT,
}


def _batch_of(samples: Samples) -> recipes.Batch:
    return samples.batch


def _fit_critic(
    ac: recipes.ActorCritic,
    critic: safety_critic.SafetyCritic,
    settings: Modulation,
    learner: LearnerState,
    transition: Transition,
    estimates: recipes.Estimates,
    key: Key,
) -> tuple[LearnerState, Metrics]:
    params, opt_state, metrics = safety_critic.fit(
        critic,
        learner.params["cost_value"],
        learner.opt_state["cost_value"],
        transition,
        estimates,
        ac.policy.apply(learner.params["policy"], estimates.next_obs),
        key,
        learning_rate=ac.decayed(settings.cost_learning_rate, learner),
    )
    return learner.replace(
        params={**learner.params, "cost_value": params},
        opt_state={**learner.opt_state, "cost_value": opt_state},
    ), metrics


def _gradient_norm(
    ac: recipes.ActorCritic,
    policy_term: PolicyTerm | None,
    learner: LearnerState,
    samples: Samples,
) -> Float[Array, ""]:
    """Of the term alone, before the update, on a minibatch's worth of samples."""
    if policy_term is None:
        return jnp.zeros(())
    some = jax.tree.map(lambda x: x[:: ac.settings.minibatches], samples)

    def loss(params):
        return policy_term(ac.policy.apply(params, some.batch.obs), some)

    return optimise.norm(jax.grad(loss)(learner.params["policy"]))
