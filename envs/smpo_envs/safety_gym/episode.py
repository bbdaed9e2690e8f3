"""How the tasks show what happened: the `State` at the start of an episode and after a step."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_envs.safe_env import State
from smpo_envs.safety_gym.costs import Cost


def started(
    pipeline_state: Any,
    obs: Float[Array, " O"],
    costs: Sequence[Cost],
    *,
    events: Sequence[str] = (),
) -> State:
    """The first state of an episode: nothing is charged for there, and no event has happened."""
    zero = jnp.zeros((), obs.dtype)
    names = [*(cost.name for cost in costs), "cost_sum", *events]
    return State(
        pipeline_state=pipeline_state,
        obs=obs,
        reward=zero,
        done=zero,
        metrics=dict.fromkeys(names, zero),
        info={"cost": zero},
    )


def stepped(
    state: State,
    pipeline_state: Any,
    obs: Float[Array, " O"],
    reward: Float[Array, ""],
    charged: Mapping[str, jax.Array],
    *,
    done: Bool[Array, ""] | bool = False,
    events: Mapping[str, Bool[Array, ""]] | None = None,
) -> State:
    """The state after a step.

    Args:
        state: the one before; what wrappers have put beside our entries stays.
        pipeline_state: where everything is now.
        obs: the observation now.
        reward: of this step.
        charged: the indicators of the costs (see `costs.indicators`).
        done: whether the episode cannot go on.
        events: other things that happened or not, for the metrics.
    """
    dtype = reward.dtype
    happened = {name: flag.astype(dtype) for name, flag in (events or {}).items()}
    return state.replace(
        pipeline_state=pipeline_state,
        obs=obs,
        reward=reward,
        done=jnp.asarray(done, dtype),
        metrics={**state.metrics, **charged, **happened},
        info={**state.info, "cost": charged["cost_sum"]},
    )
