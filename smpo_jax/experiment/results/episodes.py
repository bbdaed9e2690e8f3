"""Episodes of a policy with where everything was at every step, for pictures."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from smpo_envs import compilation
from smpo_envs.drawing import Drawing
from smpo_envs.step import by_name
from smpo_jax.augmentation import AugmentedEnv, SingleEnv
from smpo_jax.core import constraints
from smpo_jax.experiment import sizes
from smpo_jax.experiment.errors import UserError
from smpo_jax.experiment.problem import single_env, task
from smpo_jax.experiment.results.policy import TrainedPolicy
from smpo_jax.types import Key, PerCost

# Steps of a single environment are traced in three quarters of the time that those of a batch take,
# and on a CPU one of them takes a sixth of a batch of one.
IN_TURN = 8


class Trajectories(NamedTuple):
    """`E` episodes of at most `T` steps; index 0 of `T + 1` is the start.

    Attributes:
        drawing: how the task looks.
        poses: of each kind and of the robot: x, y, heading.
        lidars: readings, in the order of `drawing.lidars`; `R` in each.
        return_: sum of the rewards so far.
        cost: sum of the costs so far, of each constraint.
        length: steps until the episode was over.
    """

    drawing: Drawing
    poses: dict[str, Float[np.ndarray, "E T+1 K 3"]]
    lidars: Float[np.ndarray, "E T+1 L R"]
    return_: Float[np.ndarray, "E T+1"]
    cost: PerCost  # of Float[np.ndarray, "E T+1"]
    length: Int[np.ndarray, " E"]


def play(
    policy: TrainedPolicy, key: Key, episodes: int, *, deterministic: bool = False
) -> Trajectories:
    """Plays whole episodes, a few in turn and many side by side.

    Raises:
        UserError: the task cannot be drawn.
    """
    drawing = getattr(task(policy.config), "drawing", None)
    if drawing is None:
        raise UserError(
            f"env: {policy.config.env} cannot be drawn: it has no `drawing` "
            "(see smpo_envs.safe_env.Environment)"
        )
    env = single_env(policy.config)
    act = policy.acting(deterministic=deterministic)
    see = _observer(env, drawing)

    def one(key):
        reset_key, key = jax.random.split(key)
        first = env.reset(reset_key)

        def step(state, key):
            state = env.step(state, act(state.obs[None], key)[0])
            return state, see(state)

        _, later = jax.lax.scan(step, first, jax.random.split(key, env.episode_length))
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), see(first), later)

    @partial(jax.jit, compiler_options=compilation.options())
    def run(key):
        keys = jax.random.split(key, episodes)
        return jax.lax.map(one, keys) if episodes <= IN_TURN else jax.vmap(one)(keys)

    sizes.require_fits("episodes", episodes, sizes.nbytes(run.eval_shape(key)) / episodes)
    poses, lidars, reward, cost, done = jax.tree.map(np.asarray, run(key))
    is_over = done > 0
    length = np.where(np.any(is_over, axis=1), np.argmax(is_over, axis=1), env.episode_length)
    cost = by_name(np.cumsum(cost, axis=1), constraints.names(policy.spec.cost_limit))
    return Trajectories(drawing, poses, lidars, np.cumsum(reward, axis=1), cost, length)


def _observer(env: SingleEnv, drawing: Drawing) -> Callable[[Any], tuple]:
    """`state -> (poses, lidars, reward, cost, done)`."""
    is_augmented = isinstance(env, AugmentedEnv)
    size = env.env.observation_size if is_augmented else env.observation_size
    kinds = len(drawing.lidars)

    def see(state):
        own = state.pipeline_state.inner if is_augmented else state.pipeline_state
        # Behind the environment's own observation is what the algorithm adds to it.
        lidars = state.obs[drawing.sensors : size]
        lidars = lidars.reshape(kinds, lidars.size // max(1, kinds))
        return drawing.poses(own), lidars, state.reward, state.info["cost"], state.done

    return see
