"""SMPO's choices: a record for each part, which builds it, and the presets with their reasons.

Names are flat, as in a YAML file or on the command line. Of the presets,

- `smpo` (`SMPO`) is the one that measured best: natural steps, a price on measured cost;
- `smpo-limits` (`SMPOLimits`) is that for several limits, which one policy learns to keep;
- `smpo-ppo` (`SMPOPPO`) is the same modulation with the paper's clipped passes;
- `smpo-paper` (`SMPOPaper`) reads the paper as literally as it can be read;
- `smpo-code` (`SMPOCode`) makes the choices of the author's published code;
- `smpo-earlier` (`SMPOEarlier`) has the weight of the author's earlier published experiments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_jax.algorithms import base
from smpo_jax.algorithms.constrained import COST_VALUE
from smpo_jax.algorithms.improvers import FirstOrder, TrustRegion
from smpo_jax.algorithms.recipes import ActorCritic, on_pictures
from smpo_jax.algorithms.smpo import critic, gradient, levels, threshold, weight
from smpo_jax.core import optimise
from smpo_jax.networks import ACTIVATIONS, DEFAULT, Networks, nonnegative_action_value
from smpo_jax.ranges import LARGE
from smpo_jax.types import Scalar, Spec

# Below, float32 has no number between it and 1.
MORE_THAN_ONE = ("more than 1 and finite, as float32", lambda x: 1 + 1e-6 <= x <= LARGE)
LESS_THAN_ONE = ("less than 1 and finite, as float32", lambda x: -LARGE <= x < 1)

LIMITS = (
    "one or more different numbers, each 0 or more and finite",
    lambda x: len(x) == len(set(x)) > 0 and all(0 <= limit <= LARGE for limit in x),
)

# The choices by name.
WEIGHT = {"budget": weight.cost_aware_weight, "twice-budget": weight.twice_budget_weight}
SPENT = {
    "episode": weight.episode_cost,
    "capped": weight.capped_cost,
    "none": weight.nothing,
}
MODULATES = {
    "reward": (weight.modulated_reward, weight.unchanged),
    "advantage": (weight.shifted_reward, weight.modulated_advantage),
}
# Built from how Q^c learns and the episode's length, from the constant, from the discount.
PREDICTION_SCALE = {
    "none": lambda learning, length: 1.0,
    "episode": lambda learning, length: critic.cost_per_step(learning) * length,
}
SHIFT = {
    "constant": weight.constant_shift,
    "minimum": lambda amount: weight.running_minimum_shift,
}
AT_STAKE = {
    "reward": lambda discount: weight.reward_of_step,
    "reward-to-go": weight.reward_to_go,
}
FORMS = {
    "reparameterised": gradient.REPARAMETERISED,
    "score": gradient.SCORE,
    "advantage": gradient.ON_ADVANTAGE,
    "off": gradient.OFF,
}
# A choice has no noise to hold on to; what can be had of it instead is the sum over all of them.
FORMS_OF_CHOICES = FORMS | {"reparameterised": gradient.SUMMED}


@dataclass(frozen=True, kw_only=True)
class CriticSettings(base.Settings):
    """The safety critic, eqs. 1-3."""

    cost_discount: float = 0.99  # of the safety critic
    cost_regularisation: float = 0.1  # lambda, times mean Q^c squared
    cost_samples: int = 0  # K actions for the expectation in the target; 0: mode, or all choices
    cost_trace: float = 0.0  # lambda of the return in the target; 0 is one-step expected SARSA
    cost_learning_rate: float = 3e-4  # Adam's; decays as the policy's does
    cost_rounds: int = 1  # times that targets are computed per iteration
    cost_epochs: int = 5  # passes on each set of targets
    cost_minibatches: int = 16  # gradient steps per pass; must divide num_envs * rollout_length
    cost_max_gradient_norm: float = 1.0  # of the safety critic
    cost_hidden: tuple[int, ...] = (64, 64)  # units of its hidden layers
    cost_activation: Literal["tanh", "relu", "silu"] = "relu"  # of its hidden layers

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "cost_regularisation", "cost_samples")
        base.require(self, base.FRACTION, "cost_discount", "cost_trace")
        base.require(self, base.POSITIVE, "cost_learning_rate", "cost_max_gradient_norm")
        base.require(self, base.COUNT, "cost_rounds", "cost_epochs", "cost_minibatches")
        base.require(self, base.SIZES, "cost_hidden")
        base.choose("cost_activation", self.cost_activation, ACTIVATIONS)
        super().__post_init__()

    def critic(
        self, ac: ActorCritic, networks: Networks = DEFAULT, entry: str = COST_VALUE
    ) -> critic.SafetyCritic:
        """Q^c for the policy of an actor-critic; `entry` is its name in the learner.

        Raises:
            ValueError: a rollout cannot be cut in `cost_minibatches` equal parts; or observations
                are pictures and the network is not given.
        """
        spec = ac.spec
        base.require_divisible(spec, self.cost_minibatches, "cost_minibatches")
        learning = critic.Learning(
            discount=self.cost_discount,
            trace=self.cost_trace,
            regularisation=self.cost_regularisation,
            samples=self.cost_samples,
            rounds=self.cost_rounds,
            epochs=self.cost_epochs,
            minibatches=self.cost_minibatches,
            learning_rate=self.cost_learning_rate,
            average=critic.over_choices if spec.discrete else critic.at_mode,
        )
        networks = on_pictures(spec, networks, "action_value")
        network = networks.action_value or nonnegative_action_value(
            spec.observation_size,
            spec.action_size,
            hidden=self.cost_hidden,
            activation=ACTIVATIONS[self.cost_activation],
        )
        return critic.SafetyCritic(
            ac, learning, network, optimise.adam(self.cost_max_gradient_norm), entry
        )


@dataclass(frozen=True, kw_only=True)
class WeightSettings(base.Settings):
    """The weight f(x), x = spent + clip(predicted, 0, prediction_clip * d') - d', eqs. 5-6."""

    weight_form: Literal["budget", "twice-budget"] = "budget"  # f is 0 at d', or at 2 d'
    weight_base: float = 3.0  # b: larger is steeper
    weight_temperature: float = 1.0  # divides x; b^(1/temperature) is the base in effect
    weight_floor: float = -5.0  # f is never below; 0 forbids negative weights
    prediction_clip: float = 1.0  # bound on the predicted cost, in multiples of d'
    spent: Literal["episode", "capped", "none"] = "episode"  # C_t: the episode's cost, or 0
    prediction_scale: Literal["none", "episode"] = "none"  # of Q^c: as it is, or to an episode
    modulates: Literal["reward", "advantage"] = "reward"  # or the standardised advantage
    shift: Literal["constant", "minimum"] = "constant"  # of rewards, so that none is negative
    shift_amount: float = 0.0  # the constant

    def __post_init__(self):
        base.require(self, MORE_THAN_ONE, "weight_base")
        base.require(self, LESS_THAN_ONE, "weight_floor")
        base.require(self, base.POSITIVE, "weight_temperature", "prediction_clip")
        base.require(self, base.NONNEGATIVE, "shift_amount")
        base.choose("weight_form", self.weight_form, WEIGHT)
        base.choose("spent", self.spent, SPENT)
        base.choose("prediction_scale", self.prediction_scale, PREDICTION_SCALE)
        base.choose("modulates", self.modulates, MODULATES)
        base.choose("shift", self.shift, SHIFT)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class GradientSettings(base.Settings):
    """The gradient through the safety critic, eqs. 10-13."""

    critic_gradient: Literal["reparameterised", "score", "advantage", "off"] = "score"  # its form
    critic_gradient_coefficient: float = 1.0  # times its loss
    critic_gradient_reward: Literal["reward", "reward-to-go"] = "reward"  # what is at stake
    critic_gradient_trace: float = 0.0  # 0: one step, as in the paper; 1: the whole recursion
    critic_gradient_standardised: bool = False  # divided, like the advantage, by the latter's std

    def __post_init__(self):
        base.choose("critic_gradient", self.critic_gradient, FORMS)
        base.choose("critic_gradient_reward", self.critic_gradient_reward, AT_STAKE)
        base.require(self, base.NONNEGATIVE, "critic_gradient_coefficient")
        base.require(self, base.FRACTION, "critic_gradient_trace")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings(base.Settings):
    """The threshold d', section 4.5. An epoch is `epoch_steps` environment steps, as there."""

    epoch_steps: float = 20_000.0  # environment steps in an epoch
    warmup_epochs: float = 5.0  # of plain PPO or TRPO, while the safety critic learns
    threshold_factor: float = 2.0  # eta: the first threshold in multiples of the limit
    threshold_epochs: float = 50.0  # e_max: epochs until the threshold is the limit
    threshold_feedback: float = 0.0  # d' += this * (target - J_c) per epoch, beside the schedule
    feedback_proportional: float = 0.0  # d' also has this times (target - J_c), not summed up
    feedback_bound: float = 1e6  # on |target - J_c|, in multiples of the limit
    target_factor: float = 1.0  # the first target in multiples of the limit
    target_epochs: float = 0.0  # epochs until the target is the limit
    threshold_minimum: float = 1.0  # d' is never below (cost per episode)
    threshold_maximum: float = 4.0  # nor above, in multiples of the limit
    episode_window: float = 100.0  # episodes that J_c is a mean of

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "warmup_epochs", "threshold_epochs", "target_epochs")
        base.require(self, base.NONNEGATIVE, "threshold_feedback", "feedback_proportional")
        base.require(self, base.POSITIVE, "epoch_steps", "threshold_minimum", "episode_window")
        base.require(self, base.POSITIVE, "feedback_bound")
        base.require(
            self, base.AT_LEAST_ONE, "threshold_factor", "threshold_maximum", "target_factor"
        )
        super().__post_init__()

    def epoch(self, spec: Spec, iteration: Int[Array, ""]) -> Float[Array, ""]:
        """How many epochs have passed before an iteration."""
        return iteration * self.epochs_per_iteration(spec)

    def epochs_per_iteration(self, spec: Spec) -> Scalar:
        """How long an iteration is."""
        return spec.num_envs * spec.rollout_length / self.epoch_steps

    def threshold(self, spec: Spec) -> threshold.Threshold:
        """The paper's schedule, or one steered on the measured cost if there is any feedback.

        For a spec with one limit.
        """
        within = threshold.Range(
            limit=spec.cost_limit,
            minimum=self.threshold_minimum,
            maximum=self.threshold_maximum,
            window=self.episode_window,
        )
        fall = threshold.Fall(self.threshold_factor, self.threshold_epochs)
        if _is_zero(self.threshold_feedback) and _is_zero(self.feedback_proportional):
            return threshold.scheduled(within, fall)
        feedback = threshold.Feedback(
            target=threshold.Fall(self.target_factor, self.target_epochs),
            integral=self.threshold_feedback,
            proportional=self.feedback_proportional,
            bound=self.feedback_bound,
            start=self.warmup_epochs,
            epochs_per_update=self.epochs_per_iteration(spec),
        )
        return threshold.steered(within, fall, feedback)


