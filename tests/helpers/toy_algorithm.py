"""The smallest algorithm that learns something random: for tests of what surrounds algorithms."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from smpo_jax.algorithms import base
from smpo_jax.algorithms.registry import Entry
from smpo_jax.core.distributions import DiagonalGaussian
from smpo_jax.types import Algorithm, LearnerState


@dataclass(frozen=True, kw_only=True)
class Toy:
    """All kinds of fields that a method may have."""

    step: float = 0.1  # of the random walk that the weights take
    start: float = 0.0  # value of the weights at first
    repeats: int = 1  # passes
    sizes: tuple[int, ...] = (2, 3)  # not used
    form: Literal["plain", "fancy"] = "plain"  # not used
    shift: bool = True  # not used
    scale: float | None = None  # not used
    diverge_at: int = 0  # iteration whose metric `toy/loss` is NaN; 0 for none

    def __post_init__(self):
        base.require(self, base.NONNEGATIVE, "step")


class Params(NamedTuple):
    weights: jax.Array
    nothing: jax.Array  # an array without elements


@dataclass(frozen=True, kw_only=True)
class ToyPreset(Toy):
    """The same with another default."""

    repeats: int = 2  # passes


def make(spec, hyperparameters):
    """A Gaussian policy, linear in the observation, whose weights walk at random."""
    if spec.num_envs * spec.rollout_length % hyperparameters.repeats:
        raise ValueError(f"{spec.num_envs} envs are not divisible by {hyperparameters.repeats}")

    def init(key):
        del key
        shape = (spec.observation_size, spec.action_size)
        params = Params(jnp.full(shape, hyperparameters.start), jnp.zeros((0, 3)))
        return LearnerState(params, (), (), (), jnp.zeros((), jnp.int32))

    def policy(learner):
        def act(obs, key):
            mean = obs @ learner.params.weights
            action = mean + 0.1 * jax.random.normal(key, mean.shape)
            return action, jnp.zeros(obs.shape[0]), DiagonalGaussian(mean, jnp.zeros_like(mean))

        return act

    def update(learner, rollout, key):
        noise = jax.random.normal(key, learner.params.weights.shape)
        walk = hyperparameters.step * (noise + rollout.transition.reward.mean())
        iteration = learner.iteration + 1
        params = learner.params._replace(weights=learner.params.weights + walk)
        diverged = iteration == hyperparameters.diverge_at
        metrics = {"toy/loss": jnp.where(diverged, jnp.nan, jnp.mean(params.weights))}
        return learner.replace(params=params, iteration=iteration), metrics

    return Algorithm(init, policy, update)


ENTRY = Entry(
    settings="toy_algorithm:ToyPreset",
    make="toy_algorithm:make",
    improver="none",
    paper="Nobody, Nowhere",
    year=2000,
    summary="a toy",
)
