"""The accelerations of the robot and some vases under all their contacts: Newton's method.

The unknown is what contacts add to the contact-free acceleration. Its energy, ½ yᵀMy plus the
contacts' penalty, is convex and piecewise quadratic, so Newton's method with a line search ends
exactly after finitely many changes of the active rows, mostly after one to four.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.safety_gym import contact
from smpo_envs.safety_gym.batched import cross, dot, together, total
from smpo_envs.safety_gym.contact import Curvature, Rows

MAX_ITERATIONS = 20
FLOOR_SLOTS = 4  # a vase's first contact slots are with the floor, the others with the robot
_UNROLLED = 9  # largest system that is eliminated in straight-line code


class Change(NamedTuple):
    """Accelerations (world axes, solver units) beyond those without contact.

    Attributes:
        robot: of its origin along x and y, and about the vertical.
        vases: twists of their centres.
    """

    robot: Float[Array, "3 B"]
    vases: Float[Array, "6 K B"]


class System(NamedTuple):
    """The robot, `K` vases, and everything that touches.

    Attributes:
        mass: of the robot, for its three freedoms.
        lever: from the robot's origin to the vases' centres, in the plane.
        link: from the first to the second vase of each of the `P` pairs (see `pairs`).
        single: each vase's contacts with the floor and the robot, about its centre; slots [S].
        double: contacts within each pair, about the second vase's centre; slots [4].
    """

    mass: Float[Array, "3 3 B"]
    lever: Float[Array, "2 K B"]
    link: Float[Array, "3 P B"]
    single: Rows
    double: Rows


class Components(NamedTuple):
    """The six components of all contacts of a system."""

    single: Float[Array, "6 S K B"]
    double: Float[Array, "6 4 P B"]


def pairs(count: int) -> tuple[list[int], list[int]]:
    """The first and the second members of all pairs of `count` things."""
    both = list(itertools.combinations(range(count), 2))
    return [i for i, _ in both], [j for _, j in both]


def carried(lever: Float[Array, "2 K B"], robot: Float[Array, "3 B"]) -> Float[Array, "6 K B"]:
    """The robot's twist, seen at each vase's centre."""
    x, y, turn = robot[0] - lever[1] * robot[2], robot[1] + lever[0] * robot[2], robot[2]
    zero = jnp.zeros_like(x)
    return jnp.stack([x, y, zero, zero, zero, zero + turn])


def moved(link: Float[Array, "3 *s"], twist: Float[Array, "6 *s"]) -> Float[Array, "6 *s"]:
    """A twist, seen at the end of `link`."""
    return jnp.concatenate([twist[:3] + cross(twist[3:], link), twist[3:]])


def newton(system: System, start: Change) -> tuple[Change, Int[Array, " B"]]:
    """The minimiser of the energy, and the iterations it took."""
    batch = start.robot.shape[-1]
    eps = jnp.finfo(start.robot.dtype).eps
    scale = jnp.abs(system.single.bias[0]).max((0, 1))
    tolerance = (100 * eps * scale) ** 2

    def unfinished(carry):
        _, _, done, iterations = carry
        return ~done.all() & (iterations.max() < MAX_ITERATIONS)

    def improve(carry):
        y, value, done, iterations = carry
        gradient = together(_gradient(system, y, value))
        step = together(_newton_step(_hessian(system, value), gradient))
        change = together(_components(system, step))
        decrement = -_inner(gradient, step)
        t, exact = _line_search(system, y, value, step, change, decrement)
        t = jnp.where(done, 0, t)
        y = jax.tree.map(lambda a, d: a + t * d, y, step)
        value = jax.tree.map(lambda a, d: a + t * d, value, change)
        finished = done | (decrement <= tolerance) | exact
        return together((y, value, finished, iterations + ~done))

    value = jax.tree.map(
        jnp.add, _components(system, start), Components(system.single.bias, system.double.bias)
    )
    done = jnp.zeros((batch,), bool)
    y, _, _, iterations = jax.lax.while_loop(
        unfinished, improve, (start, value, done, jnp.zeros((batch,), jnp.int32))
    )
    return y, iterations


def _components(system: System, y: Change) -> Components:
    """What the contacts see of accelerations, without bias."""
    slots = system.single.stiffness.shape[0]
    by_robot = (jnp.arange(slots) >= FLOOR_SLOTS)[:, None, None]
    twist = y.vases[:, None] - jnp.where(by_robot, carried(system.lever, y.robot)[:, None], 0)
    single = contact.components(system.single.slide, system.single.turn, twist)
    first, second = pairs(y.vases.shape[1])
    if not first:
        return Components(single, system.double.bias)
    twist = _take(y.vases, second) - moved(system.link, _take(y.vases, first))
    twist = jnp.broadcast_to(twist[:, None], system.double.bias.shape)
    return Components(single, contact.components(system.double.slide, system.double.turn, twist))


def _take(x: jax.Array, members: list[int]) -> jax.Array:
    """Members along the second axis."""
    return jnp.stack([x[:, i] for i in members], axis=1)


def _inner(a: Change, b: Change) -> Float[Array, " B"]:
    return dot(a.robot, b.robot) + total(dot(a.vases, b.vases))


def _gradient(system: System, y: Change, value: Components) -> Change:
    """First derivative of the energy."""
    wrench = together(contact.wrench(system.single, value.single))
    slots = wrench.shape[1]
    floor = total(wrench[:, s] for s in range(FLOOR_SLOTS))
    robot = total(wrench[:, s] for s in range(FLOOR_SLOTS, slots))
    vases = y.vases + floor + robot
    first, second = pairs(vases.shape[1])
    if first:
        wrench = total(jnp.moveaxis(contact.wrench(system.double, value.double), 1, 0))
        # The transpose of `moved`.
        reaction = jnp.concatenate([wrench[:3], wrench[3:] + cross(system.link, wrench[:3])])
        for p, (i, j) in enumerate(zip(first, second, strict=True)):
            vases = vases.at[:, j].add(wrench[:, p]).at[:, i].add(-reaction[:, p])
    momentum = total(system.mass[:, i] * y.robot[i] for i in range(3))
    return Change(momentum - total(jnp.moveaxis(_handed_over(system.lever, robot), 1, 0)), vases)


def _handed_over(lever: Float[Array, "2 K B"], wrench: Float[Array, "6 K B"]) -> jax.Array:
    """Wrenches on vases' centres as forces on the robot's freedoms: the transpose of `carried`."""
    x, y = wrench[0], wrench[1]
    return jnp.stack([x, y, wrench[5] + lever[0] * y - lever[1] * x])


def _hessian(system: System, value: Components) -> Float[Array, "n n B"]:
    """Second derivative of the energy, the robot first, then the vases one by one."""
    curvature = contact.curvature(system.single, value.single)
    slots = curvature.linear.shape[2]
    floor = _full(curvature, range(FLOOR_SLOTS))
    robot = together(_full(curvature, range(FLOOR_SLOTS, slots)))
    count = floor.shape[2]
    eye = jnp.eye(6, dtype=floor.dtype)[:, :, None, None]
    diagonal = floor + robot + eye
    lever = system.lever
    coupling = -jnp.stack(
        [robot[:, 0], robot[:, 1], robot[:, 5] + lever[0] * robot[:, 1] - lever[1] * robot[:, 0]],
        axis=1,
    )  # [6, 3, K, B]
    corner = system.mass - total(
        jnp.stack([_handed_over(lever, coupling[:, i])[:, k] for i in range(3)], axis=1)
        for k in range(count)
    )
    blocks = {(k, k): diagonal[:, :, k] for k in range(count)}
    first, second = pairs(count)
    if first:
        double = contact.curvature(system.double, value.double)
        double = together(_full(double, range(double.linear.shape[2])))
        for p, (i, j) in enumerate(zip(first, second, strict=True)):
            block, link = double[:, :, p], system.link[:, p]
            right = _moved_columns(block, link)
            both = _moved_columns(jnp.swapaxes(right, 0, 1), link)
            blocks[j, j] += block
            blocks[i, i] += both
            blocks[j, i] = -right
            blocks[i, j] = -jnp.swapaxes(right, 0, 1)
    top = [corner, *(jnp.swapaxes(coupling[:, :, k], 0, 1) for k in range(count))]
    rows = [jnp.concatenate(top, axis=1)]
    for k in range(count):
        row = [coupling[:, :, k], *(blocks[k, other] for other in range(count))]
        rows.append(jnp.concatenate(row, axis=1))
    return jnp.concatenate(rows)


def _full(curvature: Curvature, slots: range) -> Float[Array, "6 6 K B"]:
    """The sum of the curvatures of some slots as whole matrices."""
    linear, mixed, angular = together(
        tuple(total(block[:, :, s] for s in slots) for block in curvature)
    )
    top = jnp.concatenate([linear, mixed], axis=1)
    return jnp.concatenate([top, jnp.concatenate([jnp.swapaxes(mixed, 0, 1), angular], axis=1)])


def _moved_columns(matrix: Float[Array, "6 6 B"], link: Float[Array, "3 B"]) -> jax.Array:
    """The product with X, the matrix of `moved`, on the right."""
    angular = matrix[:, 3:] + jnp.swapaxes(
        cross(
            jnp.broadcast_to(link[:, None], (3, *matrix[0].shape)),
            jnp.swapaxes(matrix[:, :3], 0, 1),
        ),
        0,
        1,
    )
    return jnp.concatenate([matrix[:, :3], angular], axis=1)


def _newton_step(hessian: Float[Array, "n n B"], gradient: Change) -> Change:
    flat = [gradient.robot, *jnp.moveaxis(gradient.vases, 1, 0)]
    table = jnp.concatenate([hessian, -jnp.concatenate(flat)[:, None]], axis=1)
    solution = solve_positive(together(table))
    count = gradient.vases.shape[1]
    vases = [solution[3 + 6 * k : 9 + 6 * k] for k in range(count)]
    return Change(solution[:3], jnp.stack(vases, axis=1))


def solve_positive(table: Float[Array, "n m B"]) -> Float[Array, "n B"]:
    """Solves A x = b for positive definite A, given `table` = [A, b], without pivoting."""
    n = table.shape[0]
    if n > _UNROLLED:

        def eliminate(j, table):
            row = table[j] / table[j, j]
            return (table - table[:, j][:, None] * row[None]).at[j].set(row)

        return jax.lax.fori_loop(0, n, eliminate, table)[:, -1]

    rows = []
    for _ in range(n):
        rows.append(table[0])
        table = table[1:, 1:] - (table[1:, 0] / table[0, 0])[:, None] * table[0, 1:]
    x: list[jax.Array] = []
    for pivot, *row, right in reversed(rows):
        known = total(a * b for a, b in zip(row, x, strict=True)) if x else jnp.zeros_like(pivot)
        x.insert(0, (right - known) / pivot)
    return jnp.stack(x)


def _line_search(
    system: System,
    y: Change,
    value: Components,
    step: Change,
    change: Components,
    decrement: Float[Array, " B"],
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """How far to go, and whether that is the minimum: a full step that flips no row.

    A full step, or, where the energy's slope has not fallen tenfold there, one Newton step on the
    slope from there. That suffices: more care saves no iterations.
    """
    mass_step = total(system.mass[:, i] * step.robot[i] for i in range(3))
    inertia = dot(mass_step, step.robot) + total(dot(step.vases, step.vases))
    slope = dot(mass_step, y.robot) + total(dot(step.vases, y.vases)) + inertia
    first = _line_terms(system.single, value.single, change.single)
    slope, bend, flips = slope + first[0], inertia + first[1], first[2]
    if system.link.shape[1]:
        second = _line_terms(system.double, value.double, change.double)
        slope, bend, flips = slope + second[0], bend + second[1], flips + second[2]
    full = jnp.abs(slope) <= 0.1 * decrement
    bend = jnp.maximum(bend, jnp.finfo(bend.dtype).tiny)  # 0 where nothing is left to do
    t = jnp.where(full, bend, jnp.where(slope < bend, bend - slope, bend / 2)) / bend
    return t, full & (flips == 0)


def _line_terms(contacts: Rows, value: jax.Array, change: jax.Array) -> jax.Array:
    """Slope and bend of the penalty after a full step, and a number that is 0 if no row flips."""
    new = value + change
    plus, minus = contact.violation(new)
    slope = change[0] * total(plus + minus) + dot(change[1:], plus - minus)
    now_plus, now_minus = contact.active(new)
    was_plus, was_minus = contact.active(value)
    bend = dot(now_plus, (change[0] + change[1:]) ** 2)
    bend += dot(now_minus, (change[0] - change[1:]) ** 2)
    flips = total(jnp.abs(now_plus - was_plus) + jnp.abs(now_minus - was_minus))
    terms = together(contacts.stiffness * jnp.stack([slope, bend, flips]))
    terms = total(jnp.moveaxis(terms, 1, 0))
    return total(jnp.moveaxis(terms, 1, 0))
