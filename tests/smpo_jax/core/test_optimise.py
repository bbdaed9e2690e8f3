import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smpo_jax.core import optimise


def record(state, minibatch):
    """A step that writes down which samples it was given."""
    seen, index = state
    return (seen.at[index].set(minibatch["x"]), index + 1), {"first": minibatch["x"][0]}


def run(passes, check=optimise.never, seed=0):
    state = (jnp.full((100, 3), -1.0), 0)
    batch = {"x": jnp.arange(12.0), "y": jnp.arange(12.0)}
    settings = {"minibatches": 4, "passes": passes, "check": check}
    return optimise.minibatch_passes(record, state, batch, jax.random.key(seed), **settings)


def test_every_pass_sees_every_sample_once_in_a_new_order():
    (seen, index), metrics = run(passes=2)
    assert index == 8
    first, second = np.asarray(seen[:4]).ravel(), np.asarray(seen[4:8]).ravel()
    np.testing.assert_array_equal(np.sort(first), np.arange(12))
    np.testing.assert_array_equal(np.sort(second), np.arange(12))
    assert not np.array_equal(first, second)
    assert metrics["passes"] == 2
    np.testing.assert_allclose(metrics["first"], seen[4:8, 0].mean())  # of the last pass


def test_passes_stop_as_soon_as_the_check_says_so():
    def check(before, after):
        assert before[0].shape == after[0].shape
        return after, after[1] >= 8, {"steps": after[1]}

    (seen, index), metrics = run(passes=10, check=check)
    assert (index, metrics["passes"], metrics["steps"]) == (8, 2, 8)
    assert np.all(np.asarray(seen[8:]) == -1)


def test_under_vmap_each_member_stops_by_itself():
    def member(limit):
        state, metrics = run(passes=5, check=lambda _, after: (after, after[1] >= limit, {}))
        return state[1], metrics["passes"]

    steps, passes = jax.vmap(member)(jnp.array([4, 12, 99]))
    np.testing.assert_array_equal(steps, [4, 12, 20])
    np.testing.assert_array_equal(passes, [1, 3, 5])


def test_leaves_are_shuffled_together():
    batch = {"x": jnp.arange(10.0), "y": jnp.arange(10.0)[:, None] * 2}
    shuffled = optimise.shuffle(batch, jax.random.key(3))
    np.testing.assert_array_equal(shuffled["y"][:, 0], 2 * shuffled["x"])


