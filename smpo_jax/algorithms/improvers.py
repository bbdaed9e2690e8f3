"""How a policy moves, given what it is paid: in clipped minibatch passes, or in one natural step.

A method is an advantage times an improver. The advantage is the method's own; the improver is one
of these two values, which the method's settings build:

- `passes` (`FirstOrder`): PPO's clipped surrogate in minibatches, stopped by the divergence
  (Schulman et al. 2017, arXiv 1707.06347).
- `natural_step` (`TrustRegion`): one step along the natural gradient within a trust region, then
  the critics in minibatches (Schulman et al. 2015, arXiv 1502.05477).

Deviation: OmniSafe fits the critics of trust-region methods in 10 passes in minibatches of 128, and
takes the Fisher matrix of all samples. Here it is as many passes in minibatches as large as PPO's,
and every fourth sample (8 000 of 32 000): solving with all of them was nearly half of a CPO update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from smpo_jax.algorithms import base, recipes
from smpo_jax.algorithms.recipes import ActorCritic, Batch
from smpo_jax.core import optimise, surrogate, trust_region
from smpo_jax.core.constraints import each
from smpo_jax.core.trust_region import Trial, Vector
from smpo_jax.networks import DEFAULT, Networks
from smpo_jax.types import Distribution, Key, LearnerState, Metrics, Params, PerCost, Scalar, Spec

ALL = "actor_critic"  # the entry of `opt_state` that is for policy and critics together
CRITICS = "critics"  # the entry that is for all critics, where the policy has none

# What a method adds to the policy's loss, from the policy's output on samples.
PolicyTerm = Callable[[Distribution, Batch], Float[Array, ""]]
# What the policy is to minimise in passes, from its output on a minibatch.
Objective = Callable[[Distribution, Batch], tuple[Float[Array, ""], Metrics]]


class Improve(Protocol):
    """From a learner and its samples to the next learner."""

    def __call__(
        self, learner: LearnerState, batch: Batch, key: Key, term: PolicyTerm | None = None
    ) -> tuple[LearnerState, Metrics]:
        """The learner after the batch; `term` is added to the policy's loss."""
        ...


class Improver(NamedTuple):
    """How policy and critics learn from a batch.

    Attributes:
        ac: the networks that learn.
        init: a key -> the learner, but for what is a method's own.
        improve: a step of learning.
    """

    ac: ActorCritic
    init: Callable[[Key], LearnerState]
    improve: Improve


@dataclass(frozen=True, kw_only=True)
class FirstOrder(base.ActorCriticSettings):
    """What methods add that take the policy's gradient steps on minibatches.

    They stop passing over a rollout once its divergence exceeds `target_kl`, and go back on a pass
    that ends far beyond it (see `recipes.within_reach`).
    """

    clip: float = 0.2  # bound on the probability ratio's departure from 1
    entropy_coefficient: float = 0.0  # bonus on the policy's entropy, in nats

    def __post_init__(self):
        base.require(self, base.POSITIVE, "clip")
        base.require(self, base.NONNEGATIVE, "entropy_coefficient")
        super().__post_init__()

    def improver(
        self,
        spec: Spec,
        networks: Networks = DEFAULT,
        *,
        critics: tuple[str, ...] = recipes.VALUE,
    ) -> Improver:
        """Clipped passes for networks of the sizes that the problem asks for."""
        return passes(recipes.actor_critic(spec, self, networks, critics=critics))


@dataclass(frozen=True, kw_only=True)
class TrustRegion(base.ActorCriticSettings):
    """What methods add that move the policy by one natural-gradient step; as in OmniSafe's TRPO."""

    learning_rate: float = 1e-3  # Adam's, of the critics; the policy has none
    learning_rate_decay: bool = False  # linearly to 0 over the run
    target_kl: float = 0.01  # bound on KL(old || new), the mean of the rollout, of the step
    target_kl_decay: float = 1.0  # it falls geometrically to this times target_kl over the run
    solver_iterations: int = 15  # of conjugate gradients, at most
    fisher_damping: float = 0.1  # added to the diagonal of the Fisher matrix
    fisher_stride: int = 4  # the Fisher matrix is a mean over every nth sample of the rollout
    line_search: bool = True  # shortens the step; without, only one far beyond target_kl
    backtracks: int = 15  # lengths that the line search tries
    backtrack_decay: float = 0.8  # of each length to the one before

    def __post_init__(self):
        base.require(self, base.COUNT, "solver_iterations", "fisher_stride", "backtracks")
        base.require(self, base.POSITIVE, "fisher_damping", "target_kl_decay")
        base.require(self, ("between 0 and 1", lambda x: 0 < x < 1), "backtrack_decay")
        super().__post_init__()

    def improver(
        self,
        spec: Spec,
        networks: Networks = DEFAULT,
        *,
        critics: tuple[str, ...] = recipes.VALUE,
    ) -> Improver:
        """Natural steps for networks of the sizes that the problem asks for."""
        return natural_step(recipes.actor_critic(spec, self, networks, critics=critics))


