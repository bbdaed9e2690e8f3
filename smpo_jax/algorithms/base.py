"""What every method's configuration shares, and the checks that it passes when it is built."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from smpo_jax.core import constraints, multipliers
from smpo_jax.core.distributions import LARGEST_LOG_STD, LEAST_LOG_STD
from smpo_jax.names import suggest
from smpo_jax.networks import ACTIVATIONS, GAUSSIANS
from smpo_jax.ranges import LARGE, MOST, TINY
from smpo_jax.types import Spec

T = TypeVar("T")

# Rules of `require`: what a value must be, in words, and the test.
# Numbers are float32 where they are used: what is 0 or infinite there is no such setting.
POSITIVE = ("positive and finite, as float32", lambda x: TINY <= x <= LARGE)
POSITIVE_OR_INFINITE = ("positive, as float32", lambda x: x >= TINY)  # infinity: "no bound"
NONNEGATIVE = ("0 or more, within float32's range", lambda x: x == 0 or TINY <= x <= LARGE)
AT_LEAST_ONE = ("1 or more and finite, as float32", lambda x: 1 <= x <= LARGE)
FRACTION = ("from 0 to 1, within float32's range", lambda x: x == 0 or TINY <= x <= 1)
FINITE = ("a number within float32's range", lambda x: x == 0 or TINY <= abs(x) <= LARGE)
COUNT = ("a whole number, 1 or more", lambda x: int(x) == x and 1 <= x <= MOST)
LOG_STD = (
    f"from {LEAST_LOG_STD:g} to {LARGEST_LOG_STD:g}",
    lambda x: LEAST_LOG_STD <= x <= LARGEST_LOG_STD,
)
WHOLE = ("an int, 1 or more", lambda x: operator.index(x) >= 1)
# Infinity is no limit; what is only infinite in float32 is a mistake.
LIMIT = (
    "0 or more, within float32's range or infinite",
    lambda x: x == math.inf or x == 0 or TINY <= x <= LARGE,
)
SIZES = (
    "one or more positive whole numbers",
    lambda x: len(x) > 0 and all(1 <= n <= MOST for n in x),
)


KINDS = ("discrete", "observation_shape")  # fields of a spec that are no sizes


class Settings:
    """The root of all records of settings: each checks its own fields, then calls the next."""

    def __post_init__(self):
        """Nothing left to check."""


@dataclass(frozen=True, kw_only=True)
class ActorCriticSettings(Settings):
    """Settings of all methods: their networks, and how critics learn; defaults follow OmniSafe's.

    Float fields may be traced arrays, so that `vmap` can try several values in one program.
    """

    learning_rate: float = 3e-4  # Adam's, of all networks that descend on minibatches
    learning_rate_decay: bool = True  # linearly to 0 over the run
    discount: float = 0.99  # gamma
    gae_lambda: float = 0.95  # of the advantage estimate
    epochs: int = 5  # passes over a rollout, at most
    minibatches: int = 16  # gradient steps per pass; must divide num_envs * rollout_length
    target_kl: float = 0.02  # bound on KL(old || new), the mean of the rollout, of an update
    max_gradient_norm: float = 40.0  # of each network
    value_l2: float = 1e-3  # times the sum of a critic's squared parameters
    normalise_observations: bool = True  # by running mean and standard deviation
    observation_clip: float = 5.0  # of normalised observations
    hidden: tuple[int, ...] = (64, 64)  # units of each network's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "tanh"  # of all networks
    policy: Literal["gaussian", "squashed"] = "gaussian"  # squashed: by tanh, within the bounds
    initial_log_std: float = 0.0  # natural log of the policy's first standard deviation

    def __post_init__(self):
        require(self, POSITIVE, "learning_rate")
        require(self, POSITIVE_OR_INFINITE, "target_kl", "max_gradient_norm")
        require(self, POSITIVE, "observation_clip")
        require(self, FRACTION, "discount", "gae_lambda")
        require(self, NONNEGATIVE, "value_l2")
        require(self, LOG_STD, "initial_log_std")
        require(self, COUNT, "epochs", "minibatches")
        if isinstance(self.hidden, list | np.ndarray | jax.Array):
            object.__setattr__(self, "hidden", tuple(np.asarray(self.hidden).tolist()))
        require(self, SIZES, "hidden")
        choose("activation", self.activation, ACTIVATIONS)
        choose("policy", self.policy, GAUSSIANS)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Constrained(Settings):
    """What learning about costs adds, for methods to inherit beside the above."""

    cost_discount: float = 0.99  # of the value of costs
    cost_gae_lambda: float = 0.95  # of the advantage estimate of costs
    episode_window: float = 100.0  # episodes that J_c, the measured episode cost, is a mean of

    def __post_init__(self):
        require(self, FRACTION, "cost_discount", "cost_gae_lambda")
        require(self, POSITIVE, "episode_window")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Lagrangian(Constrained):
    """A multiplier that gradient ascent finds; OmniSafe's numbers."""

    multiplier_start: float = 0.001  # before the first episode has finished
    multiplier_learning_rate: float = 0.035  # Adam's, per iteration
    multiplier_maximum: float = 1e6  # it is never above

    def __post_init__(self):
        require(self, NONNEGATIVE, "multiplier_start", "multiplier_maximum")
        require(self, POSITIVE, "multiplier_learning_rate")
        super().__post_init__()

    def dual(self) -> multipliers.Dual:
        """The multiplier's rule."""
        return multipliers.lagrange(
            start=self.multiplier_start,
            learning_rate=self.multiplier_learning_rate,
            maximum=self.multiplier_maximum,
        )


