"""The diagonal Gaussian: sampling, log-probability, entropy, divergence."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.types import DiagonalGaussian, Key

_LOG_2PI = 1.8378770664093453


def sample(dist: DiagonalGaussian, key: Key) -> Float[Array, "*batch A"]:
    """A draw; gradients flow into mean and log_std (reparameterised)."""
    noise = jax.random.normal(key, dist.mean.shape, dist.mean.dtype)
    return dist.mean + jnp.exp(dist.log_std) * noise


def log_prob(dist: DiagonalGaussian, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
    """Log-density of `action`, summed over its components."""
    z = (action - dist.mean) * jnp.exp(-dist.log_std)
    return jnp.sum(-0.5 * z**2 - dist.log_std - 0.5 * _LOG_2PI, axis=-1)


def entropy(dist: DiagonalGaussian) -> Float[Array, "*batch"]:
    """Differential entropy in nats; it can be negative."""
    return jnp.sum(dist.log_std + 0.5 * (1.0 + _LOG_2PI), axis=-1)


def kl(old: DiagonalGaussian, new: DiagonalGaussian) -> Float[Array, "*batch"]:
    """KL(old || new) in nats, summed over components; exactly 0 for equal arguments."""
    log_ratio = new.log_std - old.log_std
    shift = (old.mean - new.mean) * jnp.exp(-new.log_std)
    return jnp.sum(log_ratio + 0.5 * (jnp.exp(-2.0 * log_ratio) - 1.0 + shift**2), axis=-1)
