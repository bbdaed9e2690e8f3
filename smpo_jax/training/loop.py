"""Training as pure functions: a state, an iteration, many iterations in one compiled program.

    algorithm = make("ppo", spec)
    state = init(algorithm, env, key)
    run = chunk(algorithm, env, spec, iterations=10)
    state, metrics = run(state)                  # metrics: [10] each; the old state is gone

Metrics of every method are finite as long as training is; of those that the loop adds, `rollout/*`
is not finite as soon as a field of a step is not (NaN in `done` shows in `rollout/terminated`), and
`learner/norm` as soon as any parameter is not. Only `episode/*` is NaN as a matter of course, in
iterations in which no episode finished (`episode/count` is 0).
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from smpo_jax.algorithms import base
from smpo_jax.augmentation import require_account
from smpo_jax.core import constraints, episodes
from smpo_jax.training import devices, meetings
from smpo_jax.training.rollout import collect
from smpo_jax.training.tracking import not_counted, track
from smpo_jax.types import (
    Algorithm,
    EpisodeStats,
    Key,
    LearnerState,
    Metrics,
    Rollout,
    Scalar,
    Sized,
    Spec,
    TrainState,
    Transition,
    VectorEnv,
)

ROLLOUT = "rollout/"  # metrics that say what the environment gave
BROKEN = (
    "the environment gives values that are not finite, or costs below 0; smpo_envs.check_env(env) "
    "says where"
)

Iterate = Callable[[TrainState], tuple[TrainState, Metrics]]
Limits = Scalar | Sequence[Scalar] | Mapping[str, Scalar] | Float[Array, " K"]


def make_spec(
    env: Sized,
    *,
    rollout_length: int,
    total_iterations: int,
    cost_limit: Limits = 25.0,
    shards: int = 1,
) -> Spec:
    """What a method must know of this batch of environments.

    Args:
        env: the environments.
        rollout_length: steps of each between two updates.
        total_iterations: updates of the whole run, over which learning rates decay.
        cost_limit: the bound on the expected cost of an episode; infinity is no bound. Of
            environments with several costs one for each, in their order or by name.
        shards: parts of the environments that are shuffled each by themselves: the number of
            devices of a mesh, or a multiple of it.

    Raises:
        ValueError: a number that is not whole or below 1, a limit that is negative or NaN, not as
            many limits as the environments have costs, or shards that are not equal.
    """
    spec = Spec(
        observation_size=env.observation_size,
        action_size=env.action_size,
        num_envs=env.num_envs,
        rollout_length=rollout_length,
        episode_length=env.episode_length,
        total_iterations=total_iterations,
        cost_limit=constraints.limits(cost_limit, constraints.names_of(env)),
        discrete=bool(getattr(env, "discrete", False)),
        observation_shape=tuple(getattr(env, "observation_shape", ())),
        shards=shards,
    )
    base.require_possible(spec)
    return spec


def init(algorithm: Algorithm, env: VectorEnv, key: Key, mesh: Mesh | None = None) -> TrainState:
    """The state before the first iteration.

    Args:
        algorithm: the method.
        env: what it acts in.
        key: for the network's parameters and everything to come.
        mesh: of one axis: devices that share the environments (see `devices`); None: one device.
    """
    require_account(algorithm.account_size, env)
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
            tracker=episodes.start(env.num_envs, env_state.steps, constraints.names_of(env)),
            key=key,
        )
        return placed(state, mesh, env.num_envs)

    return jax.jit(start)


def placed(state: TrainState, mesh: Mesh | None, num_envs: int) -> TrainState:
    """The state where an iteration takes and leaves it: only environments differ by device."""
    whole = devices.replicate(state.replace(env_state=None, tracker=None), mesh)
    return whole.replace(
        env_state=devices.shard_state(state.env_state, mesh, num_envs),
        tracker=devices.shard_state(state.tracker, mesh, num_envs),
    )


def iteration(
    algorithm: Algorithm, env: VectorEnv, spec: Spec, mesh: Mesh | None = None
) -> Iterate:
    """Roll out, track episodes, learn: one iteration as a function of the state.

    Raises:
        ValueError: the spec is one of other environments or has values that cannot be, the
            environments lack what the method adds to them, or the devices of the mesh cannot share
            them or the shards of the spec.
    """
    base.require_possible(spec)
    require_match(env, spec)
    devices.require_shards(mesh, spec.shards)
    require_account(algorithm.account_size, env)
    env = devices.sharded(env, mesh)

    def learn(
        learner: LearnerState, tracker: episodes.Tracker, transition: Transition, key: Key
    ) -> tuple[LearnerState, episodes.Tracker, Metrics]:
        dealt = devices.dealt(transition, mesh)
        tracker, rollout = track(spec, tracker, dealt, not_counted(algorithm, dealt))
        learner, metrics = algorithm.update(learner, rollout, key)
        return learner, tracker, whole_metrics(learner, rollout, metrics)

    learn = meetings.in_order(learn, mesh)

    def run(state: TrainState) -> tuple[TrainState, Metrics]:
        rollout_key, update_key, key = jax.random.split(state.key, 3)
        env_state, transition = collect(
            algorithm.policy(state.learner), env, state.env_state, rollout_key, spec.rollout_length
        )
        learner, tracker, metrics = learn(state.learner, state.tracker, transition, update_key)
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
        ValueError: as `iteration`; and, unless it is called under `jit` or `vmap`, which know no
            values, if the environment gave NaN or a cost below 0 (see `rollout_metrics`).
    """
    one = iteration(algorithm, env, spec, mesh)
    state = init(algorithm, env, key, mesh)
    state, metrics = jax.lax.scan(lambda state, _: one(state), state, length=iterations)
    _require_sound(metrics)
    return state, metrics


