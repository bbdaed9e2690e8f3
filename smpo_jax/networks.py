"""Policy and critic networks, and what normalises their input; the only module that knows flax.

A network is a pair of pure functions, so that one of your own needs no class: see `Networks`.

Weights start orthogonal, with gain √2 in hidden layers, 0.01 at the policy's head (actions start
near zero, or choices equally likely, whatever the observation) and 1 at a critic's; biases start at
0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from smpo_jax.core import moments
from smpo_jax.core.distributions import (
    LARGEST_LOG_STD,
    LEAST_LOG_STD,
    Categorical,
    DiagonalGaussian,
    SquashedGaussian,
)
from smpo_jax.types import Key, Params

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def tanh(x: jax.Array) -> jax.Array:
    """As `jnp.tanh`, but updates on a CPU compute it in a seventh of the time (0.07 for 0.48 ms).

    XLA lets the result take the place of an operand that nobody needs any more, and then its older
    code for CPUs, which commands use for its faster steps under contacts
    (`smpo_envs.compilation.options`), goes from number to number instead of taking several at once.
    So the derivative needs the operand.
    """
    return jnp.tanh(x)


@tanh.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    y = tanh(x)
    less = jnp.where(x == x, 1 - y, jnp.nan)  # which only looks as if it changed anything
    return y, (change + change * y) * less


ACTIVATIONS: dict[str, Activation] = {"tanh": tanh, "relu": nn.relu, "silu": nn.silu}
GAUSSIANS: dict[str, Callable[..., DiagonalGaussian | SquashedGaussian]] = {
    "gaussian": DiagonalGaussian,
    "squashed": SquashedGaussian,
}


def _unbounded(params: Params) -> Params:
    return params


class Network(NamedTuple):
    """A network as pure functions; two are enough.

    Attributes:
        init: fresh parameters from a key.
        apply: the output for `(params, *inputs)`, over any leading axes of the inputs.
        project: the nearest parameters that are allowed. A policy's pass through it after every
            step, so that one at a bound has its gradient and can come back.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Any]
    project: Callable[[Params], Params] = _unbounded


class Normaliser(NamedTuple):
    """How observations are brought to a common scale, learnt as training goes on.

    Attributes:
        init: the state before the first observation, from the observation's size.
        apply: `(state, obs [*batch, O]) -> [*batch, O]`, as the networks see them.
        update: `(state, obs [T, N, O]) -> state`, after an update has learnt from them.
    """

    init: Callable[[int], Any]
    apply: Callable[[Any, Float[Array, "*batch O"]], Float[Array, "*batch O"]]
    update: Callable[[Any, Float[Array, "T N O"]], Any]


class Networks(NamedTuple):
    """The networks of a method; what is None is made as the method's settings say.

    Where observations are pictures, `obs` of the networks is `[*batch, H, W, C]`, and those that a
    method needs must be given.

    Attributes:
        policy: `(params, obs [*batch, O]) -> Distribution` over actions (see `types.Distribution`).
        value: `(params, obs [*batch, O]) -> [*batch]`, V(s) of rewards and V_c(s) of costs.
        action_value: `(params, obs, action [*batch, A]) -> [*batch]`, Q^c(s, a) >= 0 of costs.
        normaliser: of observations, before all networks; it sees vectors, of pictures too.
    """

    policy: Network | None = None
    value: Network | None = None
    action_value: Network | None = None
    normaliser: Normaliser | None = None


DEFAULT = Networks()  # all as the settings say


def running_normaliser(clip: float) -> Normaliser:
    """Running mean and standard deviation, then a clip at ± `clip`."""

    def apply(state: moments.Moments, obs: Float[Array, "*batch O"]) -> Float[Array, "*batch O"]:
        return moments.normalise(state, obs, clip=clip)

    return Normaliser(moments.start, apply, moments.update)


# The state of the one that does nothing is that of the other, so that both have the same learner.
UNCHANGED = Normaliser(moments.start, lambda state, obs: obs, lambda state, obs: state)


