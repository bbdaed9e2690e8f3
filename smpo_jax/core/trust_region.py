"""Natural-gradient steps: Fisher products, conjugate gradients, constrained steps, line search.

Parameters and steps are flat vectors of `P` entries. Objectives are maximised: g is the gradient
of the surrogate return, b that of the surrogate cost, F the damped Fisher matrix of the policy,
and all of a step's geometry is in the products q = gᵀF⁻¹g, r = gᵀF⁻¹b, s = bᵀF⁻¹b.
"""

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_jax.core import constraints
from smpo_jax.core.constraints import each
from smpo_jax.types import Distribution, PerCost, Scalar

Vector = Float[Array, " P"]
Product = Callable[[Vector], Vector]  # v -> F v, or v -> F⁻¹ v

_TINY = 1e-12  # keeps 0 / 0 from being NaN; far below any q or s that says something
_ROUND_OFF = 1e-6  # of q, in float32: gradients are parallel if what is left of it is less


class ConstrainedStep(NamedTuple):
    """The step `along_reward` F⁻¹g + `along_cost` F⁻¹b, which of CPO's cases it is."""

    along_reward: Float[Array, ""]  # 1/λ >= 0
    along_cost: Float[Array, "*M"]  # −ν/λ <= 0; of each constraint, where there are several
    is_slack: Bool[Array, ""]  # the natural step already satisfies the constraint: ν = 0
    is_recovery: Bool[Array, ""]  # no step within the trust region does


class Trial(NamedTuple):
    """What a candidate policy is like, compared with the one that acted."""

    kl: Float[Array, ""]
    gain: Float[Array, ""]  # of the surrogate return
    cost_change: PerCost  # of Float[Array, ""], of the surrogate cost


class Search(NamedTuple):
    """Where a line search ended."""

    params: Vector
    fraction: Float[Array, ""]  # of the step that was taken; 0 if none was acceptable
    trial: Trial  # of `params`; zeros if they are the old ones


def full_precision() -> AbstractContextManager:
    """Where products of matrices that are traced have all digits of float32.

    Unless told, GPUs round the factors to 10 bits and TPUs to 8, and a solve multiplies that by the
    condition number, which is 1e3 and more here.
    """
    return jax.default_matmul_precision("float32")


def conjugate_gradients(
    product: Product, b: Vector, *, iterations: int, tolerance: Scalar = 1e-10
) -> Vector:
    """The x with F x ≈ b, for a positive definite F that is given by its products.

    Hestenes & Stiefel (1952). Stops after `iterations`, or once ‖F x − b‖² <= `tolerance` ‖b‖².
    Where b = 0, so is x.

    Deviation: `jax.scipy.sparse.linalg.cg` is the same iteration, but for one more product, with
    its start of 0, and for last digits, by which every run would be another: learning is chaotic
    (1e-6 of the divergence after an update of SMPO, 5 % of a critic's correlation after two).
    """

    def go_on(carry):
        i, _, _, _, squares = carry
        return (i < iterations) & (squares > enough)

    def one(carry):
        i, x, residual, direction, squares = carry
        image = product(direction)
        length = squares / jnp.maximum(direction @ image, _TINY * squares)
        x, residual = x + length * direction, residual - length * image
        remaining = residual @ residual
        return i + 1, x, residual, residual + (remaining / squares) * direction, remaining

    squares = b @ b
    enough = tolerance * squares
    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, squares)
    return jax.lax.while_loop(go_on, one, start)[1]


def fisher_product(
    apply: Callable[[Vector], Distribution], params: Vector, *, damping: Scalar
) -> Product:
    """The map v -> (F + damping I) v, F being the mean Fisher information of a policy's states.

    F is the Hessian of the mean KL(π_params || π) at π = π_params. With outputs (of a Gaussian, μ
    and log σ) whose Jacobian is J and whose own Fisher information is M, it is exactly Jᵀ M J: a
    forward and a backward sweep over a linear map, whose activations are computed only once,
    instead of a derivative of a derivative. M is the Hessian of the divergence in the outputs.
    """
    dist, forward = jax.linearize(apply, params)
    backward = jax.linear_transpose(forward, params)
    _, curvature = jax.linearize(jax.grad(lambda new: jnp.mean(dist.kl(new))), dist)

    def product(v: Vector) -> Vector:
        (image,) = backward(curvature(forward(v)))
        return image + damping * v

    return product


def natural_length(q: Scalar, *, target_kl: Scalar) -> Float[Array, ""]:
    """α = √(2δ / q), which makes ½ (αF⁻¹g)ᵀ F (αF⁻¹g) = δ; finite where g = 0."""
    return jnp.sqrt(2.0 * target_kl / jnp.maximum(q, _TINY))


