"""Acting in a batch of environments, all on the device."""

import jax

from smpo_jax.types import Key, Policy, Transition, VectorEnv


def collect(
    policy: Policy, env: VectorEnv, env_state, key: Key, length: int
) -> tuple[object, Transition]:
    """`length` steps of every environment under a fixed policy; leaves `[length, N, ...]`."""

    def step(carry, _):
        env_state, key = carry
        action_key, key = jax.random.split(key)
        obs = env_state.obs
        with jax.named_scope("policy"):
            action, log_prob, dist = policy(obs, action_key)
        env_state, seen = env.step(env_state, action)
        return (env_state, key), Transition(
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

    (env_state, _), transition = jax.lax.scan(step, (env_state, key), length=length)
    return env_state, transition