# Clipped passes


def passes(ac: ActorCritic[FirstOrder], objective: Objective | None = None) -> Improver:
    """Passes for policy and critics, `epochs` or until the policy has moved `target_kl`.

    Args:
        ac: the networks, with the settings of the passes.
        objective: what the policy minimises in place of the clipped surrogate.
    """
    objective = objective or clipped(ac.settings)
    regress = recipes.critic_loss(ac)

    def init(key: Key) -> LearnerState:
        return ac.with_optimiser(ac.init(key), ALL, ("policy", *ac.critics))

    def improve(
        learner: LearnerState, batch: Batch, key: Key, term: PolicyTerm | None = None
    ) -> tuple[LearnerState, Metrics]:
        def loss(params: Params, some: Batch) -> tuple[Float[Array, ""], Metrics]:
            # One function, so that one sweep over a minibatch gives all networks' gradients.
            dist = ac.policy.apply(params["policy"], some.obs)
            policy_loss, policy_metrics = objective(dist, some)
            if term is not None:
                policy_loss += term(dist, some)
            errors, metrics = regress(params, some)
            return policy_loss + errors, {**policy_metrics, **metrics}

        learner, metrics = recipes.descend(
            ac,
            loss,
            learner,
            batch,
            key,
            networks=("policy", *ac.critics),
            entry=ALL,
            check=recipes.within_reach(ac, batch),
        )
        metrics["policy/passes"] = metrics.pop("passes")
        return learner, metrics

    return Improver(ac, init, improve)


def clipped(settings: FirstOrder) -> Objective:
    """PPO's clipped surrogate with entropy bonus (Schulman et al. 2017, eqs. 7 and 9)."""

    def objective(dist: Distribution, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        ratio = surrogate.ratio(dist.log_prob(batch.action), batch.log_prob)
        gain = jnp.mean(surrogate.clipped(ratio, batch.advantage, clip=settings.clip))
        entropy = jnp.mean(dist.entropy())
        return -gain - settings.entropy_coefficient * entropy, {
            "policy/surrogate": gain,
            "policy/entropy": entropy,
            "policy/clip_share": surrogate.clip_share(ratio, clip=settings.clip),
        }

    return objective


# Natural steps


def natural_step(ac: ActorCritic[TrustRegion]) -> Improver:
    """One step of the policy along the natural gradient of the batch's advantage, then the critics.

    The policy moves along F⁻¹ times the gradient over the whole batch, as far as a divergence of
    `target_kl` allows. A policy term's gradient is taken off; the line search looks at the
    advantage alone.
    """

    def improve(
        learner: LearnerState, batch: Batch, key: Key, term: PolicyTerm | None = None
    ) -> tuple[LearnerState, Metrics]:
        with trust_region.full_precision():
            model = local_model(ac, learner, batch)
            gradient = model.gradient(batch.advantage)
            if term is not None:
                gradient -= jax.grad(lambda params: term(model.apply(params), batch))(model.params)
            direction = model.solve(gradient)
            length = trust_region.natural_length(gradient @ direction, target_kl=model.target_kl)
            learner, moved = take(ac, model, learner, length * direction)
        learner, fitted = fit_critics(ac, learner, batch, key)
        return learner, {**moved, **fitted, "policy/gradient_norm": optax.tree.norm(gradient)}

    return Improver(ac, lambda key: init_for_steps(ac, key), improve)


def init_for_steps(ac: ActorCritic[TrustRegion], key: Key) -> LearnerState:
    """The learner before its first natural step; only critics have an optimiser."""
    return ac.with_optimiser(ac.init(key), CRITICS, ac.critics)


class LocalModel(NamedTuple):
    """The policy about its present parameters, on one batch."""

    batch: Batch
    target_kl: Scalar  # how far the policy may move in this iteration
    params: Vector
    unravel: Callable[[Vector], Params]
    apply: Callable[[Vector], Distribution]  # on the batch's observations
    fisher: trust_region.Product  # v -> F v
    solve: trust_region.Product  # v -> F⁻¹ v

    def gradient(self, advantage: Float[Array, " B"]) -> Vector:
        """Of the mean of ratio times advantage."""

        def objective(params: Vector) -> Float[Array, ""]:
            return jnp.mean(self.ratio(self.apply(params)) * advantage)

        return jax.grad(objective)(self.params)

    def ratio(self, dist: Distribution) -> Float[Array, " B"]:
        """Of a policy's probabilities to those of the one that acted."""
        return surrogate.ratio(dist.log_prob(self.batch.action), self.batch.log_prob)


def local_model(ac: ActorCritic[TrustRegion], learner: LearnerState, batch: Batch) -> LocalModel:
    """The policy of a learner, and how to solve with its Fisher matrix on every nth state."""
    settings = ac.settings
    params, unravel = ravel_pytree(learner.params["policy"])

    def policy(stride: int = 1) -> Callable[[Vector], Distribution]:
        return _by_shard(
            lambda flat, obs: ac.policy.apply(unravel(flat), obs), batch.obs, ac.spec.shards, stride
        )

    fisher = trust_region.fisher_product(
        policy(settings.fisher_stride), params, damping=settings.fisher_damping
    )

    def solve(v: Vector) -> Vector:
        return trust_region.conjugate_gradients(fisher, v, iterations=settings.solver_iterations)

    progress = jnp.clip(learner.iteration / ac.spec.total_iterations, 0.0, 1.0)
    # Not `optax.exponential_decay`, which stops at its end only for a rate that is not traced.
    target_kl = settings.target_kl * settings.target_kl_decay**progress
    return LocalModel(batch, target_kl, params, unravel, policy(), fisher, solve)


def _by_shard(
    apply: Callable[[Vector, Float[Array, "B O"]], Distribution],
    obs: Float[Array, "B O"],
    shards: int,
    stride: int,
) -> Callable[[Vector], Distribution]:
    """A policy on every nth observation of each shard, from its parameters.

    Each of several shards has a copy of the parameters, so that derivatives by them are added up
    as one vector (see `optimise.mean_over_shards`).
    """
    if shards == 1:
        return lambda params: apply(params, obs[::stride])
    parts = optimise.in_shards(obs, shards)[:, ::stride]

    def on_copies(params: Vector) -> Distribution:
        copies = jnp.broadcast_to(params, (shards, *params.shape))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.vmap(apply)(copies, parts))

    return on_copies