@dataclass(frozen=True, kw_only=True)
class PID(Constrained):
    """A multiplier that a PID controller sets; OmniSafe's numbers."""

    multiplier_start: float = 0.001  # of the integral
    multiplier_maximum: float = 100.0  # of the integral and of the multiplier
    proportional_gain: float = 0.1  # kp, per unit of episode cost
    integral_gain: float = 0.01  # ki, per unit and iteration
    derivative_gain: float = 0.01  # kd, per unit that the cost has risen in derivative_delay
    derivative_delay: int = 10  # iterations
    proportional_smoothing: float = 0.95  # weight of the past in the error's average
    derivative_smoothing: float = 0.95  # weight of the past in the cost's average

    def __post_init__(self):
        require(self, NONNEGATIVE, "multiplier_start", "multiplier_maximum")
        require(self, NONNEGATIVE, "proportional_gain", "integral_gain", "derivative_gain")
        require(self, FRACTION, "proportional_smoothing", "derivative_smoothing")
        require(self, COUNT, "derivative_delay")
        super().__post_init__()

    def dual(self) -> multipliers.Dual:
        """The multiplier's rule."""
        return multipliers.pid(
            start=self.multiplier_start,
            proportional=self.proportional_gain,
            integral=self.integral_gain,
            derivative=self.derivative_gain,
            smoothing=(self.proportional_smoothing, self.derivative_smoothing),
            delay=self.derivative_delay,
            maximum=self.multiplier_maximum,
        )


@dataclass(frozen=True, kw_only=True)
class Barrier(Constrained):
    """A multiplier that is the slope of a logarithmic barrier; OmniSafe's numbers."""

    barrier_coefficient: float = 0.01  # κ: how far from the limit the barrier is felt
    multiplier_maximum: float = 1.0  # the slope at the limit and beyond

    def __post_init__(self):
        require(self, NONNEGATIVE, "barrier_coefficient", "multiplier_maximum")
        super().__post_init__()

    def dual(self) -> multipliers.Dual:
        """The multiplier's rule."""
        return multipliers.barrier(
            coefficient=self.barrier_coefficient, maximum=self.multiplier_maximum
        )


def require(record: Any, rule: tuple[str, Callable[[Any], bool]], *fields: str) -> None:
    """Raises a ValueError for the first field that breaks the rule; traced values are trusted."""
    words, holds = rule
    for field in fields:
        value = getattr(record, field)
        if isinstance(value, jax.core.Tracer):
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


def require_possible(spec: Spec) -> None:
    """Raises a ValueError for the first field of a spec that no problem can have."""
    sizes = (field for field in Spec._fields if field not in ("cost_limit", *KINDS))
    require(spec, WHOLE, *sizes)
    for limit in constraints.values(spec.cost_limit):
        require(spec._replace(cost_limit=limit), LIMIT, "cost_limit")
    if math.prod(spec.observation_shape) != spec.observation_size and spec.observation_shape:
        raise ValueError(
            f"observation_shape={spec.observation_shape} is not of {spec.observation_size} entries"
        )
    if spec.num_envs % spec.shards:
        raise ValueError(f"shards={spec.shards} must divide num_envs={spec.num_envs}")


def require_divisible(spec: Spec, minibatches: int, name: str = "minibatches") -> None:
    """Raises a ValueError unless each shard of a rollout can be cut in equal minibatches."""
    size, shards = spec.num_envs * spec.rollout_length, spec.shards
    if size % (minibatches * shards):
        several = f" × devices={shards}" if shards > 1 else ""
        raise ValueError(
            f"rollout_length={spec.rollout_length} × num_envs={spec.num_envs} = {size} "
            f"is not divisible by {name}={minibatches}{several}"
        )
