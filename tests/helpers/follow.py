"""What a policy earns in `ProbeFollow`, whoever has trained it.

Doing nothing earns 5 of the 10 that can be had, and random actions less: a policy that earns 8 has
learnt what to do with what it sees.
"""

import jax
import jax.numpy as jnp
import numpy as np

import smpo_envs

IDLE, LEARNT = 5.6, 8.0  # the former with four standard errors of 256 episodes


def earned(act, episodes=256):
    """The mean return of a policy `obs [N, 1] -> action [N, 1]` in our own environments."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), episodes, stagger=False)
    state, total = jax.jit(env.reset)(jax.random.key(100)), np.zeros(episodes)
    step = jax.jit(env.step)
    for _ in range(env.episode_length):
        state, seen = step(state, jnp.clip(act(state.obs), -1.0, 1.0))
        total += np.asarray(seen.reward)
    return float(total.mean())