class Bounds(NamedTuple):
    """What a step must keep, besides the divergence.

    Attributes:
        cost_advantage: of each sample, in units of cost, for each constraint.
        least_gain: of the surrogate return.
        most_cost: by which the surrogate cost may rise, for each constraint.
    """

    cost_advantage: PerCost = 0.0  # of Float[Array, " B"]
    least_gain: Scalar = 0.0
    most_cost: PerCost = jnp.inf


UNBOUNDED = Bounds()


def take(
    ac: ActorCritic[TrustRegion],
    model: LocalModel,
    learner: LearnerState,
    step: Vector,
    bounds: Bounds = UNBOUNDED,
) -> tuple[LearnerState, Metrics]:
    """The learner after as much of the policy's step as keeps the bounds (see `line_search`).

    Without `settings.line_search` it is all of it whatever comes of it, unless the divergence is
    beyond `recipes.FARTHEST` times `target_kl`: then it is halved until it is not.
    """
    settings, batch = ac.settings, model.batch

    def policy_of(params: Vector) -> Params:
        return ac.policy.project(model.unravel(params))

    def evaluate(params: Vector) -> Trial:
        dist = ac.policy.apply(policy_of(params), batch.obs)
        change = model.ratio(dist) - 1.0
        return Trial(
            kl=jnp.mean(batch.dist.kl(dist)),
            gain=jnp.mean(change * batch.advantage),
            cost_change=each(lambda own: jnp.mean(change * own), bounds.cost_advantage),
        )

    search = partial(trust_region.line_search, model.params, step, evaluate)
    if settings.line_search:
        found = search(
            target_kl=model.target_kl,
            least_gain=bounds.least_gain,
            most_cost=bounds.most_cost,
            decay=settings.backtrack_decay,
            tries=settings.backtracks,
        )
    else:
        found = search(
            target_kl=recipes.FARTHEST * model.target_kl,
            least_gain=-jnp.inf,
            most_cost=each(lambda _: jnp.inf, bounds.cost_advantage),
            decay=0.5,
            tries=optimise.HALVINGS,
        )

    policy = policy_of(found.params)
    dist = ac.policy.apply(policy, batch.obs[:: settings.fisher_stride])
    return learner.replace(params={**learner.params, "policy": policy}), {
        "policy/kl": found.trial.kl,
        "policy/surrogate": found.trial.gain,
        "policy/step_fraction": found.fraction,
        "policy/entropy": jnp.mean(dist.entropy()),
        "policy/std": jnp.mean(dist.std()),
    }


def fit_critics(
    ac: ActorCritic, learner: LearnerState, batch: Batch, key: Key
) -> tuple[LearnerState, Metrics]:
    """All passes for the critics alone."""
    learner, metrics = recipes.descend(
        ac,
        recipes.critic_loss(ac),
        learner,
        batch,
        key,
        networks=ac.critics,
        entry=CRITICS,
    )
    del metrics["passes"]
    return learner, metrics
