"""Returns and costs of whole episodes, on environments of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpo_jax.augmentation import require_account
from smpo_jax.core import constraints
from smpo_jax.core import episodes as tracking
from smpo_jax.types import Algorithm, Key, LearnerState, PerCost, VectorEnv

Act = Callable[[Float[Array, "N O"], Key], Float[Array, "N A"]]


class Episodes(NamedTuple):
    """One entry per episode."""

    return_: Float[Array, " E"]
    cost: PerCost  # of Float[Array, " E"], undiscounted
    length: Float[Array, " E"]


def make_act(algorithm: Algorithm, learner: LearnerState, *, deterministic: bool) -> Act:
    """How a learner acts: on the mean of its distribution, or with its exploration noise."""
    policy = algorithm.policy(learner)

    def act(obs: Float[Array, "N O"], key: Key) -> Float[Array, "N A"]:
        action, _, dist = policy(obs, key)
        return dist.mode() if deterministic else action

    return act


class Playing(NamedTuple):
    """Environments in the middle of an evaluation.

    Attributes:
        env_state: of the environments.
        tracker: sums over the episodes under way.
        count: episodes that each environment has finished.
        results: of these, in the order in which an environment finished them; only as many as there
            are rows for.
        key: for what is to come.
    """

    env_state: Any
    tracker: tracking.Tracker
    count: Int[Array, " N"]
    results: Episodes  # [rows, N]
    key: Key


def evaluate(act: Act, env: VectorEnv, key: Key, episodes: int) -> Episodes:
    """Plays `episodes` whole episodes.

    Every environment plays the same number of them, so that short episodes are not favoured for
    being first; the surplus is dropped. A first episode that a staggered environment began in the
    middle is not counted. Pure: wrap it in `jax.jit`, or see `make_evaluator`.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    each = -(-episodes // env.num_envs)
    playing = jax.lax.while_loop(
        lambda playing: jnp.any(playing.count < each),
        lambda playing: _step(act, env, playing),
        begin(env, key, rows=each),
    )
    return jax.tree.map(lambda x: x.reshape(-1)[:episodes], playing.results)


def begin(env: VectorEnv, key: Key, *, rows: int) -> Playing:
    """New episodes, and room for `rows` results of each environment."""
    reset_key, key = jax.random.split(key)
    first = env.reset(reset_key)
    tracker = tracking.start(env.num_envs, first.steps, constraints.names_of(env))
    like = Episodes(tracker.return_, tracker.cost, tracker.length)
    return Playing(
        first,
        tracker,
        jnp.zeros(env.num_envs, jnp.int32),
        jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), like),
        key,
    )


def play_on(act: Act, env: VectorEnv, playing: Playing) -> Playing:
    """As many steps as there are rows for results, with the count from 0 again: none is lost."""
    playing = playing._replace(count=jnp.zeros_like(playing.count))
    steps = playing.results.length.shape[0]
    return jax.lax.fori_loop(0, steps, lambda _, playing: _step(act, env, playing), playing)


def collect_pieces(
    first: Playing,
    go_on: Callable[[Playing], Playing],
    episodes: int,
    show: Callable[[int], None] = lambda played: None,
) -> Episodes:
    """The episodes of `evaluate`, piece by piece: memory does not grow, and Ctrl-C is heard.

    Args:
        first: of `begin`.
        go_on: `play_on` for the policy and the environments, compiled.
        episodes: how many.
        show: takes how many have been played, after each piece but the last.
    """
    num_envs = first.count.shape[0]
    each = -(-episodes // num_envs)
    found = jax.tree.map(lambda like: np.zeros((each, num_envs), like.dtype), first.results)
    finished, playing = np.zeros(num_envs, int), first
    while np.any(finished < each):
        playing = go_on(playing)
        count = np.asarray(playing.count)
        row, env = np.nonzero(np.arange(max(count, default=0))[:, None] < count)
        new = finished[env] + row < each
        row, env = row[new], env[new]
        for ours, theirs in zip(*map(jax.tree.leaves, (found, playing.results)), strict=True):
            ours[finished[env] + row, env] = np.asarray(theirs)[row, env]
        finished += count
        if np.any(finished < each):
            show(min(int(np.sum(np.minimum(finished, each))), episodes))
    return jax.tree.map(lambda x: jnp.asarray(x.reshape(-1)[:episodes]), found)


def _step(act: Act, env: VectorEnv, playing: Playing) -> Playing:
    env_state, tracker, count, results, key = playing
    act_key, key = jax.random.split(key)
    env_state, seen = env.step(env_state, act(env_state.obs, act_key))
    tracker, total, finished = tracking.advance(
        tracker, seen.reward, seen.cost, seen.terminated, seen.truncated
    )
    # `finished` is 1, or NaN where the environment gives NaN: that ends an episode, too, and
    # leaves it no figures.
    is_over = finished != 0
    played = Episodes(total.return_, total.cost, total.length)
    played = jax.tree.map(lambda x: x * finished, played)
    # Row `count` of an environment's column takes the episode; beyond the last row, none does.
    row = jnp.where(is_over, count, results.length.shape[0])
    column = jnp.arange(env.num_envs)
    results = jax.tree.map(lambda r, x: r.at[row, column].set(x, mode="drop"), results, played)
    return Playing(env_state, tracker, count + is_over, results, key)


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
