"""Returns and costs of whole episodes, on environments of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_jax.augmentation import require_account
from smpo_jax.core import episodes as tracking
from smpo_jax.types import Algorithm, Key, LearnerState, VectorEnv

Act = Callable[[Float[Array, "N O"], Key], Float[Array, "N A"]]


class Episodes(NamedTuple):
    """One entry per episode."""

    return_: Float[Array, " E"]
    cost: Float[Array, " E"]  # undiscounted
    length: Float[Array, " E"]


def make_act(algorithm: Algorithm, learner: LearnerState, *, deterministic: bool) -> Act:
    """How a learner acts: on the mean of its distribution, or with its exploration noise."""
    policy = algorithm.policy(learner)

    def act(obs: Float[Array, "N O"], key: Key) -> Float[Array, "N A"]:
        action, _, dist = policy(obs, key)
        return dist.mode() if deterministic else action

    return act


def evaluate(act: Act, env: VectorEnv, key: Key, episodes: int) -> Episodes:
    """Plays `episodes` whole episodes.

    Every environment plays the same number of them, so that short episodes are not favoured for
    being first; the surplus is dropped. A first episode that a staggered environment began in the
    middle is not counted. Pure: wrap it in `jax.jit`, or see `make_evaluator`.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    each = -(-episodes // env.num_envs)
    reset_key, key = jax.random.split(key)
    first = env.reset(reset_key)
    start = (
        first,
        tracking.start(env.num_envs, first.steps),
        jnp.zeros(env.num_envs, jnp.int32),
        Episodes(*(jnp.zeros((each, env.num_envs)) for _ in Episodes._fields)),
        key,
    )

    def unfinished(carry: Any) -> Array:
        return jnp.any(carry[2] < each)

    def step(carry: Any) -> Any:
        env_state, tracker, count, results, key = carry
        act_key, key = jax.random.split(key)
        env_state, seen = env.step(env_state, act(env_state.obs, act_key))
        tracker, total, finished = tracking.advance(
            tracker, seen.reward, seen.cost, seen.terminated, seen.truncated
        )
        # `finished` is 1, or NaN where the environment gives NaN: that ends an episode, too, and
        # leaves it no figures.
        is_over = finished != 0
        played = Episodes(*(x * finished for x in (total.return_, total.cost, total.length)))
        # Row `count` of an environment's column takes the episode; beyond the last row, none does.
        row = jnp.where(is_over, count, each)
        column = jnp.arange(env.num_envs)
        results = jax.tree.map(lambda r, x: r.at[row, column].set(x, mode="drop"), results, played)
        return env_state, tracker, count + is_over, results, key

    _, _, _, results, _ = jax.lax.while_loop(unfinished, step, start)
    return jax.tree.map(lambda x: x.reshape(-1)[:episodes], results)


def make_evaluator(
    algorithm: Algorithm, env: VectorEnv, episodes: int, *, deterministic: bool = True
) -> Callable[[LearnerState, Key], Episodes]:
    """`(learner, key) -> Episodes`, compiled once for all learners of a run.

    Raises:
        ValueError: the environments lack what the method adds to them.
    """
    require_account(algorithm.account_size, env)

    @jax.jit
    def run(learner: LearnerState, key: Key) -> Episodes:
        act = make_act(algorithm, learner, deterministic=deterministic)
        return evaluate(act, env, key, episodes)

    return run
