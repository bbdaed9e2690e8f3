"""The costs that followed, held against what a method's critic of costs predicted."""

import jax
from jaxtyping import Array, Float

from smpo_jax.core import returns
from smpo_jax.core.calibration import Calibration, by_quantile, settled
from smpo_jax.core.constraints import each
from smpo_jax.training.rollout import collect
from smpo_jax.types import Algorithm, CostCritic, Key, LearnerState, PerCost, VectorEnv

BINS = 10


def calibrate(
    algorithm: Algorithm,
    critic: CostCritic,
    learner: LearnerState,
    env: VectorEnv,
    key: Key,
) -> PerCost:
    """Predicted and realised discounted cost-to-go along one time limit's worth of steps.

    What was realised is the discounted sum up to the end of the episode or of the window, without
    any bootstrap; steps of which more than 1 % of the weight lies behind it are left out. The
    policy samples, since that is what the critic learnt about. Pure.

    Args:
        algorithm: the method.
        critic: its `cost_critic`; its discount is a number, not traced.
        learner: what it has learnt.
        env: environments that all begin an episode at the same time.
        key: for episodes and actions.

    Returns:
        A `Calibration` for each constraint.
    """
    reset_key, key = jax.random.split(key)
    length = env.episode_length
    state = env.reset(reset_key)
    _, seen = collect(algorithm.policy(learner), env, state, key, length)
    predicted = critic.predict(learner, seen.obs, seen.action)
    known = settled(length, float(critic.discount))

    def of_cost(cost: Float[Array, "T N"], predicted: Float[Array, "T N"]) -> Calibration:
        realised = returns.to_go(cost, seen.terminated, seen.truncated, discount=critic.discount)
        return by_quantile(predicted[:known].reshape(-1), realised[:known].reshape(-1), bins=BINS)

    return each(of_cost, seen.cost, predicted)
