"""The gradient of the objective through the safety critic (SMPO, eqs. 10-13).

f depends on the policy through Q^c, so that the policy gradient has a second term,

    E[ r_t ∂f/∂Q^c ∇_θ Q^c(s_t, a_t) ],
    ∇_θ Q^c(s_t, a_t) = γ Σ_a' ∇_θ π(a'|s_{t+1}) Q^c(s_{t+1}, a').

Here it is a price on Q^c (`price_of`), and a choice of how the policy feels it (`Form`).

Deviation: the gradient through Q^c is taken at (s_t, a_t), weighted by what the steps before t put
at stake, rather than at (s_{t+1}, a') weighted by step t. It is the same sum, written so that the
policy's output there is already at hand, and so that it can be carried on along the episode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from smpo_jax.algorithms.improvers import PolicyTerm
from smpo_jax.algorithms.recipes import ActorCritic, Batch
from smpo_jax.algorithms.smpo.critic import Predict, over_choices
from smpo_jax.core import constraints, surrogate
from smpo_jax.core.constraints import each
from smpo_jax.core.episodes import ends
from smpo_jax.types import Distribution, LearnerState, PerCost, Rollout, Scalar

Steps = Float[Array, "T N"]


def price_of(
    charge: Float[Array, "T N"],
    elapsed: Float[Array, "T N"],
    terminated: Float[Array, "T N"],
    truncated: Float[Array, "T N"],
    *,
    discount: Scalar,
    trace: Scalar,
    mean: surrogate.Mean = jnp.mean,
) -> Float[Array, "T N"]:
    """What a unit of Q^c(s_τ, a_τ) costs the objective, from the steps before τ (eqs. 10-13).

    Step t loses `charge`_t = −r_t df/dQ^c per unit of its Q^c(s_t, a_t), whose gradient is that of
    the costs to come: γ E ∇Q^c(s_{t+1}, ·) in the action chosen there, and so on along the episode.
    Gathered by the state whose action it is,

        W_{τ+1} = γ (charge_τ + trace W_τ) (1 − end_τ),

    `trace` = 0 being the paper's single step and 1 the gradient with no term cut off, which is up
    to 1 / (1 − γ) times larger. A rollout that begins within an episode starts from what the mean
    charge, as `mean` takes it, would have left after that many steps.
    """
    decay = discount * trace
    steady = jnp.where(
        decay < 1.0,
        (1.0 - decay ** elapsed[0]) / jnp.maximum(1.0 - decay, 1e-9),
        elapsed[0],
    )
    first = discount * jnp.broadcast_to(mean(charge), charge.shape)[0] * steady

    def step(w, inputs):
        charge_t, end_t = inputs
        return discount * (charge_t + trace * w) * (1.0 - end_t), w

    _, weights = jax.lax.scan(step, first, (charge, ends(terminated, truncated)))
    return weights


class Priced(NamedTuple):
    """What a term of the policy's loss needs of each sample: the `extra` of a batch."""

    price: Float[Array, " B"]  # of a unit of Q^c, in the units of the batch's advantage
    q: Float[Array, " B"]  # Q^c(s, a)


class Form(NamedTuple):
    """How the policy feels the price.

    Attributes:
        charge: `(advantage, price, cost advantage) -> advantage`.
        term: Q^c -> what is added to the policy's loss; None if nothing is.
    """

    charge: Callable[[Steps, Steps, Steps], Steps]
    term: Callable[[Predict], PolicyTerm] | None