@pytest.mark.parametrize("size", [1, 2, 1000, 32_000, 70_000])
def test_shuffling_is_even_and_loses_nothing(size):
    keys = jax.random.split(jax.random.key(0), 4)
    first, second, *_ = orders = [optimise.shuffle(jnp.arange(size), key) for key in keys]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size < 1000:
        return
    assert np.mean(first == second) < 0.01
    for order in orders:  # where it comes from says nothing of where it goes to
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 4 / size**0.5
        quarter = np.asarray(order[: size // 4]) / size
        assert abs(quarter.mean() - 0.5) < 4 * (1 / 12 / (size // 4)) ** 0.5


def test_a_gradient_over_shards_is_that_of_the_whole_batch():
    """Where the loss is a mean; of what is not, it is the mean of what the shards give."""
    x, y = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)

    def of(batch):
        def loss(w):
            errors = (w["slope"] * batch["x"] + w["offset"] - batch["y"]) ** 2
            return jnp.mean(errors), {"largest": jnp.max(errors), "mean": jnp.mean(errors)}

        return jax.grad(loss, has_aux=True)({"slope": jnp.ones(()), "offset": jnp.zeros(1)})

    whole, _ = of({"x": x, "y": y})
    errors = (x - y) ** 2
    gradients, metrics = optimise.mean_over_shards(of, {"x": x, "y": y}, 3)
    np.testing.assert_allclose(gradients["slope"], 2 * np.mean((x - y) * x), rtol=1e-5)
    np.testing.assert_allclose(gradients["offset"], [2 * np.mean(x - y)], rtol=1e-5)
    np.testing.assert_allclose(metrics["mean"], errors.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["largest"], errors.reshape(3, 4).max(1).mean(), rtol=1e-6)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, whole)


def test_shards_are_shuffled_each_by_itself_and_are_in_every_minibatch_alike():
    """A batch of two shards of environments, numbered by their environment."""
    envs = jnp.broadcast_to(jnp.arange(4), (6, 4))  # [T, N]: 0 and 1 are the first shard
    batch = optimise.flatten({"env": envs, "time": jnp.arange(6)[:, None] + 0 * envs}, shards=2)
    np.testing.assert_array_equal(batch["env"], [0, 1] * 6 + [2, 3] * 6)
    np.testing.assert_array_equal(batch["time"], [*np.repeat(np.arange(6), 2)] * 2)

    first, second = (optimise.shuffle(batch, jax.random.key(i), shards=2) for i in (0, 1))
    assert not np.array_equal(first["time"], second["time"])
    assert np.all(first["env"][:12] < 2) and np.all(first["env"][12:] >= 2)
    pairs = {*zip(first["env"].tolist(), first["time"].tolist(), strict=True)}
    assert len(pairs) == 24  # each sample once

    pieces = optimise.split(first, 3, shards=2)
    np.testing.assert_array_equal(jnp.sum(pieces["env"] < 2, axis=1), [4, 4, 4])
    whole = np.sort(pieces["env"] * 6 + pieces["time"], axis=None)
    np.testing.assert_array_equal(whole, np.arange(24))


def test_gradients_are_clipped_per_network():
    gradients = {"policy": {"w": jnp.array([0.3, 0.4])}, "value": {"w": jnp.array([30.0, 40.0])}}
    optimiser = optimise.adam(1.0)
    # Adam's first direction is the sign of g: look at its first moment, 0.1 of what it was given.
    _, state = optimiser.update(gradients, optimiser.init(gradients))
    given = jax.tree.map(lambda m: m / 0.1, optax.tree_utils.tree_get(state, "mu"))
    np.testing.assert_allclose(given["policy"]["w"], [0.3, 0.4], rtol=1e-5)  # norm 0.5: as it is
    np.testing.assert_allclose(given["value"]["w"], [0.6, 0.8], rtol=1e-5)  # norm 50: scaled to 1


def test_clip_norm_leaves_a_zero_gradient_finite():
    np.testing.assert_array_equal(optimise.clip_norm(jnp.zeros(2), 1.0), [0.0, 0.0])


def test_descend_is_adam_with_that_learning_rate():
    params = {"policy": jnp.array([1.0, -2.0])}
    gradients = {"policy": jnp.array([0.5, 0.25])}
    ours, reference = optimise.adam(1e9), optax.adam(0.1)
    state, expected, expected_state = ours.init(params), params, reference.init(params)
    for _ in range(3):
        params, state = optimise.descend(ours, gradients, state, params, learning_rate=0.1)
        updates, expected_state = reference.update(gradients, expected_state)
        expected = jax.tree.map(jnp.add, expected, updates)
    np.testing.assert_allclose(params["policy"], expected["policy"], rtol=1e-6)


@pytest.mark.parametrize("iteration, expected", [(0, 0.2), (5, 0.1), (10, 0.0), (12, 0.0)])
def test_linear_decay_reaches_zero_and_stays(iteration, expected):
    rate = optimise.linear_decay(0.2, jnp.asarray(iteration), 10)
    np.testing.assert_allclose(rate, expected, atol=1e-8)


def distance(params):
    return 100.0 * params["w"] ** 2


@pytest.mark.parametrize(
    "after, expected",
    [(0.05, 0.05), (1.0, 0.125), (1e30, 0.0), (jnp.nan, jnp.nan)],
    ids=["within", "beyond", "out-of-reach", "nan"],
)
def test_a_step_beyond_the_bound_is_halved_until_within(after, expected):
    """100 w² <= 2 asks for w <= 0.141; 20 halvings of 1e30 are not enough, so none is taken."""
    before, after = {"w": jnp.zeros(())}, {"w": jnp.asarray(after)}
    params, found = jax.jit(lambda a, b: optimise.retreat(a, b, distance, bound=2.0))(before, after)
    np.testing.assert_array_equal(params["w"], jnp.asarray(expected))
    np.testing.assert_array_equal(found, distance(params))
