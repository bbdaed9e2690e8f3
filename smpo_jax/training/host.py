"""Acting in environments that live outside JAX, such as the real Safety-Gymnasium.

They are stepped from Python, and a rollout travels to the device as a whole. It has the structure,
shapes and dtypes of one from the compiled collector, so that everything that follows (episode
tracking, the compiled update) is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from smpo_jax.augmentation import NONE, Augmentation, missing_account, require_vectors
from smpo_jax.core import constraints, episodes
from smpo_jax.core.constraints import each
from smpo_jax.training import loop
from smpo_jax.training.evaluation import Act, Episodes
from smpo_jax.training.tracking import not_counted, track
from smpo_jax.types import (
    Algorithm,
    Key,
    LearnerState,
    Metrics,
    Spec,
    StepLike,
    TrainState,
    Transition,
)

A_co = TypeVar("A_co", covariant=True)


@runtime_checkable
class HostStepLike(StepLike[A_co], Protocol[A_co]):
    """What environments outside JAX report of one step."""

    @property
    def lost(self) -> A_co:
        """1 where the episode is cut and of no account: what played it has died, `[N]`."""
        ...


@runtime_checkable
class HostVectorEnv(Protocol):
    """`N` environments outside JAX that reset themselves; they hold their own state."""

    num_envs: int
    observation_size: int
    action_size: int
    episode_length: int

    @property
    def halves(self) -> Sequence[slice]:
        """Rows of environments that are stepped on their own, with `send` and `receive` in turn.

        The policy acts for one while another is stepped. At least one.
        """
        ...

    @property
    def first_ages(self) -> Int[np.ndarray, " N"]:
        """Steps that the clock of each environment has behind it when it is reset."""
        ...

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes."""
        ...

    def send(self, half: int, action: Float[np.ndarray, "H A"]) -> None:
        """Begins a step of one half."""
        ...

    def receive(self, half: int) -> tuple[Float[np.ndarray, "H O"], HostStepLike[np.ndarray]]:
        """Ends a step of one half, and starts a new episode wherever one has ended.

        Returns:
            What to act on next, which after the end of an episode is the first observation of a
            fresh one; and the step.
        """
        ...

    def restart(self, half: int, over: Bool[np.ndarray, " H"]) -> Float[np.ndarray, "H O"]:
        """Starts new episodes in a half where `over`; what to act on next."""
        ...

    def notices(self) -> list[str]:
        """What went wrong since the last call and was put right, one line each."""
        ...

    def close(self) -> None:
        """Gives back what the environments hold; a `reset` may follow."""
        ...


class Collected(NamedTuple):
    """A rollout of environments outside JAX.

    Attributes:
        obs: what to act on next.
        transition: what happened.
        lost: 1 where an episode was cut that is of no account.
    """

    obs: Float[np.ndarray, "N O"]
    transition: Transition
    lost: Float[jax.Array, "T N"]


Collect = Callable[[LearnerState, Float[np.ndarray, "N O"], Key], Collected]
HostIterate = Callable[
    [TrainState, Float[np.ndarray, "N O"]],
    tuple[TrainState, Float[np.ndarray, "N O"], Metrics],
]


