import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modulated import learning, rollout, spec_of

from smpo_jax.algorithms.smpo import SMPOCode, SMPOEarlier, SMPOPaper
from smpo_jax.algorithms.smpo import weight as weights
from smpo_jax.algorithms.smpo.weight import cost_aware_weight, running_minimum, twice_budget_weight


def weight(x, threshold, **settings):
    return cost_aware_weight(jnp.asarray(x), jnp.asarray(threshold), **settings)


def test_weight_matches_hand_worked_numbers():
    # b = 2, d' = 2: f(x) = (1 - 2^x) / (1 - 1/4) at x = -2, -1, 0, 1, 2
    f = weight([-2.0, -1.0, 0.0, 1.0, 2.0], 2.0, base=2.0)
    np.testing.assert_allclose(f.value, [1, 2 / 3, 0, -4 / 3, -4], rtol=1e-6, atol=1e-7)
    # f'(x) = -ln 2 * 2^x / (3/4)
    np.testing.assert_allclose(f.slope, -np.log(2) / 0.75 * 2.0 ** np.arange(-2, 3), rtol=1e-6)


def test_temperature_is_a_change_of_base():
    x = jnp.array([-3.0, 0.5, 2.0])
    a = weight(x, 5.0, base=8.0, temperature=3.0)
    b = weight(x, 5.0, base=2.0)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-5)
    np.testing.assert_allclose(a.slope, b.slope, rtol=1e-5)


def test_slope_is_the_derivative_above_the_floor():
    x = jnp.linspace(-4.0, 1.0, 7)
    derivative = jax.vmap(jax.grad(lambda x: weight(x, 4.0, base=1.7).value))(x)
    np.testing.assert_allclose(weight(x, 4.0, base=1.7).slope, derivative, rtol=1e-5)


def test_beyond_the_floor_the_weight_is_the_floor_and_the_slope_is_kept():
    f = weight([3.0, 50.0, 5000.0], 25.0, base=3.0, floor=-5.0)
    np.testing.assert_allclose(f.value, -5.0, rtol=1e-6)
    # 3^x = 6 there, up to 3^-25, so the slope is -6 ln 3
    np.testing.assert_allclose(f.slope, -6 * np.log(3), rtol=1e-6)


@pytest.mark.parametrize("base", [1.0 + 1e-6, 1.04, 3.0, 1e30])
@pytest.mark.parametrize("threshold", [1e-3, 25.0, 1e4])
def test_weight_is_finite_falling_and_anchored_for_any_base_and_threshold(base, threshold):
    x = jnp.concatenate([jnp.array([-threshold]), jnp.linspace(-threshold, 1e5, 50)])
    f = weight(x, threshold, base=base)
    assert np.all(np.isfinite(f.value)) and np.all(np.isfinite(f.slope))
    # To the last bit or two: XLA's expm1 of a vector and of a number may round differently.
    np.testing.assert_allclose(f.value[0], 1, rtol=2**-22)
    assert np.all(np.diff(f.value) <= 0) and np.all(f.value >= -5.000001)
    assert weight(0.0, threshold, base=base).value == 0


def test_a_base_near_one_is_the_straight_line():
    f = weight([-10.0, -5.0, 0.0, 5.0], 10.0, base=1.0 + 1e-6)
    np.testing.assert_allclose(f.value, [1.0, 0.5, 0.0, -0.5], rtol=1e-4)


def test_a_floor_of_zero_forbids_negative_weights():
    assert weight([0.0, 1.0, 99.0], 5.0, base=3.0, floor=0.0).value.min() == 0


def test_running_minimum_starts_afresh_with_each_episode():
    x = jnp.array([[3.0], [1.0], [2.0], [5.0], [4.0]])
    end = jnp.array([[0.0], [0.0], [1.0], [0.0], [0.0]])
    np.testing.assert_array_equal(running_minimum(x, end)[:, 0], [3, 1, 1, 5, 4])