@dataclass(frozen=True, kw_only=True)
class Choices(
    CriticSettings, WeightSettings, GradientSettings, ThresholdSettings, base.ActorCriticSettings
):
    """All of SMPO's choices; the defaults read the paper literally."""

    def modulation(self, spec: Spec, learning: critic.Learning) -> weight.Modulation:
        """Definition 1 as these settings read it; Q^c is scaled by how it learns."""
        reward, advantage = MODULATES[self.modulates]
        return weight.Modulation(
            f=partial(
                WEIGHT[self.weight_form],
                base=self.weight_base,
                temperature=self.weight_temperature,
                floor=self.weight_floor,
            ),
            spent=SPENT[self.spent],
            scale=PREDICTION_SCALE[self.prediction_scale](learning, spec.episode_length),
            prediction_clip=self.prediction_clip,
            shift=SHIFT[self.shift](self.shift_amount),
            reward=reward,
            advantage=advantage,
            at_stake=AT_STAKE[self.critic_gradient_reward](self.discount),
        )

    def gradient(self, *, discrete: bool = False) -> gradient.Gradient:
        """The gradient through Q^c as these settings read it, for discrete actions or others."""
        forms = FORMS_OF_CHOICES if discrete else FORMS
        return gradient.Gradient(
            form=forms[self.critic_gradient],
            coefficient=self.critic_gradient_coefficient,
            discount=self.cost_discount,
            trace=self.critic_gradient_trace,
            standardised=self.critic_gradient_standardised,
        )

    def make_levels(self, spec: Spec, limit: Scalar) -> levels.Levels:
        """Which limits the episodes of training are under: all under the same one."""
        del spec
        return levels.one(limit)

    def is_counted(self, spec: Spec) -> Callable[..., Any] | None:
        """Which episodes of training are reported: all."""
        del spec
        return None