class AugmentedHostEnv:
    """Environments outside JAX with an account of their costs; the same functions as natively."""

    def __init__(self, env: HostVectorEnv, augmentation: Augmentation):
        self.num_envs = env.num_envs
        self.observation_size = env.observation_size + augmentation.size
        self.action_size = env.action_size
        self.episode_length = env.episode_length
        self.discrete = getattr(env, "discrete", False)
        self.first_action = getattr(env, "first_action", 0)
        self.observation_names = getattr(env, "observation_names", ())
        self.observation_shape = getattr(env, "observation_shape", ())
        self.cost_names = constraints.names_of(env)
        self.halves = env.halves
        self.first_ages = env.first_ages
        self.send = env.send
        self.notices = env.notices
        self.close = env.close
        self._env = env
        self.account_size = len(augmentation.start)
        self._first = np.tile(np.asarray(augmentation.start), (env.num_envs, 1))
        self._draw = augmentation.draw and jax.jit(jax.vmap(augmentation.draw))
        self._key = jax.random.key(0)
        self._account = self._first
        self._observe = jax.jit(lambda z: augmentation.observe(jnp.asarray(z, float)))

        @jax.jit
        def advance(z: jax.Array, cost: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = augmentation.step(jnp.asarray(z, float), jnp.asarray(cost, float))
            return z, augmentation.is_over(z)

        self._advance = advance

    def reset(self, seed: int) -> Float[np.ndarray, "N O"]:
        """First observations of new episodes."""
        self._key = jax.random.key(seed)
        self._account = self._start(self._first)
        return self._show(self._env.reset(seed), self._account)

    def receive(self, half: int) -> tuple[Float[np.ndarray, "H O"], HostStepLike[np.ndarray]]:
        """Ends a step; a new episode starts also where the account ends one."""
        rows = self.halves[half]
        obs, seen = self._env.receive(half)
        account, is_over = map(np.asarray, self._advance(self._account[rows], seen.cost))
        next_obs = self._show(seen.next_obs, account)
        is_over = is_over & (seen.lost == 0)
        terminated = np.maximum(seen.terminated, is_over)
        early = is_over & (seen.terminated + seen.truncated == 0)
        if early.any():
            obs = np.where(early[:, None], self._env.restart(half, early), obs)
        truncated = np.where(terminated > 0, 0.0, seen.truncated)
        ended = (terminated + truncated > 0)[:, None]
        start = self._start(self._first[rows]) if ended.any() else account
        self._account[rows] = np.where(ended, start, account)
        seen = seen._replace(terminated=terminated, truncated=truncated, next_obs=next_obs)
        return self._show(obs, self._account[rows]), seen

    def restart(self, half: int, over: Bool[np.ndarray, " H"]) -> Float[np.ndarray, "H O"]:
        """Starts new episodes in a half where `over`; what to act on next."""
        rows = self.halves[half]
        start = self._start(self._first[rows])
        self._account[rows] = np.where(over[:, None], start, self._account[rows])
        return self._show(self._env.restart(half, over), self._account[rows])

    def _start(self, first: Float[np.ndarray, "H K"]) -> Float[np.ndarray, "H K"]:
        """Accounts of new episodes: the given ones, or drawn."""
        if self._draw is None:
            return first.copy()
        own_key, self._key = jax.random.split(self._key)
        return np.array(self._draw(jax.random.split(own_key, len(first))))

    def _show(
        self, obs: Float[np.ndarray, "H O"], account: Float[np.ndarray, "H K"]
    ) -> Float[np.ndarray, "H P"]:
        return np.concatenate([obs, np.asarray(self._observe(account))], axis=-1)


def augment_host(env: HostVectorEnv, augmentation: Augmentation) -> HostVectorEnv:
    """The environments with the account; the environments themselves if there is none to keep.

    Raises:
        ValueError: of the account something is shown, and observations are pictures.
    """
    if augmentation is NONE:
        return env
    require_vectors(env, augmentation)
    return AugmentedHostEnv(env, augmentation)


def make_collector(algorithm: Algorithm, env: HostVectorEnv, length: int) -> Collect:
    """`(learner, obs, key) -> Collected`: `length` steps of every environment.

    `obs` is what to act on next: of `env.reset` at first, then what the last call returned. Same
    use of the key as `rollout.collect`, but that each half has its share of a step's key. The
    acting policy is compiled once for all learners.

    Raises:
        ValueError: the environments lack what the method adds to them (see `augment_host`).
    """
    kept = env.account_size if isinstance(env, AugmentedHostEnv) else 0
    if algorithm.account_size not in (0, kept):
        raise ValueError(missing_account(algorithm.account_size))
    parts = len(env.halves)

    @jax.jit
    def keys_of(key: Key) -> jax.Array:
        def step(key: Key, _: None) -> tuple[Key, jax.Array]:
            action_key, key = jax.random.split(key)
            own = jax.random.split(action_key, parts) if parts > 1 else action_key[None]
            return key, jax.random.key_data(own)

        return jax.lax.scan(step, key, length=length)[1]

    @jax.jit
    def act(learner: LearnerState, obs: Float[np.ndarray, "H O"], key_data: np.ndarray | jax.Array):
        key = jax.random.wrap_key_data(jnp.asarray(key_data))
        return algorithm.policy(learner)(jnp.asarray(obs, float), key)

    def collect(learner: LearnerState, obs: Float[np.ndarray, "N O"], key: Key) -> Collected:
        keys = np.asarray(keys_of(key))
        following = np.array(obs)
        # Rows of halves come one by one; arrays of the device would be a program for each stack.
        acted = _Rows(length, env.num_envs)
        happened = _Rows(length, env.num_envs)

        def send(t: int, half: int) -> None:
            rows = env.halves[half]
            seen = following[rows]
            action, log_prob, dist = jax.tree.map(np.asarray, act(learner, seen, keys[t, half]))
            acted.put(t, rows, (seen, action, log_prob, dist))
            env.send(half, action)

        for half in range(parts):
            send(0, half)
        for t in range(length):
            for half, rows in enumerate(env.halves):
                following[rows], step = env.receive(half)
                happened.put(
                    t,
                    rows,
                    (
                        step.reward,
                        step.cost,
                        step.terminated,
                        step.truncated,
                        step.next_obs,
                        step.lost,
                    ),
                )
                if t + 1 < length:
                    send(t + 1, half)
        seen, action, log_prob, dist = acted.whole()
        reward, cost, terminated, truncated, next_obs, lost = happened.whole()
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
        return Collected(following, transition, lost)

    return collect


class _Rows:
    """Pytrees of rows `[H, ...]`, put together to arrays of `[T, N, ...]`."""

    def __init__(self, length: int, num_envs: int) -> None:
        self._shape = (length, num_envs)
        self._whole: Any = None

    def put(self, t: int, rows: slice, tree: Any) -> None:
        if self._whole is None:
            self._whole = jax.tree.map(self._empty, tree)
        for whole, leaf in zip(jax.tree.leaves(self._whole), jax.tree.leaves(tree), strict=True):
            whole[t, rows] = leaf

    def _empty(self, leaf: np.ndarray) -> np.ndarray:
        is_float = np.issubdtype(leaf.dtype, np.floating)
        dtype = jnp.result_type(float) if is_float else leaf.dtype
        return np.zeros((*self._shape, *leaf.shape[1:]), dtype)

    def whole(self) -> Any:
        return jax.tree.map(jnp.asarray, self._whole)


def init(algorithm: Algorithm, env: HostVectorEnv, key: Key) -> TrainState:
    """The state before the first iteration; of the environments it holds nothing."""
    learner_key, key = jax.random.split(key)
    return TrainState(
        learner=algorithm.init(learner_key), env_state=(), tracker=_tracker(env), key=key
    )


def going_on(env: HostVectorEnv, state: TrainState) -> TrainState:
    """The state of a run that goes on in environments that begin anew."""
    return state.replace(tracker=_tracker(env))


def _tracker(env: HostVectorEnv) -> episodes.Tracker:
    return episodes.start(env.num_envs, jnp.asarray(env.first_ages), constraints.names_of(env))


def begin(env: HostVectorEnv, state: TrainState) -> Float[np.ndarray, "N O"]:
    """First observations of episodes in all environments, with seeds from the state's key."""
    return env.reset(int(jax.random.bits(jax.random.fold_in(state.key, 0))))


def compile_iteration(
    algorithm: Algorithm,
    env: HostVectorEnv,
    spec: Spec,
    state: TrainState,
    options: Mapping[str, Any] | None = None,
) -> HostIterate:
    """Roll out, track episodes, learn: as `loop.iteration`, with the environments' side of it.

        state, obs, metrics = run(state, obs)      # obs: of `begin` at first

    The update is one program, compiled for states like this one, and takes the state that it is
    given.

    Args:
        algorithm: the method.
        env: what it acts in.
        spec: of these environments.
        state: as `init` makes it.
        options: the compiler's.

    Raises:
        ValueError: the spec is one of other environments.
    """
    loop.require_match(env, spec)
    collect = make_collector(algorithm, env, spec.rollout_length)

    def learn(
        state: TrainState, transition: Transition, lost: Float[jax.Array, "T N"], keys: jax.Array
    ) -> tuple[TrainState, Metrics]:
        other = not_counted(algorithm, transition)
        lost = lost if other is None else jnp.maximum(lost, other)
        tracker, rollout = track(spec, state.tracker, transition, lost)
        learner, metrics = algorithm.update(state.learner, rollout, keys[0])
        after = TrainState(learner, state.env_state, tracker, keys[1])
        return after, loop.whole_metrics(learner, rollout, metrics)

    transition, lost = _rollout_shapes(algorithm, env, spec, state)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
    lowered = jax.jit(learn, donate_argnums=0).lower(state, transition, lost, keys)
    compiled = lowered.compile(dict(options or {}))

    def run(
        state: TrainState, obs: Float[np.ndarray, "N O"]
    ) -> tuple[TrainState, Float[np.ndarray, "N O"], Metrics]:
        rollout_key, update_key, key = jax.random.split(state.key, 3)
        collected = collect(state.learner, obs, rollout_key)
        keys = jnp.stack([update_key, key])
        state, metrics = compiled(state, collected.transition, collected.lost, keys)
        return state, collected.obs, metrics

    return run


def _rollout_shapes(
    algorithm: Algorithm, env: HostVectorEnv, spec: Spec, state: TrainState
) -> tuple[Transition, jax.ShapeDtypeStruct]:
    """What a collector returns, without acting."""

    def rollout(learner: LearnerState, key: Key) -> tuple[Transition, jax.Array]:
        obs, one = jnp.zeros((env.num_envs, env.observation_size)), jnp.zeros(env.num_envs)
        action, log_prob, dist = algorithm.policy(learner)(obs, key)
        cost = each(lambda _: one, spec.cost_limit)
        step = Transition(obs, action, log_prob, dist, one, cost, one, one, obs)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (spec.rollout_length, *leaf.shape)), (step, one)
        )

    return jax.eval_shape(rollout, state.learner, state.key)


