"""How fast an environment runs on this machine."""

import statistics
import time
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smpo_envs import compilation
from smpo_envs.safe_env import random_action


class Steppable(Protocol):
    """Environments that reset themselves."""

    num_envs: int
    action_size: int

    def reset(self, key: PRNGKeyArray) -> Any:
        """The first state of all of them."""
        ...

    def step(self, state: Any, action: Float[Array, "N A"]) -> tuple[Any, Any]:
        """The state after an action of each, and a `Step`."""
        ...


class Throughput(NamedTuple):
    """Attributes: seconds to compile, and the median of environment steps per second."""

    compile_seconds: float
    steps_per_second: float


def measure(env: Steppable, steps: int = 200, repeats: int = 5) -> Throughput:
    """Steps/s of environments such as a `VectorEnv` under random actions, resets included.

    Each repeat is one compiled scan of `steps` steps; the draws of the actions are part of it.
    """
    num_envs = env.num_envs

    def act_and_step(carry, _):
        state, key = carry
        action_key, key = jax.random.split(key)
        action = random_action(env, action_key, (num_envs,))
        state, seen = env.step(state, action)
        # Everything a trainer would read is used, or the compiler would drop it.
        return (state, key), (seen.reward.mean(), seen.cost.mean(), jnp.sum(seen.next_obs))

    def run(state, key):
        return jax.lax.scan(act_and_step, (state, key), length=steps)

    reset_key, action_key = jax.random.split(jax.random.key(0))
    # Waited for, or it would share the processor with the compiler.
    state = jax.block_until_ready(jax.jit(env.reset)(reset_key))
    start = time.perf_counter()
    lowered = jax.jit(run, donate_argnums=0).lower(state, action_key)
    compiled = lowered.compile(compilation.options())
    compile_seconds = time.perf_counter() - start

    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        (state, action_key), _ = jax.block_until_ready(compiled(state, action_key))
        rates.append(num_envs * steps / (time.perf_counter() - start))
    return Throughput(compile_seconds, statistics.median(rates))
