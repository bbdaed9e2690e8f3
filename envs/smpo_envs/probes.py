"""Tiny constrained problems whose best return under a cost limit is known in closed form.

What a trainer must be able to solve, at a millionth of the price of a task. Each factory has a
function `..._optimum` beside it: the largest expected return of any policy whose expected cost per
episode is within the limit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs.safe_env import Environment, State

REWARD_NOISE = 1.0  # of `diminishing`, the standard deviation per step
CHOICE_REWARDS = (0.0, 0.6, 1.0)  # of `choice`, a step of waiting, walking, running
CHOICE_COSTS = (0.0, 0.2, 1.0)
NEAR_EXIT, FAR_EXIT = 2.0, -4.0  # of `exits`, which starts at 0


def tradeoff(*, episode_length: int = 10) -> Environment:
    """Each step earns a and costs max(a, 0), whatever came before; the observation is constant."""

    def reset(key: PRNGKeyArray) -> State:
        del key
        return _start((), jnp.ones(1))

    def step(state: State, action: Float[Array, " 1"]) -> State:
        a = jnp.clip(action[0], -1.0, 1.0)
        return _next(state, (), state.obs, reward=a, cost=jnp.maximum(a, 0.0), done=False)

    return Environment(reset, step, 1, 1, episode_length)


def tradeoff_optimum(cost_limit: float, episode_length: int = 10) -> float:
    """E[a] <= E[max(a, 0)], with equality for a >= 0: the return is the cost spent."""
    return min(cost_limit, episode_length)


def diminishing(*, episode_length: int = 10) -> Environment:
    """Each step earns 1 - (1 - a)² plus noise and costs max(a, 0); the observation is constant.

    Every further unit of cost buys less return, so that one price of a unit makes one policy best.
    In `tradeoff` one price makes all policies equally good, and the others make none or all of the
    cost best: ascent on a multiplier circles that price without end. The noise is there for methods
    that standardise advantages: without it, a policy that settles changes the unit of the price.
    """

    def reset(key: PRNGKeyArray) -> State:
        return _start(key, jnp.ones(1))

    def step(state: State, action: Float[Array, " 1"]) -> State:
        noise_key, next_key = jax.random.split(state.pipeline_state)
        a = jnp.clip(action[0], -1.0, 1.0)
        reward = 1.0 - (1.0 - a) ** 2 + REWARD_NOISE * jax.random.normal(noise_key)
        return _next(
            state, next_key, state.obs, reward=reward, cost=jnp.maximum(a, 0.0), done=False
        )

    return Environment(reset, step, 1, 1, episode_length)


def diminishing_optimum(cost_limit: float, episode_length: int = 10) -> float:
    """The same action a >= 0 at every step, by concavity: it costs a, up to 1."""
    a = min(cost_limit / episode_length, 1.0)
    return episode_length * (1.0 - (1.0 - a) ** 2)


def follow(*, episode_length: int = 10) -> Environment:
    """A signal s, uniform in [-1, 1] at every step; earns 1 - |a - s| and costs max(a, 0)."""

    def observe(key: PRNGKeyArray) -> tuple[PRNGKeyArray, Float[Array, " 1"]]:
        signal_key, next_key = jax.random.split(key)
        return next_key, jax.random.uniform(signal_key, (1,), minval=-1.0, maxval=1.0)

    def reset(key: PRNGKeyArray) -> State:
        return _start(*observe(key))

    def step(state: State, action: Float[Array, " 1"]) -> State:
        a = jnp.clip(action[0], -1.0, 1.0)
        reward, cost = 1.0 - jnp.abs(a - state.obs[0]), jnp.maximum(a, 0.0)
        return _next(state, *observe(state.pipeline_state), reward=reward, cost=cost, done=False)

    return Environment(reset, step, 1, 1, episode_length)


def follow_optimum(cost_limit: float, episode_length: int = 10) -> float:
    """Doing a = s earns 1 and costs E[max(s, 0)] = 1/4 a step; a unit of cost saved loses one."""
    return episode_length - max(0.0, episode_length / 4 - cost_limit)


def exits(*, episode_length: int = 40) -> Environment:
    """A walk x <- x + a from 0 that ends at 2 or -4; each step earns -1, and costs 1 at x > 0.

    The observation is x / 4. The cost is that of the position stepped to.
    """

    def reset(key: PRNGKeyArray) -> State:
        del key
        return _start(jnp.zeros(()), jnp.zeros(1))

    def step(state: State, action: Float[Array, " 1"]) -> State:
        x = state.pipeline_state + jnp.clip(action[0], -1.0, 1.0)
        out = (x >= NEAR_EXIT) | (x <= FAR_EXIT)
        return _next(state, x, x[None] / 4, reward=-jnp.ones(()), cost=(x > 0) * 1.0, done=out)

    return Environment(reset, step, 1, 1, episode_length)


def exits_optimum(cost_limit: float) -> float:
    """Two steps to the near exit cost 2, four to the far one cost nothing; mixtures lie between."""
    return -4.0 + min(cost_limit, 2.0)


def choice(*, episode_length: int = 10) -> Environment:
    """To wait, walk or run: three discrete actions, which earn and cost what the tables say.

    The observation is constant. A step that runs spends cost better than waiting, and worse than
    walking, so that the best policy under most limits is a mixture of two of them.
    """
    earned, spent = jnp.array(CHOICE_REWARDS), jnp.array(CHOICE_COSTS)

    def reset(key: PRNGKeyArray) -> State:
        del key
        return _start((), jnp.ones(1))

    def step(state: State, action: Float[Array, " 3"]) -> State:
        index = jnp.argmax(action)
        return _next(state, (), state.obs, reward=earned[index], cost=spent[index], done=False)

    return Environment(reset, step, 1, len(CHOICE_REWARDS), episode_length, discrete=True)


def choice_optimum(cost_limit: float, episode_length: int = 10) -> float:
    """The concave envelope of (cost, reward): waiting and walking mixed, or walking and running."""
    per_step = min(cost_limit / episode_length, 1.0)
    return episode_length * float(np.interp(per_step, CHOICE_COSTS, CHOICE_REWARDS))


def spending(*, episode_length: int = 10) -> Environment:
    """Two actions, a and b, each with a cost of its own: max(a, 0), called `first`, and max(b, 0).

    Each step earns 1 - (1 - a)² + 1 - (1 - b)² plus noise (see `diminishing`); the observation is
    constant.
    """

    def reset(key: PRNGKeyArray) -> State:
        return _start(key, jnp.ones(1), costs=2)

    def step(state: State, action: Float[Array, " 2"]) -> State:
        noise_key, next_key = jax.random.split(state.pipeline_state)
        a = jnp.clip(action, -1.0, 1.0)
        reward = jnp.sum(1.0 - (1.0 - a) ** 2) + REWARD_NOISE * jax.random.normal(noise_key)
        return _next(
            state, next_key, state.obs, reward=reward, cost=jnp.maximum(a, 0.0), done=False
        )

    return Environment(reset, step, 1, 2, episode_length, cost_names=("first", "second"))


def spending_optimum(cost_limits: tuple[float, float], episode_length: int = 10) -> float:
    """The two actions have nothing to do with each other: `diminishing`, twice."""
    return sum(diminishing_optimum(limit, episode_length) for limit in cost_limits)


def _start(pipeline_state, obs: jax.Array, costs: int = 1) -> State:
    zero = jnp.zeros((), obs.dtype)
    cost = jnp.zeros((costs,) if costs > 1 else (), obs.dtype)
    return State(pipeline_state, obs, zero, zero, metrics={"cost_sum": zero}, info={"cost": cost})


def _next(state: State, pipeline_state, obs: jax.Array, *, reward, cost, done) -> State:
    return state.replace(
        pipeline_state=pipeline_state,
        obs=obs,
        reward=reward.astype(obs.dtype),
        done=jnp.asarray(done, obs.dtype),
        metrics={**state.metrics, "cost_sum": jnp.sum(cost).astype(obs.dtype)},
        info={**state.info, "cost": cost.astype(obs.dtype)},
    )
