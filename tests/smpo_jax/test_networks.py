import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smpo_jax import networks
from smpo_jax.core.distributions import LARGEST_LOG_STD, LEAST_LOG_STD


def policy():
    return networks.gaussian_policy(
        5, 2, hidden=(16, 16), activation=jnp.tanh, initial_log_std=-0.5
    )


def test_policy_starts_near_zero_with_the_given_spread_in_every_state():
    network = policy()
    obs = jax.random.normal(jax.random.key(1), (100, 5))
    dist = network.apply(network.init(jax.random.key(0)), obs)
    assert dist.mean.shape == dist.log_std.shape == (100, 2)
    assert np.abs(dist.mean).max() < 0.05
    np.testing.assert_array_equal(dist.log_std, np.float32(-0.5))


def test_hidden_layers_start_orthogonal_with_gain_root_two():
    params = policy().init(jax.random.key(0))
    kernel = params["mean"]["params"]["Dense_1"]["kernel"]
    np.testing.assert_allclose(kernel @ kernel.T, 2.0 * np.eye(16), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (300, 200), (140, 300)])
def test_weights_start_as_lapack_would_have_them(shape):
    """Also those of more than a block; Q of the QR decomposition with a positive diagonal."""
    ours = networks.orthogonal(1.0)(jax.random.key(7), shape, jnp.float32)
    drawn = jax.random.normal(jax.random.key(7), (max(shape), min(shape)))
    columns = np.asarray(drawn, np.float64)
    q, r = np.linalg.qr(columns)
    q = q * np.sign(np.diag(r))
    np.testing.assert_allclose(ours, q if shape[0] > shape[1] else q.T, atol=2e-5)


def test_networks_take_any_leading_axes():
    value = networks.state_value(5, hidden=(8,), activation=jnp.tanh)
    params = value.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (3, 4, 5))
    out = value.apply(params, obs)
    assert out.shape == (3, 4)
    np.testing.assert_allclose(value.apply(params, obs[1, 2]), out[1, 2], rtol=1e-5)


def test_action_values_are_never_negative_and_depend_on_the_action():
    q = networks.nonnegative_action_value(
        5, 2, hidden=(8,), activation=networks.ACTIVATIONS["relu"]
    )
    params = q.init(jax.random.key(0))
    obs, action = (10 * jax.random.normal(jax.random.key(i), (200, n)) for i, n in ((1, 5), (2, 2)))
    out = q.apply(params, obs, action)
    assert out.shape == (200,) and out.min() >= 0
    assert np.any(out != q.apply(params, obs, -action))


@pytest.mark.parametrize("name", networks.ACTIVATIONS)
def test_activations_keep_zero(name):
    assert networks.ACTIVATIONS[name](jnp.zeros(())) == 0


def test_our_tanh_has_the_values_and_derivatives_of_tanh():
    x = jnp.array([-jnp.inf, -30.0, -0.7, 0.0, 1e-3, 2.0, jnp.inf, jnp.nan])
    change = jnp.linspace(-1, 2, 8)
    for ours, theirs in (
        (networks.tanh, jnp.tanh),
        (jax.vmap(jax.grad(networks.tanh)), jax.vmap(jax.grad(jnp.tanh))),
        (jax.vmap(jax.grad(jax.grad(networks.tanh))), jax.vmap(jax.grad(jax.grad(jnp.tanh)))),
        (
            lambda x: jax.jvp(networks.tanh, (x,), (change,))[1],
            lambda x: jax.jvp(jnp.tanh, (x,), (change,))[1],
        ),
    ):
        np.testing.assert_allclose(jax.jit(ours)(x), jax.jit(theirs)(x), rtol=1e-5, atol=1e-7)


def test_the_derivative_of_our_tanh_keeps_the_operand_where_it_is():
    """What makes it fast; see there."""
    loss = lambda act: lambda w, x: jnp.sum(act(act(x @ w) @ w))  # noqa: E731
    x, w = jnp.ones((64, 8)), jnp.ones((8, 8))

    def layers_that_keep_it(act):
        program = jax.jit(jax.grad(loss(act))).lower(w, x).as_text()
        return program.count("stablehlo.compare")

    assert layers_that_keep_it(jnp.tanh) == 0
    assert layers_that_keep_it(networks.tanh) == 2


def test_spread_of_a_policy_stays_within_bounds_that_it_can_leave_again():
    network = policy()
    params = network.init(jax.random.key(0))
    pushed = network.project({**params, "log_std": jnp.array([-99.0, 99.0])})
    np.testing.assert_array_equal(pushed["log_std"], [LEAST_LOG_STD, LARGEST_LOG_STD])
    jax.tree.map(np.testing.assert_array_equal, pushed["mean"], params["mean"])

    def spread(params):
        return jnp.sum(network.apply(params, jnp.zeros((1, 5))).log_std)

    np.testing.assert_array_equal(jax.grad(spread)(pushed)["log_std"], 1.0)  # at the bounds, too