class Gradient(NamedTuple):
    """The gradient through Q^c with its open choices made.

    Attributes:
        form: how the policy feels the price.
        coefficient: times the price.
        discount: of the safety critic.
        trace: 0 for one step, as in the paper; 1 for the whole recursion.
        standardised: whether the price is divided, like the advantage, by the latter's deviation.
    """

    form: Form
    coefficient: Scalar
    discount: Scalar
    trace: Scalar
    standardised: bool

    def price(
        self,
        charge: Steps,
        rollout: Rollout,
        advantage: Steps,
        mean: surrogate.Mean = jnp.mean,
    ) -> Steps:
        """Of a unit of Q^c(s_t, a_t), in the units of the advantage that the policy is paid."""
        t = rollout.transition
        found = price_of(
            charge,
            rollout.elapsed,
            t.terminated,
            t.truncated,
            discount=self.discount,
            trace=self.trace,
            mean=mean,
        )
        if self.standardised:
            found /= surrogate.deviation(advantage, mean) + 1e-8
        return found * self.coefficient

    def charge(self, advantage: Steps, price: PerCost, q: PerCost) -> Steps:
        """The advantage, less what is paid through it for each constraint."""
        for own, seen in constraints.zipped(price, q):
            advantage = self.form.charge(advantage, own, seen.advantage)
        return advantage

    def term(self, predict: PerCost) -> PolicyTerm | None:
        """What is paid beside the advantage, for the Q^c of all constraints."""
        if self.form.term is None:
            return None
        terms = each(self.form.term, predict)

        def total(dist: Distribution, batch: Batch) -> Float[Array, ""]:
            def of_cost(term: PolicyTerm, extra: Priced) -> Float[Array, ""]:
                return term(dist, batch._replace(extra=extra))

            return constraints.total(each(of_cost, terms, batch.extra))

        return total

    def extra(self, price: PerCost, q: PerCost) -> Any:
        """What the term needs of each step: a `Priced` for each constraint, or nothing."""
        if self.form.term is None:
            return ()
        return each(lambda price, q: Priced(price, q.value), price, q)


def keep(advantage: Steps, price: Steps, cost_advantage: Steps) -> Steps:
    """The advantage itself, where the price is paid beside it."""
    del price, cost_advantage
    return advantage


def pay(advantage: Steps, price: Steps, cost_advantage: Steps) -> Steps:
    """The advantage less the price times the centred cost advantage.

    Below 0, where the steps before went the wrong way, the price would reward cost.
    """
    return advantage - jnp.maximum(price, 0.0) * surrogate.centre(cost_advantage)


def reparameterised(predict: Predict) -> PolicyTerm:
    """Price times Q^c(s, a_θ), to be minimised: the action moves with the policy, not its noise.

    The distribution must be `types.Reparameterised`.
    """

    def term(dist: Any, batch: Batch) -> Float[Array, ""]:
        behaviour: Any = batch.dist
        action = dist.with_noise(behaviour.noise(batch.action))
        return jnp.mean(batch.extra.price * predict(batch.obs, action))

    return term


def summed(predict: Predict) -> PolicyTerm:
    """Price times Σ_a π_θ(a|s) Q^c(s, a) of discrete actions, to be minimised: eq. 11 as it is."""

    def term(dist: Distribution, batch: Batch) -> Float[Array, ""]:
        return jnp.mean(batch.extra.price * over_choices(predict, batch.obs, dist))

    return term


def score(predict: Predict) -> PolicyTerm:
    """Price times Q^c(s, a) π_θ(a|s) / π(a|s), to be minimised.

    Its gradient is that of the paper's W Q^c log π_θ where the policies agree, and right beyond.
    """
    del predict

    def term(dist: Distribution, batch: Batch) -> Float[Array, ""]:
        ratio = surrogate.ratio(dist.log_prob(batch.action), batch.log_prob)
        return jnp.mean(batch.extra.price * batch.extra.q * ratio)

    return term


SCORE = Form(keep, score)
REPARAMETERISED = Form(keep, reparameterised)
SUMMED = Form(keep, summed)
# By the policy gradient theorem E[∇log π(a|s) A^c] is the whole gradient of the cost to come, where
# ∇_a Q^c has that of one action only.
ON_ADVANTAGE = Form(pay, None)
OFF = Form(keep, None)


def norm(
    ac: ActorCritic, term: PolicyTerm | None, learner: LearnerState, batch: Batch
) -> Float[Array, ""]:
    """Of the term alone, before the update, on a minibatch's worth of samples."""
    if term is None:
        return jnp.zeros(())
    some = jax.tree.map(lambda x: x[:: ac.settings.minibatches], batch)

    def loss(params):
        return term(ac.policy.apply(params, some.obs), some)

    return optax.tree.norm(jax.grad(loss)(learner.params["policy"]))