def constrained_step(
    q: Scalar, r: Scalar, s: Scalar, violation: Scalar, *, target_kl: Scalar
) -> ConstrainedStep:
    """CPO's step (Achiam et al. 2017, theorem 2 and appendix 10.2), c being the `violation`.

        max gᵀd  subject to  c + bᵀd <= 0,  ½ dᵀF d <= δ

    If the natural step αF⁻¹g satisfies the constraint, it is the answer: so also where b = 0 and
    c <= 0, and where all of the trust region is feasible. Otherwise the answer is on the plane
    c + bᵀd = 0: from the plane's point nearest to the origin along the gradient within the plane,
    up to the border of the trust region,

        d = −(c/s) F⁻¹b + √(B/A) (F⁻¹g − (r/s) F⁻¹b),  A = q − r²/s,  B = 2δ − c²/s.

    That is the paper's (F⁻¹g − νF⁻¹b)/λ with λ = √(A/B) and ν = (λc + r)/s (r has the other sign
    there, g being the gradient of a loss), but for a division by λ = 0 where the gradients are
    parallel. If the plane misses the trust region (B < 0), the answer is the step that cuts cost
    most, −√(2δ/s) F⁻¹b; no step where b = 0.

    Deviation: the appendix maximises the dual on two intervals of λ and takes the better; asking
    whether the natural step is feasible decides the same.
    """
    alpha = natural_length(q, target_kl=target_kl)
    is_slack = violation + alpha * r <= 0.0

    safe_s = jnp.maximum(s, _TINY)
    radius = 2.0 * target_kl - violation**2 / safe_s  # B
    is_recovery = ~is_slack & (radius < 0.0)
    recovery = -natural_length(s, target_kl=target_kl)

    in_plane = jnp.maximum(q - r**2 / safe_s, jnp.maximum(_ROUND_OFF * q, _TINY))  # A
    along_reward = jnp.sqrt(jnp.maximum(radius, 0.0) / in_plane)
    along_cost = -(violation + along_reward * r) / safe_s
    return ConstrainedStep(
        jnp.where(is_slack, alpha, jnp.where(is_recovery, 0.0, along_reward)),
        jnp.where(is_slack, 0.0, jnp.where(is_recovery, recovery, along_cost)),
        is_slack,
        is_recovery,
    )


def constrained_step_of_two(
    q: Scalar,
    r: Float[Array, "2"],
    s: Float[Array, "2 2"],
    violation: Float[Array, "2"],
    *,
    target_kl: Scalar,
) -> ConstrainedStep:
    """CPO's step under two constraints (Achiam et al. 2017, eqs. 11-13), by active sets.

        max gᵀd  subject to  cᵢ + bᵢᵀd <= 0,  ½ dᵀF d <= δ

    with rᵢ = gᵀF⁻¹bᵢ, sᵢⱼ = bᵢᵀF⁻¹bⱼ. The problem is convex: the best step under one of the
    constraints alone is the answer if it satisfies the other. If neither does, the answer is on
    both planes, from their point nearest to the origin along the gradient within them,

        d = −F⁻¹B S⁻¹c + √(A⁻¹ (2δ − cᵀS⁻¹c)) (F⁻¹g − F⁻¹B S⁻¹r),  A = q − rᵀS⁻¹r.

    If no step within the trust region satisfies both, the answer goes as far as that allows towards
    the nearest one that does, as the step under one constraint does. A constraint whose gradient is
    0 has no say in that direction.
    """

    def alone(i: int) -> tuple[Float[Array, ""], Float[Array, "2"], ConstrainedStep, Array]:
        own = constrained_step(q, r[i], s[i, i], violation[i], target_kl=target_kl)
        other = 1 - i
        there = violation[other] + own.along_reward * r[other] + own.along_cost * s[i, other]
        along_cost = jnp.zeros(2).at[i].set(own.along_cost)
        return own.along_reward, along_cost, own, (there <= 0.0) & ~own.is_recovery

    first_reward, first_cost, first, first_holds = alone(0)
    second_reward, second_cost, second, second_holds = alone(1)

    nearest, share = _solve_two(s, violation), _solve_two(s, r)
    in_planes = jnp.maximum(q - r @ share, jnp.maximum(_ROUND_OFF * q, _TINY))  # A
    radius = jnp.maximum(2.0 * target_kl - violation @ nearest, 0.0)
    both_reward = jnp.sqrt(radius / in_planes)
    both_cost = -(nearest + both_reward * share)

    prices = nearest_prices(s, violation)
    is_recovery = first.is_recovery | second.is_recovery | (prices @ s @ prices > 2.0 * target_kl)
    # The paper's −√(2δ/s) F⁻¹b, along the gradient of what has to be cut.
    has_gradient = jnp.diagonal(s) > _TINY
    cut = nearest_prices(s, jnp.where(has_gradient, violation, jnp.minimum(violation, 0.0)))
    recovery = -natural_length(cut @ s @ cut, target_kl=target_kl) * cut

    along_reward = jnp.where(second_holds, second_reward, both_reward)
    along_reward = jnp.where(first_holds, first_reward, along_reward)
    along_cost = jnp.where(second_holds, second_cost, both_cost)
    along_cost = jnp.where(first_holds, first_cost, along_cost)
    return ConstrainedStep(
        jnp.where(is_recovery, 0.0, along_reward),
        jnp.where(is_recovery, recovery, along_cost),
        (first_holds & first.is_slack) | (second_holds & second.is_slack),
        is_recovery,
    )