def evaluate_host(
    act: Act,
    env: HostVectorEnv,
    key: Key,
    number: int,
    show: Callable[[int], None] = lambda played: None,
) -> Episodes:
    """Plays `number` whole episodes, counted as `evaluation.evaluate` counts them.

    Every environment plays the same number (one less where `number` does not divide), fixed
    beforehand, so that short episodes are not favoured for being first. Those that are lost are
    played again. `act` must be traceable. `show` takes how many have been played, after each step.
    """
    jitted = jax.jit(lambda obs, key, t: act(jnp.asarray(obs, float), jax.random.fold_in(key, t)))
    seed_key, key = jax.random.split(key)
    obs = np.array(env.reset(int(jax.random.bits(seed_key))))

    index = np.arange(env.num_envs)
    shares = number // env.num_envs + (index < number % env.num_envs)
    names = constraints.names_of(env)
    totals = np.zeros((2 + len(names), env.num_envs))
    finished: list[list[np.ndarray]] = [[] for _ in index]
    t = 0
    while any(len(own) < share for own, share in zip(finished, shares, strict=True)):
        action = np.asarray(jitted(obs, key, t))
        for half, rows in enumerate(env.halves):
            env.send(half, action[rows])
        for half, rows in enumerate(env.halves):
            obs[rows], step = env.receive(half)
            costs = constraints.in_order(step.cost, names)
            totals[:, rows] += [step.reward, *costs, np.ones_like(step.reward)]
            ended = np.maximum(step.terminated, step.truncated)
            over = ended != 0  # NaN ends an episode, too, and leaves it no figures
            for i in np.flatnonzero(over & (step.lost == 0)):
                finished[index[rows][i]].append(totals[:, rows][:, i] * ended[i])
            totals[:, rows] = np.where(over, 0.0, totals[:, rows])
        show(int(np.sum(np.minimum(list(map(len, finished)), shares))))
        t += 1
    counted = [own[:share] for own, share in zip(finished, shares, strict=True)]
    return_, *costs, length = (
        jnp.asarray(x, float) for x in np.array([row for own in counted for row in own]).T
    )
    rest = iter(costs)
    return Episodes(return_, constraints.made(names, lambda: next(rest)), length)