# The presets. The improver comes first: of the settings that both have, its defaults hold.


@dataclass(frozen=True, kw_only=True)
class SMPOPaper(FirstOrder, Choices):
    """The paper as literally as it can be read: the defaults of every part, with PPO's passes."""


@dataclass(frozen=True, kw_only=True)
class SMPOCode(FirstOrder, Choices):
    """The choices of the first author's published PyTorch code, where they differ from the paper.

    Not known from it, and left as in the paper: how steep the schedule is, learning rates.
    """

    weight_base: float = 4.0  # b: larger is steeper
    # Rewards are lifted by the least of the episode so far, then f multiplies the advantage.
    shift: Literal["constant", "minimum"] = "minimum"  # of rewards, so that none is negative
    modulates: Literal["reward", "advantage"] = "advantage"  # what f multiplies
    cost_samples: int = 1  # one action drawn for the expectation in the target
    cost_hidden: tuple[int, ...] = (256, 256)  # units of its hidden layers
    # -0.1 mean W log pi(a'|s), W = reward-to-go times Q^c times df/dQ^c.
    critic_gradient_reward: Literal["reward", "reward-to-go"] = "reward-to-go"  # what is at stake
    critic_gradient_coefficient: float = 0.1  # times its loss


@dataclass(frozen=True, kw_only=True)
class SMPOEarlier(FirstOrder, Choices):
    """r (1 − e^(min(V_c, d) + min(C_t, d) − 2 d)): the author's earlier published experiments.

    Those were in OpenAI's Safety Gym, with 30 000 steps an epoch, networks of 256 x 256 and a
    target divergence of 0.01. Not known from them, and chosen here: no warm-up, and a critic
    without the penalty of eq. 3.

    Deviation: they forecast with V_c(s), here Q^c(s, a) does, as in all variants of SMPO.
    """

    weight_form: Literal["budget", "twice-budget"] = "twice-budget"  # f is 0 at 2 d'
    weight_base: float = math.e  # b: larger is steeper
    spent: Literal["episode", "capped", "none"] = "capped"  # C_t: the episode's cost, or 0
    # V_c knows no action, so that nothing flows through it; and d' is d from the start.
    critic_gradient: Literal["reparameterised", "score", "advantage", "off"] = "off"  # its form
    threshold_factor: float = 1.0  # eta: the first threshold in multiples of the limit
    warmup_epochs: float = 0.0  # of plain PPO, while the safety critic learns
    epoch_steps: float = 30_000.0  # environment steps in an epoch
    cost_regularisation: float = 0.0  # lambda, times mean Q^c squared
    cost_hidden: tuple[int, ...] = (256, 256)  # units of its hidden layers
    hidden: tuple[int, ...] = (256, 256)  # units of each network's hidden layers
    target_kl: float = 0.01  # bound on KL(old || new), the mean of the rollout, of an update


