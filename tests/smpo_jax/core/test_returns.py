import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from accelerator import shaped_for_an_accelerator

from smpo_jax.core import returns

# One environment, three steps: r = 1, 2, 3, V = 10, 20, 30, V(s') = 20, 30, 40, γ = 1/2, λ = 1/2.
REWARD = jnp.array([[1.0], [2.0], [3.0]])
VALUE = jnp.array([[10.0], [20.0], [30.0]])
NEXT = jnp.array([[20.0], [30.0], [40.0]])
NO = jnp.zeros((3, 1))
MIDDLE = jnp.array([[0.0], [1.0], [0.0]])


def gae(terminated, truncated):
    return returns.gae(REWARD, VALUE, NEXT, terminated, truncated, discount=0.5, lambda_=0.5)


def test_gae_without_an_end_matches_hand_worked_numbers():
    # δ = 1+10-10, 2+15-20, 3+20-30 = 1, -3, -7;  A = 1-1.1875, -3-1.75, -7
    advantage, target = gae(NO, NO)
    np.testing.assert_allclose(advantage[:, 0], [-0.1875, -4.75, -7.0])
    np.testing.assert_allclose(target[:, 0], [9.8125, 15.25, 23.0])


def test_gae_bootstraps_at_truncation_but_not_at_termination():
    # terminated: δ_1 = 2 - 20 = -18, A_0 = 1 - 4.5; truncated: δ_1 = -3, A_0 = 1 - 0.75
    terminated, _ = gae(MIDDLE, NO)
    truncated, _ = gae(NO, MIDDLE)
    np.testing.assert_allclose(terminated[:, 0], [-3.5, -18.0, -7.0])
    np.testing.assert_allclose(truncated[:, 0], [0.25, -3.0, -7.0])


def test_to_go_stops_at_both_kinds_of_end():
    for end in ((MIDDLE, NO), (NO, MIDDLE)):
        to_go = returns.to_go(REWARD, *end, discount=0.5)
        np.testing.assert_allclose(to_go[:, 0], [2.0, 2.0, 3.0])  # 1 + 2/2, 2, 3
    to_go = returns.to_go(REWARD, NO, NO, discount=0.5)
    np.testing.assert_allclose(to_go[:, 0], [2.75, 3.5, 3.0])  # 1 + 3.5/2, 2 + 3/2, 3


def test_lambda_return_matches_hand_worked_numbers():
    # G_2 = 3+20 = 23; G_1 = 2 + (15 + 11.5)/2 = 15.25; G_0 = 1 + (10 + 7.625)/2 = 9.8125
    g = returns.lambda_return(REWARD, NEXT, NO, NO, discount=0.5, lambda_=0.5)
    np.testing.assert_allclose(g[:, 0], [9.8125, 15.25, 23.0])


def random_rollout(seed):
    rng = np.random.default_rng(seed)
    steps, envs = 17, 5
    arrays = [rng.normal(size=(steps, envs)) for _ in range(3)]
    terminated = rng.random((steps, envs)) < 0.1
    truncated = (rng.random((steps, envs)) < 0.1) & ~terminated
    return *arrays, terminated.astype(float), truncated.astype(float)


@pytest.mark.parametrize("shaped", [contextlib.nullcontext, shaped_for_an_accelerator])
@pytest.mark.parametrize("discount, lambda_", [(0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_sums_over_time_match_the_loops(discount, lambda_, shaped):
    with jax.enable_x64(True), shaped():
        reward, value, next_value, terminated, truncated = random_rollout(seed=1)
        flags = (jnp.asarray(terminated), jnp.asarray(truncated))
        r, v, nv = map(jnp.asarray, (reward, value, next_value))
        settings = {"discount": discount, "lambda_": lambda_}
        advantage, target = returns.gae(r, v, nv, *flags, **settings)
        expected = oracles.gae(reward, value, next_value, terminated, truncated, **settings)
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
        np.testing.assert_allclose(target, expected + value, atol=1e-12)
        np.testing.assert_allclose(
            returns.lambda_return(r, nv, *flags, **settings),
            oracles.lambda_return(reward, next_value, terminated, truncated, **settings),
            atol=1e-12,
        )


def test_gae_target_is_the_lambda_return_where_values_agree():
    """A + V = G if V(s_t) is V(s'_{t-1}) within episodes: two roads to the same target."""
    reward, _, next_value, terminated, truncated = map(jnp.asarray, random_rollout(seed=2))
    value = jnp.concatenate([next_value[-1:], next_value[:-1]])
    settings = {"discount": 0.9, "lambda_": 0.8}
    _, target = returns.gae(reward, value, next_value, terminated, truncated, **settings)
    g = returns.lambda_return(reward, next_value, terminated, truncated, **settings)
    np.testing.assert_allclose(target, g, atol=1e-5)  # float32 sums of about 10 terms of size 1