def whole_metrics(learner: LearnerState, rollout: Rollout, metrics: Metrics) -> Metrics:
    """What a method reports of an update, with what every iteration does."""
    return {
        **rollout_metrics(rollout.transition),
        **episode_metrics(rollout.episodes),
        **metrics,
        "learner/norm": optax.tree.norm(learner.params),
    }


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


def rollout_metrics(transition: Transition) -> Metrics:
    """`rollout/...`: what all steps were like; each is finite if and only if that field is.

    An environment that gives NaN is told of by the field it came in. A cost below 0, which would
    buy room for others, makes `rollout/cost` NaN.
    """

    def of_cost(cost: Float[Array, "T N"]) -> Float[Array, ""]:
        return jnp.where(jnp.all(cost >= 0), jnp.mean(cost), jnp.nan)

    return {
        "rollout/reward": jnp.mean(transition.reward),
        **constraints.labelled("rollout/cost", constraints.each(of_cost, transition.cost)),
        "rollout/terminated": jnp.mean(transition.terminated),
        "rollout/largest_observation": jnp.max(jnp.abs(transition.next_obs)),
    }


def episode_metrics(stats: EpisodeStats) -> Metrics:
    """`episode/...`: what the episodes that finished in a rollout were like; NaN if none did."""
    return {
        "episode/return": stats.return_,
        **constraints.labelled("episode/cost", stats.cost),
        "episode/length": stats.length,
        "episode/over_limit": stats.over_limit,
        "episode/count": stats.count,
    }


def _require_sound(metrics: Metrics) -> None:
    """Raises a ValueError for the first iteration in which the environment gave what cannot be."""
    seen = {name: values for name, values in metrics.items() if name.startswith(ROLLOUT)}
    if any(isinstance(values, jax.core.Tracer) for values in seen.values()):
        return
    # What comes later may be the answer to actions that are NaN by then.
    broken = [
        (int(jnp.argmin(jnp.isfinite(values))), name)
        for name, values in seen.items()
        if not jnp.all(jnp.isfinite(values))
    ]
    if broken:
        first, name = min(broken)
        raise ValueError(f"iteration {first + 1}: {name} is {seen[name][first]}: {BROKEN}")


def require_match(env: Sized, spec: Spec) -> None:
    """Raises a ValueError if the spec is one of other environments."""
    for name in ("observation_size", "action_size", "num_envs", "episode_length"):
        in_spec, in_env = getattr(spec, name), getattr(env, name)
        if in_spec != in_env:
            raise ValueError(f"the spec says {name}={in_spec}, the environments have {in_env}")
    if spec.discrete != bool(getattr(env, "discrete", False)):
        kinds = ("continuous", "discrete")
        raise ValueError(
            f"the spec is of {kinds[spec.discrete]} actions, the environments have "
            f"{kinds[not spec.discrete]} ones"
        )
    constraints.limits(spec.cost_limit, constraints.names_of(env))
