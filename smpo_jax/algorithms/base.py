"""What every method's configuration shares, and the checks that it passes when it is built."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

from smpo_jax.names import suggest
from smpo_jax.networks import ACTIVATIONS
from smpo_jax.types import Spec

T = TypeVar("T")

# Rules of `require`: what a value must be, in words, and the test.
POSITIVE = ("positive", lambda x: x > 0)
NONNEGATIVE = ("0 or more", lambda x: x >= 0)
FRACTION = ("from 0 to 1", lambda x: 0 <= x <= 1)
FINITE = ("a finite number", math.isfinite)
COUNT = ("a whole number, 1 or more", lambda x: int(x) == x and x >= 1)
SIZES = ("one or more positive whole numbers", lambda x: len(x) > 0 and all(n >= 1 for n in x))


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """Settings of methods that take gradient steps on minibatches; defaults follow OmniSafe's PPO.

    Float fields may be traced arrays, so that `vmap` can try several values in one program.
    """

    learning_rate: float = 3e-4  # Adam's, of policy and value
    learning_rate_decay: bool = True  # linearly to 0 over the run
    discount: float = 0.99  # gamma
    gae_lambda: float = 0.95  # of the advantage estimate
    clip: float = 0.2  # bound on the probability ratio's departure from 1
    epochs: int = 5  # passes over a rollout, at most
    minibatches: int = 16  # gradient steps per pass; must divide num_envs * rollout_length
    target_kl: float = 0.02  # stop passing once KL(old || new) of the rollout exceeds it
    entropy_coefficient: float = 0.0  # bonus on the policy's entropy, in nats
    max_gradient_norm: float = 40.0  # of each network
    value_l2: float = 1e-3  # times the sum of the value network's squared parameters
    normalise_observations: bool = True  # by running mean and standard deviation
    observation_clip: float = 5.0  # of normalised observations
    hidden: tuple[int, ...] = (64, 64)  # units of the policy's and the value's hidden layers
    activation: str = "tanh"  # tanh, relu or silu
    initial_log_std: float = 0.0  # natural log of the policy's first standard deviation

    def __post_init__(self):
        require(self, POSITIVE, "learning_rate", "target_kl", "max_gradient_norm")
        require(self, POSITIVE, "observation_clip", "clip")
        require(self, FRACTION, "discount", "gae_lambda")
        require(self, NONNEGATIVE, "entropy_coefficient", "value_l2")
        require(self, FINITE, "initial_log_std")
        require(self, COUNT, "epochs", "minibatches")
        require(self, SIZES, "hidden")
        choose("activation", self.activation, ACTIVATIONS)


def require(record: Any, rule: tuple[str, Callable[[Any], bool]], *fields: str) -> None:
    """Raises a ValueError for the first field that breaks the rule; traced values are trusted."""
    words, holds = rule
    for field in fields:
        value = getattr(record, field)
        if isinstance(value, jax.Array):
            continue
        try:
            good = holds(value)
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            raise ValueError(f"{field}={value!r} must be {words}")


def choose(name: str, value: str, allowed: Mapping[str, T]) -> T:
    """`allowed[value]`, or a ValueError that has the nearest name or all of them."""
    if value in allowed:
        return allowed[value]
    raise ValueError(f"{name}={value!r} is unknown{suggest(value, allowed)}")


def require_divisible(spec: Spec, minibatches: int, name: str = "minibatches") -> None:
    """Raises a ValueError unless a rollout can be cut in equal minibatches."""
    size = spec.num_envs * spec.rollout_length
    if size % minibatches:
        raise ValueError(
            f"rollout_length={spec.rollout_length} × num_envs={spec.num_envs} = {size} "
            f"is not divisible by {name}={minibatches}"
        )
