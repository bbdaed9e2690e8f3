"""Devices that share the environments of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from numpy.testing import assert_array_equal

import smpo_envs
from smpo_jax.training.devices import make_mesh, shard_state, sharded


def rollout(env, steps):
    def step(state, _):
        after, seen = env.step(state, jnp.ones((env.num_envs, 1)))
        return after, (state.obs, state.steps, seen)

    start = jax.jit(env.reset)(jax.random.key(0))
    return jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(start)


@pytest.mark.parametrize("start", [None, np.int32(0), np.zeros(6, np.int32)])
def test_devices_share_the_environments_and_change_nothing(start):
    """Whatever a curriculum's value is: the last has as many entries as there are environments."""
    probe = smpo_envs.make("ProbeExits", episode_length=5)
    curriculum = None
    if start is not None:
        curriculum = smpo_envs.Curriculum(
            lambda key, c: probe.reset(key).replace(obs=jnp.sum(c)[None] + jnp.zeros(1)),
            start=start,
            update=lambda c: c + jnp.arange(c.size).reshape(c.shape) + 1,
        )
    env = smpo_envs.VectorEnv(probe, 6, curriculum=curriculum)
    together = sharded(env, make_mesh(2, 6))
    for x, y in zip(*(jax.tree.leaves(rollout(e, 12)) for e in (env, together)), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert_array_equal(x, y)
    state = jax.jit(together.reset)(jax.random.key(0))
    after, seen = jax.jit(together.step)(state, jnp.ones((6, 1)))
    for x in (*jax.tree.leaves(state), *jax.tree.leaves(after), seen.cost):
        assert [piece.data.shape[0] for piece in x.addressable_shards] == [3, 3]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (0, "devices=0 must be at least 1"),
        (4, "devices=4 .* divide num_envs=6"),
        (3, "devices=3 are not there, only 2 .*JAX_NUM_CPU_DEVICES=3"),
    ],
)
def test_devices_that_cannot_share_the_environments_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(devices, 6)


def test_a_mesh_that_does_not_fit_is_refused():
    env = smpo_envs.VectorEnv(smpo_envs.make("ProbeExits"), 3)
    two = np.array(jax.devices()[:2])
    with pytest.raises(ValueError, match="devices=2 must be at least 1 and divide num_envs=3"):
        sharded(env, Mesh(two, ("any",)))
    with pytest.raises(ValueError, match=r"axes \('a', 'b'\)"):
        sharded(env, Mesh(two[None], ("a", "b")))


def test_a_state_with_something_in_common_is_refused():
    state = {"obs": jnp.zeros((4, 2)), "total": jnp.zeros(())}
    with pytest.raises(ValueError, match=r"state\['total'\] has shape \(\).*num_envs=4"):
        shard_state(state, make_mesh(2, 4), 4)
