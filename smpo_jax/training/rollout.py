"""Acting in a batch of environments, all on the device."""

import jax

from smpo_jax.types import Key, Policy, Transition, VectorEnv


def collect(
    policy: Policy, env: VectorEnv, env_state, key: Key, length: int
) -> tuple[object, Transition]:
    """`length` steps of every environment under a fixed policy; leaves `[length, N, ...]`."""

    def step(env_state, key):
        obs = env_state.obs
        action, log_prob, dist = policy(obs, key)
        env_state, seen = env.step(env_state, action)
        return env_state, Transition(
            obs=obs,
            action=action,
            log_prob=log_prob,
            dist=dist,
            reward=seen.reward,
            cost=seen.cost,
            terminated=seen.terminated,
            truncated=seen.truncated,
            next_obs=seen.next_obs,
        )

    return jax.lax.scan(step, env_state, jax.random.split(key, length))
