"""Acting in environments that live outside JAX, such as the real Safety-Gymnasium.

They are stepped from Python, and a rollout travels to the device as a whole. It has the structure,
shapes and dtypes of one from the compiled collector, so that everything that follows (episode
tracking, the compiled update) is the same.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from smpo_jax.augmentation import NONE, Augmentation, missing_account
from smpo_jax.training.evaluation import Act, Episodes
from smpo_jax.types import Algorithm, Key, LearnerState, StepLike, Transition

Collect = Callable[
    [LearnerState, Float[np.ndarray, "N O"], Key], tuple[Float[np.ndarray, "N O"], Transition]
]


class HostVectorEnv(Protocol):
    """`N` environments outside JAX that reset themselves; they hold their own state."""

    num_envs: int
    observation_size: int
    action_size: int
    episode_length: int

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes."""
        ...

    def step(
        self, action: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N O"], StepLike[np.ndarray]]:
        """Acts, and starts a new episode wherever one has ended.

        Returns:
            What to act on next, which after the end of an episode is the first observation of a
            fresh one; and the step.
        """
        ...


class RestartingHostVectorEnv(HostVectorEnv, Protocol):
    """Environments outside JAX whose episodes may be ended from without."""

    def restart(self, over: Bool[np.ndarray, " N"]) -> Float[np.ndarray, "N O"]:
        """Starts new episodes where `over`; their first observations (other rows: anything)."""
        ...


class AugmentedHostEnv:
    """Environments outside JAX with an account of their costs; the same functions as natively."""

    def __init__(self, env: RestartingHostVectorEnv, augmentation: Augmentation):
        self.num_envs = env.num_envs
        self.observation_size = env.observation_size + augmentation.size
        self.action_size = env.action_size
        self.episode_length = env.episode_length
        self._env = env
        self.account_size = len(augmentation.start)
        self._start = np.tile(np.asarray(augmentation.start), (env.num_envs, 1))
        self._account = self._start
        self._observe = jax.jit(lambda z: augmentation.observe(jnp.asarray(z, float)))

        @jax.jit
        def advance(z: jax.Array, cost: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = augmentation.step(jnp.asarray(z, float), jnp.asarray(cost, float))
            return z, augmentation.is_over(z)

        self._advance = advance

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes."""
        self._account = self._start
        return self._show(self._env.reset(seed))

    def step(
        self, action: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N O"], StepLike[np.ndarray]]:
        """Acts; a new episode starts also where the account ends one."""
        obs, seen = self._env.step(action)
        self._account, is_over = map(np.asarray, self._advance(self._account, seen.cost))
        next_obs = self._show(seen.next_obs)
        terminated = np.maximum(seen.terminated, is_over)
        early = is_over & (seen.terminated + seen.truncated == 0)
        if early.any():
            obs = np.where(early[:, None], self._env.restart(early), obs)
        truncated = np.where(terminated > 0, 0.0, seen.truncated)
        ended = (terminated + truncated > 0)[:, None]
        self._account = np.where(ended, self._start, self._account)
        seen = seen._replace(terminated=terminated, truncated=truncated, next_obs=next_obs)
        return self._show(obs), seen

    def _show(self, obs: Float[np.ndarray, "N O"]) -> Float[np.ndarray, "N P"]:
        return np.concatenate([obs, np.asarray(self._observe(self._account))], axis=-1)


def augment_host(env: RestartingHostVectorEnv, augmentation: Augmentation) -> HostVectorEnv:
    """The environments with the account; the environments themselves if there is none to keep."""
    return env if augmentation is NONE else AugmentedHostEnv(env, augmentation)


def make_collector(algorithm: Algorithm, env: HostVectorEnv, length: int) -> Collect:
    """`(learner, obs, key) -> (obs, transition)`: `length` steps of every environment.

    `obs` is what to act on next: of `env.reset` at first, then what the last call returned. Same
    use of the key as `rollout.collect`. The acting policy is compiled once for all learners.

    Raises:
        ValueError: the environments lack what the method adds to them (see `augment_host`).
    """
    kept = env.account_size if isinstance(env, AugmentedHostEnv) else 0
    if algorithm.account_size not in (0, kept):
        raise ValueError(missing_account(algorithm.account_size))

    @jax.jit
    def act(learner: LearnerState, obs: Float[np.ndarray, "N O"], key: Key):
        action_key, key = jax.random.split(key)
        return *algorithm.policy(learner)(jnp.asarray(obs, float), action_key), key

    def collect(
        learner: LearnerState, obs: Float[np.ndarray, "N O"], key: Key
    ) -> tuple[Float[np.ndarray, "N O"], Transition]:
        acted, happened = [], []
        for _ in range(length):
            action, log_prob, dist, key = act(learner, obs, key)
            following, step = env.step(np.asarray(action))
            acted.append((action, log_prob, dist))
            happened.append(
                (obs, step.reward, step.cost, step.terminated, step.truncated, step.next_obs)
            )
            obs = following
        action, log_prob, dist = jax.tree.map(_stack, *acted)
        seen, reward, cost, terminated, truncated, next_obs = map(_stack, *happened)
        transition = Transition(
            obs=seen,
            action=action,
            log_prob=log_prob,
            dist=dist,
            reward=reward,
            cost=cost,
            terminated=terminated,
            truncated=truncated,
            next_obs=next_obs,
        )
        return obs, transition

    return collect


def _stack(*rows: jax.Array | np.ndarray) -> jax.Array:
    # Through NumPy: stacking hundreds of device arrays would compile a large program.
    return jnp.asarray(np.stack([np.asarray(row) for row in rows]), float)


def evaluate_host(act: Act, env: HostVectorEnv, key: Key, episodes: int) -> Episodes:
    """Plays `episodes` whole episodes, counted as `evaluation.evaluate` counts them.

    Every environment plays the same number (one less where `episodes` does not divide), fixed
    beforehand, so that short episodes are not favoured for being first. `act` must be traceable.
    """
    jitted = jax.jit(lambda obs, key, t: act(jnp.asarray(obs, float), jax.random.fold_in(key, t)))
    seed_key, key = jax.random.split(key)
    obs = env.reset(int(jax.random.bits(seed_key)))

    index = np.arange(env.num_envs)
    shares = episodes // env.num_envs + (index < episodes % env.num_envs)
    totals = np.zeros((3, env.num_envs))
    finished: list[list[np.ndarray]] = [[] for _ in index]
    t = 0
    while any(len(own) < share for own, share in zip(finished, shares, strict=True)):
        obs, step = env.step(np.asarray(jitted(obs, key, t)))
        totals += [step.reward, step.cost, np.ones(env.num_envs)]
        ended = np.maximum(step.terminated, step.truncated)
        over = ended != 0  # NaN ends an episode, too, and leaves it no figures
        for i in index[over]:
            finished[i].append(totals[:, i] * ended[i])
        totals[:, over] = 0.0
        t += 1
    counted = [own[:share] for own, share in zip(finished, shares, strict=True)]
    return_, cost, length = np.array([row for own in counted for row in own]).T
    return Episodes(*(jnp.asarray(x, float) for x in (return_, cost, length)))
