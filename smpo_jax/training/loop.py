"""Training as pure functions: a state, an iteration, many iterations in one compiled program.

    algorithm = make("ppo", spec)
    state = init(algorithm, env, key)
    run = chunk(algorithm, env, spec, iterations=10)
    state, metrics = run(state)                  # metrics: [10] each; the old state is gone

Metrics of every method are finite as long as training is; `learner/norm`, which the loop adds,
is not finite as soon as any parameter is not. Only `episode/*` is NaN as a matter of course,
in iterations in which no episode finished (`episode/count` is 0).
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from smpo_jax.core import episodes, optimise
from smpo_jax.training import devices
from smpo_jax.training.rollout import collect
from smpo_jax.training.tracking import track
from smpo_jax.types import (
    Algorithm,
    EpisodeStats,
    Key,
    Metrics,
    Scalar,
    Spec,
    TrainState,
    VectorEnv,
)

Iterate = Callable[[TrainState], tuple[TrainState, Metrics]]


def make_spec(
    env: VectorEnv, *, rollout_length: int, total_iterations: int, cost_limit: Scalar = 25.0
) -> Spec:
    """What a method must know of this batch of environments."""
    return Spec(
        observation_size=env.observation_size,
        action_size=env.action_size,
        num_envs=env.num_envs,
        rollout_length=rollout_length,
        episode_length=env.episode_length,
        total_iterations=total_iterations,
        cost_limit=cost_limit,
    )


def init(algorithm: Algorithm, env: VectorEnv, key: Key, mesh: Mesh | None = None) -> TrainState:
    """The state before the first iteration.

    Args:
        algorithm: the method.
        env: what it acts in.
        key: for the network's parameters and everything to come.
        mesh: of one axis: devices that share the environments (see `devices`); None: one device.
    """
    return _compiled_init(algorithm, env, mesh)(key)


# Only the last one is kept, for the next seed of the same run: a process that makes many different
# runs, such as a search, must not keep all their environments.
@functools.lru_cache(maxsize=1)
def _compiled_init(
    algorithm: Algorithm, env: VectorEnv, mesh: Mesh | None
) -> Callable[[Key], TrainState]:
    """One program instead of hundreds of small ones, and no two leaves share a buffer."""

    def start(key: Key) -> TrainState:
        learner_key, env_key, key = jax.random.split(key, 3)
        env_state = devices.sharded(env, mesh).reset(env_key)
        state = TrainState(
            learner=algorithm.init(learner_key),
            env_state=env_state,
            tracker=episodes.start(env.num_envs, env_state.steps),
            key=key,
        )
        return placed(state, mesh, env.num_envs)

    return jax.jit(start)


def placed(state: TrainState, mesh: Mesh | None, num_envs: int) -> TrainState:
    """The state where an iteration takes and leaves it: only environments differ by device."""
    whole = devices.replicate(state.replace(env_state=None), mesh)
    return whole.replace(env_state=devices.shard_state(state.env_state, mesh, num_envs))


def iteration(
    algorithm: Algorithm, env: VectorEnv, spec: Spec, mesh: Mesh | None = None
) -> Iterate:
    """Roll out, track episodes, learn: one iteration as a function of the state.

    Raises:
        ValueError: the spec is one of other environments, or the devices of the mesh cannot share
            these.
    """
    _require_match(env, spec)
    env = devices.sharded(env, mesh)

    def run(state: TrainState) -> tuple[TrainState, Metrics]:
        rollout_key, update_key, key = jax.random.split(state.key, 3)
        env_state, transition = collect(
            algorithm.policy(state.learner), env, state.env_state, rollout_key, spec.rollout_length
        )
        tracker, rollout = track(spec, state.tracker, devices.replicate(transition, mesh))
        learner, metrics = algorithm.update(state.learner, rollout, update_key)
        metrics = {**episode_metrics(rollout.episodes), **metrics}
        metrics["learner/norm"] = optimise.norm(learner.params)
        after = TrainState(learner, env_state, tracker, key)
        return placed(after, mesh, env.num_envs), devices.replicate(metrics, mesh)

    return run


def chunk(
    algorithm: Algorithm, env: VectorEnv, spec: Spec, iterations: int, mesh: Mesh | None = None
) -> Iterate:
    """`iterations` iterations as one compiled program; metrics have a leading axis of that length.

    The state that goes in is donated: its buffers are reused, so go on with the one that comes out.
    """
    one = iteration(algorithm, env, spec, mesh)

    def run(state: TrainState) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, _: one(state), state, length=iterations)

    return jax.jit(run, donate_argnums=0)


def train(
    algorithm: Algorithm,
    env: VectorEnv,
    spec: Spec,
    key: Key,
    iterations: int,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """A whole run as a function of its key, for `jax.jit` and `jax.vmap` over seeds.

    A batch of runs equals the same runs one by one.

    Raises:
        ValueError: costs of episodes were negative; inside `jit` and `vmap` that can't be seen.
    """
    one = iteration(algorithm, env, spec, mesh)
    state = init(algorithm, env, key, mesh)
    state, metrics = jax.lax.scan(lambda state, _: one(state), state, length=iterations)
    cost = metrics["episode/cost"]
    if not isinstance(cost, jax.core.Tracer) and jnp.any(cost < 0):
        raise ValueError(f"cost of an episode below 0 ({jnp.nanmin(cost):g}): costs are 0 or more")
    return state, metrics


def train_many(
    build: Callable[..., Algorithm],
    env: VectorEnv,
    spec: Spec,
    key: Key,
    iterations: int,
    settings: Mapping[str, Sequence[float] | Float[np.ndarray, " R"] | Float[Array, " R"]],
) -> tuple[TrainState, Metrics]:
    """Trains `R` runs in one program, each with settings of its own: a search that compiles once.

        build = functools.partial(sx.make, "ppo_lag", spec, minibatches=4)
        states, metrics = sx.train_many(build, env, spec, key, 100, {"learning_rate": rates})

    It is `train` under `jax.jit` and `jax.vmap`. All leaves and metrics have a leading axis of
    length `R`; `jax.tree.map(lambda leaf: leaf[i], states.learner)` is one learner of them.

    Args:
        build: a run's method from its settings, by keyword; they are traced, so only float fields
            can differ.
        env: what all of them act in.
        spec: what a method must know of it.
        key: split into one for each run.
        iterations: of each run.
        settings: the values of the runs.

    Raises:
        ValueError: there is no value, or not the same number of each.
    """
    values = {name: jnp.asarray(each, jnp.result_type(float)) for name, each in settings.items()}
    lengths = {name: len(each) for name, each in values.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"settings must be of one length, a value for each run: {lengths}")

    def one(key: Key, own: Mapping[str, Scalar]) -> tuple[TrainState, Metrics]:
        return train(build(**own), env, spec, key, iterations)

    return jax.jit(jax.vmap(one))(jax.random.split(key, next(iter(lengths.values()))), values)


def episode_metrics(stats: EpisodeStats) -> Metrics:
    """`episode/...`: what the episodes that finished in a rollout were like; NaN if none did."""
    return {
        "episode/return": stats.return_,
        "episode/cost": stats.cost,
        "episode/length": stats.length,
        "episode/over_limit": stats.over_limit,
        "episode/count": stats.count,
    }


def _require_match(env: VectorEnv, spec: Spec) -> None:
    for name in ("observation_size", "action_size", "num_envs", "episode_length"):
        in_spec, in_env = getattr(spec, name), getattr(env, name)
        if in_spec != in_env:
            raise ValueError(f"the spec says {name}={in_spec}, the environments have {in_env}")