class MLP(nn.Module):
    """Dense layers with an activation between them; the last is linear."""

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation
    head_gain: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs of `x`, over any leading axes."""
        dtype = jnp.result_type(float)
        for size in self.hidden:
            start = orthogonal(2.0**0.5)
            x = self.activation(nn.Dense(size, kernel_init=start, param_dtype=dtype)(x))
        start = orthogonal(self.head_gain)
        return nn.Dense(self.outputs, kernel_init=start, param_dtype=dtype)(x)


def orthogonal(gain: float) -> Callable[[Key, tuple[int, int], Any], Float[Array, "I J"]]:
    """An initialiser of matrices whose shorter axis holds orthonormal vectors, times `gain`.

    Uniformly distributed (Saxe et al. 2014): Gram-Schmidt on normal columns, which is the QR
    decomposition with a positive diagonal.

    Deviation: no LAPACK. Several of jaxlib's batched factorisations at a time (a `vmap` over
    seeds) wait for each other's threads, on two CPU cores for ever (jaxlib 0.10.2).
    """

    def init(key: Key, shape: tuple[int, int], dtype: Any) -> Float[Array, "I J"]:
        inputs, outputs = shape
        columns = jax.random.normal(key, (max(shape), min(shape)), dtype)
        basis = columns[:, :0]
        for begin in range(0, min(shape), _BLOCK):
            block = _without(basis, columns[:, begin : begin + _BLOCK]) if begin else columns
            basis = jnp.concatenate([basis, _orthonormal(block[:, :_BLOCK])], axis=1)
        return gain * (basis if inputs > outputs else basis.T)

    return init


# Columns at a time: one by one, 1 024 take half a minute.
_BLOCK = 128


def _orthonormal(columns: Float[Array, "M K"]) -> Float[Array, "M K"]:
    """Gram-Schmidt."""

    def add(basis: Float[Array, "M K"], j: jax.Array) -> tuple[Float[Array, "M K"], None]:
        v = _without(basis, columns[:, j])
        return basis.at[:, j].set(v / jnp.linalg.norm(v)), None

    return jax.lax.scan(add, jnp.zeros_like(columns), jnp.arange(columns.shape[1]))[0]


def _without(basis: Float[Array, "M K"], v: jax.Array) -> jax.Array:
    """What of vectors, `[M]` or `[M, n]`, is not along a basis."""
    for _ in range(2):  # the second time removes what round-off has left
        along = jnp.matmul(basis.T, v, precision="highest")  # GPUs would else round to 10 bits
        v = v - jnp.matmul(basis, along, precision="highest")
    return v


def _mlp(
    inputs: int,
    outputs: int,
    *,
    hidden: tuple[int, ...],
    activation: Activation,
    head_gain: float,
) -> Network:
    module = MLP(hidden, outputs, activation, head_gain)

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(params, x))

    return Network(lambda key: module.init(key, jnp.zeros((1, inputs))), apply)


def gaussian_policy(
    observation_size: int,
    action_size: int,
    *,
    hidden: tuple[int, ...],
    activation: Activation,
    initial_log_std: float,
    kind: Callable[..., DiagonalGaussian | SquashedGaussian] = DiagonalGaussian,
) -> Network:
    """A normal distribution whose mean is an MLP of obs and whose spread depends on no state.

    Its log_std stays between `LEAST_LOG_STD` and `LARGEST_LOG_STD`. `kind` is what is made of both.
    """
    mlp = _mlp(observation_size, action_size, hidden=hidden, activation=activation, head_gain=0.01)

    def init(key: Key) -> Params:
        log_std = jnp.full((action_size,), initial_log_std, jnp.result_type(float))
        return {"mean": mlp.init(key), "log_std": log_std}

    def apply(params: Params, obs: jax.Array) -> DiagonalGaussian | SquashedGaussian:
        mean = mlp.apply(params["mean"], obs)
        return kind(mean, jnp.broadcast_to(params["log_std"], mean.shape))

    def project(params: Params) -> Params:
        return {**params, "log_std": jnp.clip(params["log_std"], LEAST_LOG_STD, LARGEST_LOG_STD)}

    return Network(init, apply, project)


def categorical_policy(
    observation_size: int, choices: int, *, hidden: tuple[int, ...], activation: Activation
) -> Network:
    """One of so many choices, whose logits are an MLP of obs."""
    mlp = _mlp(observation_size, choices, hidden=hidden, activation=activation, head_gain=0.01)

    def init(key: Key) -> Params:
        return {"logits": mlp.init(key)}

    return Network(init, lambda params, obs: Categorical(mlp.apply(params["logits"], obs)))


def seeing(network: Network, shape: tuple[int, ...]) -> Network:
    """The network, given observations in the shape of pictures that arrive as vectors."""

    def apply(params: Params, obs: Float[Array, "*batch O"], *others: Any) -> Any:
        return network.apply(params, obs.reshape(*obs.shape[:-1], *shape), *others)

    return Network(network.init, apply, network.project)


def state_value(
    observation_size: int, *, hidden: tuple[int, ...], activation: Activation
) -> Network:
    """V(s), from obs."""
    mlp = _mlp(observation_size, 1, hidden=hidden, activation=activation, head_gain=1.0)
    return Network(mlp.init, lambda params, obs: mlp.apply(params, obs)[..., 0])


def nonnegative_action_value(
    observation_size: int,
    action_size: int,
    *,
    hidden: tuple[int, ...],
    activation: Activation,
) -> Network:
    """Q(s, a) >= 0 from (obs, action), by a softplus at the head; for costs, which are >= 0."""
    inputs = observation_size + action_size
    mlp = _mlp(inputs, 1, hidden=hidden, activation=activation, head_gain=1.0)

    def apply(params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return nn.softplus(mlp.apply(params, jnp.concatenate([obs, action], axis=-1))[..., 0])

    return Network(mlp.init, apply)
