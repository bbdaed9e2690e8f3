"""Sums over time: advantages, λ-returns, costs to go.

All run backwards over a rollout whose steps may cross episode ends. A step is an end if it is
terminated or truncated; only termination makes the future worth nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.core.episodes import ends
from smpo_jax.types import Scalar


def gae(
    reward: Float[Array, "T N"],
    value: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Float[Array, "T N"],
    truncated: Float[Array, "T N"],
    *,
    discount: Scalar,
    lambda_: Scalar,
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """Generalised advantages and their value targets (Schulman et al. 2016, eq. 16).

        δₜ = rₜ + γ (1 − terminatedₜ) V(s'ₜ) − V(sₜ)
        Aₜ = δₜ + γλ (1 − endₜ) Aₜ₊₁

    A time-limit cut bootstraps from `next_value` but stops the trace: s'ₜ is the true successor,
    not the reset state. Works for costs as it stands. Neither output is normalised. Gradients flow
    into `value`; stop them at the caller.

    Returns:
        advantage, target = advantage + value.
    """
    delta = reward + discount * (1.0 - terminated) * next_value - value
    advantage = _backward_sum(delta, discount * lambda_ * (1.0 - ends(terminated, truncated)))
    return advantage, advantage + value


def lambda_return(
    reward: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Float[Array, "T N"],
    truncated: Float[Array, "T N"],
    *,
    discount: Scalar,
    lambda_: Scalar,
) -> Float[Array, "T N"]:
    """λ-returns: a blend of one-step (λ = 0) and Monte-Carlo (λ = 1) targets.

        Gₜ = rₜ + γ (1 − terminatedₜ) ((1 − λₜ) V(s'ₜ) + λₜ Gₜ₊₁),  λₜ = λ (1 − endₜ)

    and λ = 0 at the last step of the window, which bootstraps like a time limit. With
    V(s') = E_a' Q(s', a') these are the targets of (multi-step) expected SARSA.
    """
    trace = lambda_ * (1.0 - ends(terminated, truncated))
    trace = trace.at[-1].set(0.0)
    alive = discount * (1.0 - terminated)
    return _backward_sum(reward + alive * (1.0 - trace) * next_value, alive * trace)


def to_go(
    reward: Float[Array, "T N"],
    terminated: Float[Array, "T N"],
    truncated: Float[Array, "T N"],
    *,
    discount: Scalar,
) -> Float[Array, "T N"]:
    """Discounted sum of what the rollout still holds of the episode, nothing beyond its window."""
    return _backward_sum(reward, discount * (1.0 - ends(terminated, truncated)))


def _backward_sum(x: Float[Array, "T N"], decay: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """yₜ = xₜ + decayₜ yₜ₊₁, with y = 0 behind the end.

    A CPU takes step after step; an accelerator, which launches several programs for each, takes
    them together, log₂ T times. That differs by rounding.
    """
    return jax.lax.platform_dependent(x, decay, cpu=_step_by_step, default=_together)


def _step_by_step(x: Float[Array, "T N"], decay: Float[Array, "T N"]) -> Float[Array, "T N"]:
    def step(after, inputs):
        x_t, decay_t = inputs
        y_t = x_t + decay_t * after
        return y_t, y_t

    _, y = jax.lax.scan(step, jnp.zeros_like(x[-1]), (x, decay), reverse=True)
    return y


def _together(x: Float[Array, "T N"], decay: Float[Array, "T N"]) -> Float[Array, "T N"]:
    def join(later, earlier):
        """Two stretches of time as one: what it adds up to, and the decay over it."""
        (y, decay), (x, own_decay) = later, earlier
        return x + own_decay * y, own_decay * decay

    return jax.lax.associative_scan(join, (x, decay), reverse=True)[0]
