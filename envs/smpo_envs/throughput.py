"""How fast an environment runs on this machine."""

import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from smpo_envs import compilation
from smpo_envs.registry import make
from smpo_envs.vector_env import VectorEnv


class Throughput(NamedTuple):
    """Attributes: seconds to compile, and the median of environment steps per second."""

    compile_seconds: float
    steps_per_second: float


def measure(
    env_name: str, num_envs: int, steps: int = 200, repeats: int = 5, devices: int = 1
) -> Throughput:
    """Steps/s of `num_envs` environments under random actions, resets included.

    Each repeat is one compiled scan of `steps` steps; the draws of the actions are part of it.
    """
    env = VectorEnv(make(env_name), num_envs, devices=devices)

    def act_and_step(carry, _):
        state, key = carry
        action_key, key = jax.random.split(key)
        action = jax.random.uniform(action_key, (num_envs, env.action_size), minval=-1.0)
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
