"""Distributions over actions, as pytrees with the methods of `types.Distribution`.

Another kind is a class of the same methods: what learns from a policy asks its distribution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_jax.types import Key

# What our own networks keep log_std within. Above e² = 7.4 nearly every draw is clipped to an end
# of [-1, 1]; the bound is that of soft actor-critic's code (Haarnoja et al. 2018). Its other bound,
# -20, is too low where densities of stored actions are compared: in float32 an action near 1 is off
# by up to 6e-8, which is a thousandth of e^-10 = 4.5e-5, but thirty times e^-20.
LEAST_LOG_STD, LARGEST_LOG_STD = -10.0, 2.0

_LOG_2PI = 1.8378770664093453
# Gauss-Hermite rule for means over a standard normal; of degree 63, far below float32's rounding.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_LEAST_LOG_PROB = -1e4  # in place of -inf, which has no use in sums: e to this is 0 all the same
_EDGE = 1e-6  # squashed actions are this far inside -1 and 1 where their noise is asked for


class DiagonalGaussian(NamedTuple):
    """An unsquashed normal distribution with independent components."""

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*batch A"]

    def sample(self, key: Key) -> Float[Array, "*batch A"]:
        """A draw; gradients flow into mean and log_std (reparameterised)."""
        return self.with_noise(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def mode(self) -> Float[Array, "*batch A"]:
        """The mean."""
        return self.mean

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        """Log-density of `action`, summed over its components."""
        z = self.noise(action)
        return jnp.sum(-0.5 * z**2 - self.log_std - 0.5 * _LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats; it can be negative."""
        return jnp.sum(self.log_std + 0.5 * (1.0 + _LOG_2PI), axis=-1)

    def kl(self, other: "DiagonalGaussian") -> Float[Array, "*batch"]:
        """KL(self || other) in nats, summed over components; exactly 0 for equal arguments."""
        log_ratio = other.log_std - self.log_std
        shift = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(log_ratio + 0.5 * (jnp.exp(-2.0 * log_ratio) - 1.0 + shift**2), axis=-1)

    def std(self) -> Float[Array, "*batch A"]:
        """Standard deviations of the components."""
        return jnp.exp(self.log_std)

    def noise(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """(a - mean) / std."""
        return (action - self.mean) * jnp.exp(-self.log_std)

    def with_noise(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """Mean + std * noise."""
        return self.mean + jnp.exp(self.log_std) * noise


class SquashedGaussian(NamedTuple):
    """tanh of a normal distribution with independent components: actions within (-1, 1).

    Haarnoja et al. 2018, appendix C. `mean` and `log_std` are those before tanh. Squashing can be
    undone, so that divergences are those of the normal distributions.
    """

    mean: Float[Array, "*batch A"]
    log_std: Float[Array, "*batch A"]

    @property
    def normal(self) -> DiagonalGaussian:
        """The distribution before tanh."""
        return DiagonalGaussian(self.mean, self.log_std)

    def sample(self, key: Key) -> Float[Array, "*batch A"]:
        """A draw; gradients flow into mean and log_std (reparameterised)."""
        return jnp.tanh(self.normal.sample(key))

    def mode(self) -> Float[Array, "*batch A"]:
        """tanh(mean), the action without noise (the median; the density may peak elsewhere)."""
        return jnp.tanh(self.mean)

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        """Log-density of `action`, summed over its components.

        Actions at the border, where float32 has rounded tanh to 1, count as just inside.
        """
        before = _unsquash(action)
        return self.normal.log_prob(before) - jnp.sum(_log_slope(before), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """In nats: the normal's plus E log tanh', by Gauss-Hermite quadrature."""
        nodes, weights = (jnp.asarray(x, self.mean.dtype) for x in (_NODES, _WEIGHTS))
        noise = jnp.multiply.outer(jnp.exp(self.log_std), nodes)
        slope = _log_slope(self.mean[..., None] + noise) @ weights
        return self.normal.entropy() + jnp.sum(slope, axis=-1)

    def kl(self, other: "SquashedGaussian") -> Float[Array, "*batch"]:
        """KL(self || other) in nats, summed over components; exactly 0 for equal arguments."""
        return self.normal.kl(other.normal)

    def std(self) -> Float[Array, "*batch A"]:
        """Standard deviations of the components, before tanh."""
        return jnp.exp(self.log_std)

    def noise(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """(artanh a - mean) / std."""
        return self.normal.noise(_unsquash(action))

    def with_noise(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """tanh(mean + std * noise)."""
        return jnp.tanh(self.normal.with_noise(noise))


class Categorical(NamedTuple):
    """One of `A` choices. An action is a one-hot vector `[A]`, as long as the actions elsewhere.

    A choice whose logit is -inf is never made.
    """

    logits: Float[Array, "*batch A"]  # up to a constant, the logarithms of the probabilities

    @property
    def log_probabilities(self) -> Float[Array, "*batch A"]:
        """Of each choice."""
        return jnp.maximum(jax.nn.log_softmax(self.logits), _LEAST_LOG_PROB)

    def sample(self, key: Key) -> Float[Array, "*batch A"]:
        """A draw, one-hot; no gradient flows through it."""
        return self._one_hot(jax.random.categorical(key, self.logits))

    def mode(self) -> Float[Array, "*batch A"]:
        """The likeliest choice, one-hot; of equals the first."""
        return self._one_hot(jnp.argmax(self.logits, axis=-1))

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        """Log-probability of a one-hot action."""
        return jnp.sum(action * self.log_probabilities, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """In nats, from 0 to log A."""
        log_p = self.log_probabilities
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(self || other) in nats, summed over choices; exactly 0 for equal arguments."""
        log_p = self.log_probabilities
        return jnp.sum(jnp.exp(log_p) * (log_p - other.log_probabilities), axis=-1)

    def std(self) -> Float[Array, "*batch A"]:
        """Standard deviations of the components of the one-hot vector, √(p (1 − p))."""
        p = jnp.exp(self.log_probabilities)
        return jnp.sqrt(p * (1.0 - p))

    def _one_hot(self, index: Int[Array, "*batch"]) -> Float[Array, "*batch A"]:
        return jax.nn.one_hot(index, self.logits.shape[-1], dtype=self.logits.dtype)


def _unsquash(action: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
    return jnp.arctanh(jnp.clip(action, -1.0 + _EDGE, 1.0 - _EDGE))


def _log_slope(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log(1 - tanh² x), written so that it does not become log 0."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))
