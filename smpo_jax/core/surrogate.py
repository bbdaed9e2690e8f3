"""Policy-gradient objectives on probability ratios."""

import operator
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.core import constraints
from smpo_jax.types import PerCost, Scalar

# Of all entries, or of each one's like; it broadcasts against them.
Mean = Callable[[Float[Array, "*batch"]], Float[Array, "..."]]


def ratio(
    log_prob: Float[Array, " B"], behaviour_log_prob: Float[Array, " B"]
) -> Float[Array, " B"]:
    """π(a|s) / π_behaviour(a|s)."""
    return jnp.exp(log_prob - behaviour_log_prob)


def clipped(
    ratio: Float[Array, " B"], advantage: Float[Array, " B"], *, clip: Scalar
) -> Float[Array, " B"]:
    """PPO's pessimistic objective, to be maximised (Schulman et al. 2017, eq. 7).

        min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)

    The gradient is 0 where moving further would only profit from having moved already.
    """
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clip_share(ratio: Float[Array, " B"], *, clip: Scalar) -> Float[Array, ""]:
    """Share of samples whose ratio is outside 1 ± clip."""
    return jnp.mean(jnp.asarray(jnp.abs(ratio - 1.0) > clip, ratio.dtype))


def standardise(x: Float[Array, "*batch"], mean: Mean = jnp.mean) -> Float[Array, "*batch"]:
    """Zero mean, unit standard deviation over what `mean` takes in; a constant becomes 0."""
    return (x - mean(x)) / (deviation(x, mean) + 1e-8)


def deviation(x: Float[Array, "*batch"], mean: Mean = jnp.mean) -> Float[Array, "..."]:
    """The standard deviation over what `mean` takes in."""
    return jnp.sqrt(mean((x - mean(x)) ** 2))


def centre(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Zero mean over all entries; the unit stays."""
    return x - jnp.mean(x)


def penalised(
    advantage: Float[Array, "*batch"], cost_advantage: PerCost, multiplier: PerCost
) -> Float[Array, "*batch"]:
    """The advantage of the Lagrangian, (A − Σᵢ λᵢ A_cᵢ) / (1 + Σᵢ λᵢ), i being the constraints.

    The division keeps the step's size however large λ is (Stooke et al. 2020); λ = 0 leaves A.
    """
    paid = constraints.total(constraints.each(operator.mul, multiplier, cost_advantage))
    return (advantage - paid) / (1.0 + constraints.total(multiplier))