@dataclass(frozen=True, kw_only=True)
class Ours(Choices):
    """What our two presets share: all four parts of the paper, made to learn."""

    # Nearly linear: a steep weight is a step that says nothing on the way, and a unit of
    # cost has much the same price wherever it is.
    weight_base: float = math.e  # b: larger is steeper
    weight_temperature: float = 100.0  # divides x
    # Wide: where these bind, a lower threshold only makes more states equally bad.
    weight_floor: float = -20.0  # f is never below
    prediction_clip: float = 20.0  # bound on the predicted cost, in multiples of d'
    # The episode's own C_t is not in the observation, and past the budget can only punish.
    spent: Literal["episode", "capped", "none"] = "none"  # C_t: the episode's cost, or 0
    prediction_scale: Literal["none", "episode"] = "episode"  # of Q^c: as it is, or to an episode
    # Rewards below zero times f < 0 would be gains.
    shift_amount: float = 0.03  # added to rewards
    # Looks twenty steps ahead, which also undoes most of the penalty's shrinkage.
    cost_trace: float = 0.95  # lambda of the return in the target
    cost_rounds: int = 4  # times that targets are computed per iteration
    cost_epochs: int = 1  # passes on each set of targets
    cost_max_gradient_norm: float = 40.0  # of the safety critic
    cost_activation: Literal["tanh", "relu", "silu"] = "tanh"  # of its hidden layers
    # A coefficient then means the same whatever the rewards' scale.
    critic_gradient_standardised: bool = True  # divided by the standard deviation of advantages