def test_weight_of_the_earlier_experiments_by_hand():
    """d = 2, b = e: 1 - e^(min(V, d) + min(C, d) - 2 d), and -df/dV = e^(...)."""
    r = rollout([1.0] * 4, [0.0] * 4, cost_so_far=[0.0, 0.0, 1.0, 9.0])
    earlier = modulation_of(SMPOEarlier)
    weight, charge = weigh(earlier, r, [0.0, 9.0, 1.0, 9.0], threshold=2.0)
    left = np.exp([-4.0, -2.0, -2.0, 0.0])  # V = 9 and C = 9 count as 2
    np.testing.assert_allclose(weight, 1 - left, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(charge, left, rtol=1e-6)


def test_weight_of_the_earlier_experiments_is_never_below_its_floor():
    f = twice_budget_weight(jnp.array([0.0, 4.0, 9.0, 1e6]), jnp.asarray(4.0), base=2.0, floor=-1.0)
    np.testing.assert_allclose(f.value, [1 - 2.0**-4, 0.0, -1.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose(f.slope[2:], -2 * np.log(2), rtol=1e-6)  # that of the floor


def test_the_published_code_has_the_weight_of_the_paper_with_base_4():
    r = rollout([1.0] * 3, [0.0] * 3, cost_so_far=[0.0, 1.0, 9.0])
    weight, _ = weigh(modulation_of(SMPOCode), r, [0.0, 0.0, 0.0], threshold=2.0)
    # (1 - 4^x) / (1 - 1/16) at x = -2, -1, 7, the last one at the floor
    np.testing.assert_allclose(weight, [1.0, 0.75 / 0.9375, -5.0], rtol=1e-6)


def modulation_of(preset=SMPOPaper, **settings):
    made = preset(**settings)
    how = learning(made.cost_discount, made.cost_trace, made.cost_regularisation)
    return made.modulation(spec_of(), how)


def weigh(modulation, rollout, q, *, threshold=4.0, is_on=True):
    q, threshold = jnp.asarray(q)[:, None], jnp.asarray(threshold)
    found = modulation.weigh(rollout, q, threshold, is_on=jnp.asarray(is_on))
    return found.value[:, 0], modulation.charge(found, rollout.transition)[:, 0]


def test_weight_of_the_paper_by_hand():
    """x = C_t + clip(Q, 0, d') - d', with b = 2, d' = 4: f(x) = (1 - 2^x) / (15/16)."""
    r = rollout([1.0] * 4, [0.0] * 4, cost_so_far=[0.0, 0.0, 3.0, 5.0])
    weight, _ = weigh(modulation_of(weight_base=2.0), r, [0.0, 2.0, 9.0, 0.0])
    x = np.array([-4.0, -2.0, 3.0, 1.0])  # the third prediction is clipped at d'
    expected = np.maximum((1 - 2**x) / (15 / 16), -5)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


@pytest.mark.parametrize("spent, expected", [("episode", 3.0), ("capped", 2.0), ("none", 0.0)])
def test_what_counts_as_spent(spent, expected):
    r = rollout([1.0], [0.0], cost_so_far=[3.0], elapsed=[5.0])
    line = modulation_of(spent=spent, weight_base=1.000001)  # the straight line f = -x / d'
    weight, _ = weigh(line, r, [0.0], threshold=2.0)
    np.testing.assert_allclose(weight, [1 - expected / 2], rtol=1e-4)


def test_predictions_scaled_to_the_episode_undo_horizon_and_penalty():
    line = modulation_of(prediction_scale="episode", spent="none", weight_base=1.000001)
    per_step = 0.01 + 0.1  # 1 - γ + ρ
    weight, _ = weigh(line, rollout([1.0], [0.0], elapsed=[3.0]), [20.0], threshold=50.0)
    np.testing.assert_allclose(weight, [1 - 20 * per_step * 10 / 50], rtol=1e-4)


def test_rewards_are_shifted_before_and_unshifted_after():
    r, f, shift = jnp.array([[-0.5, 2.0]]), jnp.array([[-1.0, 0.5]]), jnp.array([[1.0, 1.0]])
    # f (r + s) - s: -1 * 0.5 - 1, 0.5 * 3 - 1
    plain, code = modulation_of(), modulation_of(modulates="advantage")
    np.testing.assert_allclose(plain.reward(r, f, shift), [[-1.5, 0.5]])
    assert plain.advantage(r, f) is r
    # where f multiplies the advantage, that is one of shifted rewards
    np.testing.assert_allclose(code.reward(r, f, shift), [[0.5, 3.0]])
    np.testing.assert_allclose(code.advantage(r, f), [[0.5, 1.0]])


def test_a_step_beyond_the_budget_earns_where_the_shift_leaves_a_negative_reward():
    r, f, shift = (
        jnp.array([x]) for x in ([-0.5, -0.5, -0.5, 2.0], [-1, -1, 0.5, -1.0], [0.1, 1, 0.1, 0.1])
    )
    # -1 * -0.4 is a gain; -1 * 0.5 and -1 * 2.1 are losses, and so is less of a positive weight.
    earns = weights.is_paid_for_excess(r, f, shift)
    np.testing.assert_array_equal(earns, [[True, False, False, False]])
    np.testing.assert_array_equal(
        earns, (f < 0) & (modulation_of().reward(r, f, shift) + shift > 0) & (r < 0)
    )


def test_shifting_by_the_running_minimum_leaves_no_negative_reward():
    r = rollout([0.5, -2.0, 1.0], [0.0] * 3)
    shift = modulation_of(shift="minimum").shift(r.transition)
    np.testing.assert_allclose(shift[:, 0], [0.0, 2.0, 2.0])


def test_charge_is_the_reward_at_stake_times_the_slope():
    """-r df/dQ = r 2^x ln 2 / (15/16)."""
    r = rollout([1.0, 3.0], [0.0] * 2)
    _, charge = weigh(modulation_of(weight_base=2.0), r, [0.0, 2.0])
    expected = np.array([1.0, 3.0]) * 2.0 ** np.array([-4.0, -2.0]) * np.log(2) / (15 / 16)
    np.testing.assert_allclose(charge, expected, rtol=1e-5)


def test_reward_to_go_is_at_stake_in_the_published_code():
    """γ = 0.99: 1 + 0.99 * 3 and 3, times the same slope."""
    r, q = rollout([1.0, 3.0], [0.0] * 2), [0.0, 0.0]
    _, step = weigh(modulation_of(weight_base=2.0), r, q)
    _, rest = weigh(modulation_of(weight_base=2.0, critic_gradient_reward="reward-to-go"), r, q)
    np.testing.assert_allclose(rest / step, [(1 + 0.99 * 3), 1.0], rtol=1e-6)


def test_charge_is_not_lifted_where_the_prediction_is_clipped():
    r = rollout([1.0], [0.0])
    _, at_clip = weigh(modulation_of(weight_base=2.0), r, [4.0])
    _, beyond = weigh(modulation_of(weight_base=2.0), r, [400.0])
    np.testing.assert_array_equal(at_clip, beyond)


def test_nothing_is_modulated_during_the_warm_up():
    r = rollout([1.0], [0.0], cost_so_far=[30.0])
    weight, charge = weigh(modulation_of(), r, [4.0], is_on=False)
    assert weight == 1 and charge == 0


def weight_of(value, slope):
    return weights.Weight(jnp.asarray(value), jnp.asarray(slope))


@pytest.mark.parametrize(
    ("a", "b", "together", "slopes"),
    [
        (0.5, 0.8, 0.4, (-2.0 * 0.8, -3.0 * 0.5)),  # the product, and its rule
        (0.5, -0.2, -0.2, (0.0, -3.0)),  # beyond one budget, that alone
        (-0.5, -0.2, -0.7, (-2.0, -3.0)),  # beyond both: not +0.1
    ],
)
def test_weights_of_two_constraints_by_hand(a, b, together, slopes):
    f, own = weights.product({"a": weight_of(a, -2.0), "b": weight_of(b, -3.0)})
    np.testing.assert_allclose(f, together, rtol=1e-6)
    np.testing.assert_allclose([own["a"].slope, own["b"].slope], slopes, rtol=1e-6)


def test_weight_of_one_constraint_is_itself():
    own = weight_of(-0.5, -2.0)
    f, same = weights.product(own)
    assert f is own.value and same.slope is own.slope
