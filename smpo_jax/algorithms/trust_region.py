"""What methods have in common that take one natural-gradient step per iteration.

The counterpart of `recipes.fit`: the policy moves once, along F⁻¹ times a gradient over the whole
batch, as far as a divergence of `target_kl` allows; then the critics are fitted in minibatches.

Deviation: OmniSafe fits critics in 10 passes in minibatches of 128, and takes the Fisher matrix of
all samples. Here it is as many passes in minibatches as large as PPO's, and every fourth sample
(8 000 of 32 000): solving with all of them was nearly half of a CPO update.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, recipes
from smpo_jax.core import distributions, optimise, surrogate, trust_region
from smpo_jax.core.trust_region import Search, Trial, Vector
from smpo_jax.types import DiagonalGaussian, Key, LearnerState, Metrics, Params, Scalar

PolicyTerm = Callable[[DiagonalGaussian], Float[Array, ""]]
CRITICS = "critics"  # the entry of `opt_state` that is for all critics


class LocalModel(NamedTuple):
    """The policy about its present parameters, on one batch."""

    batch: recipes.Batch
    target_kl: Scalar  # how far the policy may move in this iteration
    params: Vector
    unravel: Callable[[Vector], Params]
    apply: Callable[[Vector], DiagonalGaussian]  # on the batch's observations
    fisher: trust_region.Product  # v -> F v
    solve: trust_region.Product  # v -> F⁻¹ v

    def gradient(self, advantage: Float[Array, " B"]) -> Vector:
        """Of the mean of ratio times advantage."""

        def objective(params: Vector) -> Float[Array, ""]:
            return jnp.mean(self.ratio(self.apply(params)) * advantage)

        return jax.grad(objective)(self.params)

    def ratio(self, dist: DiagonalGaussian) -> Float[Array, " B"]:
        """Of a policy's probabilities to those of the one that acted."""
        log_prob = distributions.log_prob(dist, self.batch.action)
        return surrogate.ratio(log_prob, self.batch.log_prob)


def init(ac: recipes.ActorCritic, key: Key) -> LearnerState:
    """The learner before its first update; only critics have an optimiser."""
    return ac.with_optimiser(ac.init(key).replace(opt_state={}), CRITICS, ac.critics)


def local_model(
    ac: recipes.ActorCritic,
    settings: base.TrustRegion,
    learner: LearnerState,
    batch: recipes.Batch,
) -> LocalModel:
    """The policy of a learner, and how to solve with its Fisher matrix on every nth state."""
    params, unravel = ravel_pytree(learner.params["policy"])

    def policy(obs: Float[Array, "B O"]) -> Callable[[Vector], DiagonalGaussian]:
        return lambda flat: ac.policy.apply(unravel(flat), obs)

    fisher = trust_region.fisher_product(
        policy(batch.obs[:: settings.fisher_stride]), params, damping=settings.fisher_damping
    )

    def solve(v: Vector) -> Vector:
        return trust_region.conjugate_gradients(fisher, v, iterations=settings.solver_iterations)

    progress = jnp.clip(learner.iteration / ac.spec.total_iterations, 0.0, 1.0)
    target_kl = settings.target_kl * settings.target_kl_decay**progress
    return LocalModel(batch, target_kl, params, unravel, policy(batch.obs), fisher, solve)


def ascend(
    ac: recipes.ActorCritic,
    settings: base.TrustRegion,
    learner: LearnerState,
    batch: recipes.Batch,
    *,
    policy_term: PolicyTerm | None = None,
) -> tuple[LearnerState, Metrics]:
    """One step of the policy along the natural gradient of the batch's advantage.

    `policy_term` is what the policy pays besides, from its output on the batch: its gradient is
    taken off, and the line search looks at the advantage alone.
    """
    model = local_model(ac, settings, learner, batch)
    gradient = model.gradient(batch.advantage)
    if policy_term is not None:
        gradient -= jax.grad(lambda params: policy_term(model.apply(params)))(model.params)
    direction = model.solve(gradient)
    length = trust_region.natural_length(gradient @ direction, target_kl=model.target_kl)
    learner, metrics = take(settings, model, learner, length * direction)
    return learner, {**metrics, "policy/gradient_norm": optimise.norm(gradient)}


def take(
    settings: base.TrustRegion,
    model: LocalModel,
    learner: LearnerState,
    step: Vector,
    *,
    cost_advantage: Float[Array, " B"] | None = None,
    least_gain: Scalar = 0.0,
    most_cost: Scalar = jnp.inf,
) -> tuple[LearnerState, Metrics]:
    """The learner after as much of the policy's step as keeps the bounds (see `line_search`).

    Without `settings.line_search` it is all of it, whatever comes of it.
    """
    batch = model.batch

    def evaluate(params: Vector) -> Trial:
        dist = model.apply(params)
        change = model.ratio(dist) - 1.0
        return Trial(
            kl=jnp.mean(distributions.kl(batch.dist, dist)),
            gain=jnp.mean(change * batch.advantage),
            cost_change=jnp.mean(change * (0.0 if cost_advantage is None else cost_advantage)),
        )

    if settings.line_search:
        found = trust_region.line_search(
            model.params,
            step,
            evaluate,
            target_kl=model.target_kl,
            least_gain=least_gain,
            most_cost=most_cost,
            decay=settings.backtrack_decay,
            tries=settings.backtracks,
        )
    else:
        params = model.params + step
        found = Search(params, jnp.ones_like(params[0]), evaluate(params))

    policy = model.unravel(found.params)
    log_std = policy["log_std"]
    return learner.replace(params={**learner.params, "policy": policy}), {
        "policy/kl": found.trial.kl,
        "policy/surrogate": found.trial.gain,
        "policy/step_fraction": found.fraction,
        "policy/entropy": distributions.entropy(DiagonalGaussian(0.0 * log_std, log_std)),
        "policy/std": jnp.mean(jnp.exp(log_std)),
    }


def fit_critics(
    ac: recipes.ActorCritic, learner: LearnerState, batch: recipes.Batch, key: Key
) -> tuple[LearnerState, Metrics]:
    """All passes for the critics."""
    return recipes.fit_critics(ac, learner, batch, key, entry=CRITICS)