@dataclass(frozen=True, kw_only=True)
class SMPO(TrustRegion, Ours):
    """The flagship: natural steps, a price on measured cost, a threshold that is steered.

    Deviation: the paper has PPO's clipped surrogate. Where that moves the policy by a divergence of
    0.002 to 0.005 an iteration, the natural gradient makes use of all it is allowed, which learns
    twice as fast at first.
    """

    # Large steps to learn to move, smaller ones to settle.
    target_kl: float = 0.02  # bound on KL(old || new), the mean of the rollout, of the step
    target_kl_decay: float = 0.4  # it falls geometrically to this times target_kl over the run
    # The whole recursion, as a price on the cost that was measured: each unit is paid for where it
    # falls due, and f, which pays for forecasts, can stay near 1. The coefficient decides how the
    # two share the work.
    critic_gradient: Literal["reparameterised", "score", "advantage", "off"] = (
        "advantage"  # its form
    )
    critic_gradient_trace: float = 1.0  # the whole recursion
    critic_gradient_coefficient: float = 0.4  # times its loss
    # d' itself only follows the measured cost; what falls from 2 d to d, as the paper's threshold
    # does, is the cost that it is steered to.
    threshold_factor: float = 8.0  # the first threshold in multiples of the limit
    threshold_epochs: float = 1e9  # epochs until the threshold is the limit
    threshold_maximum: float = 12.0  # d' is never above, in multiples of the limit
    threshold_feedback: float = 0.12  # d' += this * (target - J_c) per epoch
    feedback_proportional: float = 1.0  # d' also has this times (target - J_c), not summed up
    feedback_bound: float = 0.5  # on |target - J_c|, in multiples of the limit
    target_factor: float = 2.0  # the first target in multiples of the limit
    target_epochs: float = 150.0  # epochs until the target is the limit


@dataclass(frozen=True, kw_only=True)
class SMPOLimits(SMPO):
    """`smpo` for several limits at once: the policy is told which one holds, and learns all.

    Each episode of training is under the run's `cost_limit` or one of `other_limits`, drawn when it
    begins; those under `cost_limit` are reported. Afterwards the policy takes any limit in between.
    """

    other_limits: tuple[float, ...] = (10.0, 50.0)  # that it learns to keep besides cost_limit
    # A third of the episodes are of each limit: J_c is as recent as with one.
    episode_window: float = 33.0  # episodes of each limit that J_c is a mean of

    def __post_init__(self):
        if isinstance(self.other_limits, list | np.ndarray | jax.Array):
            plain = tuple(np.asarray(self.other_limits, float).tolist())
            object.__setattr__(self, "other_limits", plain)
        base.require(self, LIMITS, "other_limits")
        super().__post_init__()

    def make_levels(self, spec: Spec, limit: Scalar) -> levels.Levels:
        """Each episode under the limit that its observations end with."""
        return levels.several(levels.known_limits(self, limit), spec.episode_length)

    def is_counted(self, spec: Spec) -> Callable[..., Any]:
        """Which episodes of training are reported: those under the run's own limit."""
        return partial(levels.is_counted, cost_limit=spec.cost_limit)


@dataclass(frozen=True, kw_only=True)
class SMPOPPO(FirstOrder, Ours):
    """Our modulation with the paper's clipped passes; learns before it tightens."""

    # One step, as in the paper: with the whole recursion (trace 1) one trial did not learn.
    critic_gradient: Literal["reparameterised", "score", "advantage", "off"] = (
        "reparameterised"  # form
    )
    # From loose to tight so slowly that the feedback keeps up: down to the limit within 50
    # epochs, the policy stands still before it has learnt to move.
    threshold_factor: float = 8.0  # the first threshold in multiples of the limit
    threshold_epochs: float = 500.0  # epochs until the threshold is the limit
    # A fixed weight ends at whatever cost it ends at; this ends at the limit.
    threshold_feedback: float = 0.1  # d' += this * (target - J_c) per epoch
    threshold_maximum: float = 8.0  # d' is never above, in multiples of the limit


def _is_zero(value: Scalar) -> bool:
    """Whether a setting is 0, which a traced one is not known to be."""
    return not isinstance(value, jax.Array) and value == 0