def nearest_prices(s: Float[Array, "2 2"], violation: Float[Array, "2"]) -> Float[Array, "2"]:
    """The multipliers ν >= 0 of the nearest step that satisfies two constraints, −F⁻¹B ν.

        min ½ dᵀF d  subject to  c + Bᵀd <= 0,   whose dual is   max cᵀν − ½ νᵀSν  over  ν >= 0

    By active sets: none, one, both. Finite also where the planes are parallel.
    """
    alone = jnp.maximum(violation, 0.0) / jnp.maximum(jnp.diagonal(s), _TINY)
    first, second = alone * jnp.array([1.0, 0.0]), alone * jnp.array([0.0, 1.0])
    both = jnp.maximum(_solve_two(s, violation), 0.0)
    first_holds = s[0, 1] * alone[0] >= violation[1]
    second_holds = s[0, 1] * alone[1] >= violation[0]
    return jnp.where(first_holds, first, jnp.where(second_holds, second, both))


def _solve_two(s: Float[Array, "2 2"], v: Float[Array, "2"]) -> Float[Array, "2"]:
    """S⁻¹v, finite also where S is singular."""
    scale = jnp.maximum(s[0, 0] * s[1, 1], _TINY**2)
    determinant = jnp.maximum(s[0, 0] * s[1, 1] - s[0, 1] ** 2, _ROUND_OFF * scale)
    return jnp.stack([s[1, 1] * v[0] - s[0, 1] * v[1], s[0, 0] * v[1] - s[0, 1] * v[0]]) / (
        determinant
    )


def project(step: Vector, b: Vector, direction: Vector, violation: Scalar) -> Vector:
    """PCPO's second half: the nearest step with c + bᵀd <= 0 (Yang et al. 2020, eq. 8).

        d − max(0, (c + bᵀd) / (bᵀL⁻¹b)) L⁻¹b

    `direction` is L⁻¹b and says what near means: F⁻¹b for L = F (KL), b for L = I (Euclidean).
    Unchanged where b = 0.
    """
    excess = jnp.maximum(violation + b @ step, 0.0)
    return step - excess / jnp.maximum(b @ direction, _TINY) * direction


def within(step: Vector, fisher: Product, *, target_kl: Scalar) -> Vector:
    """A step of the same direction with ½ dᵀF d <= δ: the step itself, or up to the border."""
    return step * jnp.minimum(natural_length(step @ fisher(step), target_kl=target_kl), 1.0)


def line_search(
    params: Vector,
    step: Vector,
    evaluate: Callable[[Vector], Trial],
    *,
    target_kl: Scalar,
    least_gain: Scalar = 0.0,
    most_cost: PerCost = jnp.inf,
    decay: Scalar = 0.8,
    tries: int = 15,
) -> Search:
    """The longest of `step` times 1, decay, decay², ... that keeps what the model promised.

    Acceptable is KL <= `target_kl`, gain >= `least_gain`, cost change <= `most_cost` of every
    constraint; anything NaN is not. If none of `tries` candidates is, the old parameters are
    returned as they are.
    """

    def acceptable(trial: Trial) -> Bool[Array, ""]:
        keeps_costs = constraints.all_of(each(operator.le, trial.cost_change, most_cost))
        return (trial.kl <= target_kl) & (trial.gain >= least_gain) & keeps_costs

    def go_on(carry):
        i, _, found = carry
        return (i < tries) & ~found

    def one(carry):
        i, _, _ = carry
        fraction = jnp.asarray(decay, params.dtype) ** i
        candidate = params + fraction * step
        trial = evaluate(candidate)
        return i + 1, Search(candidate, fraction, trial), acceptable(trial)

    zero = jnp.zeros((), params.dtype)
    none = Search(params, zero, Trial(zero, zero, each(lambda _: zero, most_cost)))
    _, last, found = jax.lax.while_loop(
        go_on, one, (jnp.zeros((), jnp.int32), none, jnp.zeros((), bool))
    )
    return jax.tree.map(lambda new, old: jnp.where(found, new, old), last, none)
