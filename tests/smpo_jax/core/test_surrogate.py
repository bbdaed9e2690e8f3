import jax
import jax.numpy as jnp
import numpy as np

from smpo_jax.core import surrogate


def test_clipped_is_pessimistic_on_both_sides():
    #                         ρA    clip(ρ)A  min
    # ρ=1.5, A=+2:            3     2.4       2.4   no profit beyond 1.2
    # ρ=0.5, A=+2:            1     1.6       1.0   the way back is free
    # ρ=1.5, A=-2:           -3    -2.4      -3.0   a mistake counts in full
    # ρ=0.5, A=-2:           -1    -1.6      -1.6   no profit beyond 0.8
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5])
    advantage = jnp.array([2.0, 2.0, -2.0, -2.0])
    gain, slope = jax.vmap(
        jax.value_and_grad(lambda r, a: surrogate.clipped(r[None], a[None], clip=0.2)[0])
    )(ratio, advantage)
    np.testing.assert_allclose(gain, [2.4, 1.0, -3.0, -1.6], rtol=1e-6)
    np.testing.assert_allclose(slope, [0.0, 2.0, -2.0, 0.0])


def test_ratio_is_one_for_the_same_policy():
    assert surrogate.ratio(jnp.array([-3.0]), jnp.array([-3.0]))[0] == 1


def test_clip_share_counts_both_sides():
    share = surrogate.clip_share(jnp.array([0.7, 0.9, 1.1, 1.3]), clip=0.2)
    assert share == 0.5


def test_standardise_gives_zero_mean_unit_deviation_and_zero_for_a_constant():
    x = surrogate.standardise(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    np.testing.assert_allclose([x.mean(), x.std()], [0.0, 1.0], atol=1e-6)
    np.testing.assert_array_equal(surrogate.standardise(jnp.full((2, 2), 3.0)), jnp.zeros((2, 2)))
