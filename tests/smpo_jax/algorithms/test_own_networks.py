"""A policy, a distribution, critics and a normaliser of the user's own, in every kind of method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import linen as nn

import smpo_envs
import smpo_jax as sx
from smpo_jax.training import loop

pytestmark = pytest.mark.usefixtures("quick_compilation")


class LayerNormMLP(nn.Module):
    """Dense layers with layer normalisation and an activation that we have not."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.LayerNorm()(nn.Dense(8)(x)))
        return nn.Dense(self.outputs)(x)


def network(outputs, inputs, head):
    module = LayerNormMLP(outputs)
    return sx.Network(
        lambda key: module.init(key, jnp.zeros((1, inputs))),
        lambda params, *x: head(module.apply(params, jnp.concatenate(x, axis=-1))),
    )


def spread_by_state(kind):
    """A policy whose standard deviation depends on the state."""

    def head(out):
        mean, log_std = jnp.split(out, 2, axis=-1)
        return kind(mean, jnp.clip(log_std, -3.0, 1.0))

    return network(2, 1, head)


HALVED = sx.Normaliser(
    init=lambda size: jnp.zeros(()),
    apply=lambda state, obs: 0.5 * obs,
    update=lambda state, obs: state + obs.shape[0],
)
NETWORKS = sx.Networks(
    policy=spread_by_state(sx.SquashedGaussian),
    value=network(1, 1, lambda out: out[..., 0]),
    action_value=network(1, 2, lambda out: nn.softplus(out[..., 0])),
    normaliser=HALVED,
)


@pytest.mark.parametrize("name", ["ppo", "trpo", "smpo", "smpo-ppo", "focops", "cup", "cpo"])
def test_methods_learn_with_networks_of_ones_own(name):
    env, spec = toy.problem(name, num_envs=8)
    algorithm = toy.small(name, spec, networks=NETWORKS)
    before = loop.init(algorithm, env, jax.random.key(0))
    params = jax.device_get(before.learner.params)
    state, metrics = loop.chunk(algorithm, env, spec, 2)(before)
    assert all(np.all(np.isfinite(x)) for x in metrics.values())
    changed = jax.tree.map(lambda x, y: np.any(x != y), params, state.learner.params)
    for entry in ("policy", "value"):
        kernels = jax.tree.leaves(changed[entry]["params"]["Dense_0"])
        assert any(kernels), entry
    assert "LayerNorm_0" in state.learner.params["policy"]["params"]
    assert state.learner.obs_moments == 2 * spec.rollout_length  # our normaliser's own state
    # The spread is that of the distribution, wherever its parameters are.
    assert 0 < metrics["policy/std"][0] < np.exp(1.0)


def test_what_is_left_out_is_made_as_the_settings_say():
    _, spec = toy.problem()
    learner = sx.make(
        "ppo", spec, networks=sx.Networks(policy=NETWORKS.policy), minibatches=2, hidden=(5,)
    ).init(jax.random.key(0))
    assert "LayerNorm_0" in learner.params["policy"]["params"]
    assert learner.params["value"]["params"]["Dense_0"]["kernel"].shape == (1, 5)


def test_ppo_with_squashed_actions_solves_follow():
    """Optimum 10; actions are within bounds, so that nothing is lost by clipping."""
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeFollow"), 64)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=100)
    networks = sx.Networks(policy=spread_by_state(sx.SquashedGaussian))
    algorithm = sx.make(
        "ppo", spec, networks=networks, learning_rate=3e-3, epochs=10, minibatches=8
    )
    state, _ = jax.jit(lambda key: sx.train(algorithm, env, spec, key, 100))(jax.random.key(0))
    episodes = sx.make_evaluator(algorithm, env, 128)(state.learner, jax.random.key(1))
    assert np.mean(episodes.return_) > 9.5


class Sight(nn.Module):
    """A convolution over pictures, whatever the leading axes."""

    outputs: int

    @nn.compact
    def __call__(self, pictures, *others):
        x = nn.tanh(nn.Conv(4, (3, 3))(pictures))
        x = x.reshape(*x.shape[:-3], -1)
        return nn.Dense(self.outputs)(jnp.concatenate([x, *others], axis=-1))


def seeing(outputs, head, *others):
    module = Sight(outputs)
    return sx.Network(
        lambda key: module.init(key, jnp.zeros((1, 5, 5, 1)), *others),
        lambda params, *x: head(module.apply(params, *x)),
    )


def lit():
    """A picture with one lit column, left or right; earns 1 for the choice of its side."""

    def observe(key):
        side_key, key = jax.random.split(key)
        right = jax.random.bernoulli(side_key)
        column = jnp.where(right, jnp.arange(5) == 4, jnp.arange(5) == 0)
        picture = 255 * jnp.broadcast_to(column[None, :, None], (5, 5, 1))
        return (key, right), picture.astype(jnp.uint8)

    zero = jnp.zeros(())

    def reset(key):
        return smpo_envs.State(*observe(key), zero, zero, info={"cost": zero})

    def step(state, action):
        key, right = state.pipeline_state
        pipeline_state, obs = observe(key)
        reward = jnp.asarray(jnp.argmax(action) == right, float)
        return state.replace(pipeline_state=pipeline_state, obs=obs, reward=reward)

    return smpo_envs.Environment(reset, step, 0, 2, 10, discrete=True)


@pytest.mark.parametrize("name", ["ppo", pytest.param("smpo", marks=pytest.mark.slow)])
def test_pictures_reach_networks_of_ones_own_in_their_shape(name):
    env = smpo_envs.VectorEnv(smpo_envs.as_safe_env(lit()), 16)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=30)
    assert spec.observation_shape == (5, 5, 1) and spec.discrete
    networks = sx.Networks(
        policy=seeing(2, sx.Categorical),
        value=seeing(1, lambda out: out[..., 0]),
        action_value=seeing(1, lambda out: nn.softplus(out[..., 0]), jnp.zeros((1, 2))),
    )
    own = {"minibatches": 4, "learning_rate": 3e-3}
    algorithm = toy.small(name, spec, networks=networks, **own)
    chunk = loop.chunk(algorithm, env, spec, 30)
    _, metrics = chunk(loop.init(algorithm, env, jax.random.key(0)))
    assert metrics["episode/return"][0] < 7 and metrics["episode/return"][-1] > 9


def test_pictures_are_refused_where_a_network_of_ones_own_is_missing():
    env = smpo_envs.VectorEnv(smpo_envs.as_safe_env(lit()), 4)
    spec = sx.make_spec(env, rollout_length=20, total_iterations=30)
    sight = {"policy": seeing(2, sx.Categorical), "value": seeing(1, lambda out: out[..., 0])}
    given = (sx.Networks(), sx.Networks(policy=sight["policy"]))
    for networks, missing in zip(given, ("policy", "value"), strict=True):
        message = rf"pictures, \[5, 5, 1\], and the built-in network for {missing} takes vectors"
        with pytest.raises(ValueError, match=message):
            toy.small("ppo", spec, networks=networks)
    with pytest.raises(ValueError, match="the built-in network for action_value"):
        toy.small("smpo", spec, networks=sx.Networks(**sight))
    with pytest.raises(ValueError, match="has to be a vector: these are pictures"):
        sx.augment(smpo_envs.as_safe_env(lit()), "ppo_saute")
    assert sx.augment(smpo_envs.as_safe_env(lit()), "ppo_early_terminated").observation_size == 25
