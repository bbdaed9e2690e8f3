"""The accelerations of the robot and some boxes under all their contacts: Newton's method.

The unknown is what contacts add to the contact-free acceleration. Its energy, ½ yᵀMy plus the
contacts' penalty, is convex and piecewise quadratic, so Newton's method with a line search ends
exactly after finitely many changes of the active rows, mostly after one to four.
"""

import itertools
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smpo_envs.compilation import stored
from smpo_envs.safety_gym import contact
from smpo_envs.safety_gym.batched import Tree, apply, cross, dot, total
from smpo_envs.safety_gym.contact import Rows

MAX_ITERATIONS = 20
_UNASKED = 4  # iterations that an accelerator makes at least
_UNROLLED = 9  # largest system that a CPU eliminates in straight-line code


class Change(NamedTuple):
    """Accelerations (world axes, solver units) beyond those without contact.

    Attributes:
        robot: of its origin along x and y, and about the vertical.
        boxes: twists of their centres.
    """

    robot: Float[Array, "3 B"]
    boxes: Float[Array, "6 K B"]


class Inertia(NamedTuple):
    """How boxes resist acceleration (solver units, world axes)."""

    mass: Float[Array, "K B"]
    angular: Float[Array, "3 3 K B"]


class Layout(NamedTuple):
    """How many contact slots there are of each kind, in their order; and how many boxes.

    Attributes:
        fixed: the robot's with what stands fast; rows are about its origin.
        ground: the boxes' with what stands fast, about the box's centre.
        single: the boxes' with the robot, about the box's centre.
        double: those within pairs of boxes (see `pairs`), about the second box's centre.
        boxes: how many there are. All have as many slots, as have all pairs; the slots' first ones
            come first.
    """

    fixed: int
    ground: int
    single: int
    double: int
    boxes: int

    def groups(self) -> tuple[tuple[int, int], ...]:
        """Of each kind how many things have slots, and how many each has."""
        number = (1, self.boxes, self.boxes, len(pairs(self.boxes)[0]))
        return tuple((n, slots // max(n, 1)) for n, slots in zip(number, self[:-1], strict=True))


class Geometry(NamedTuple):
    """How the bodies and the contact slots `S` between them lie.

    Attributes:
        layout: whose the slots are.
        lever: from the robot's origin to the boxes' centres, in the plane.
        link: from the first to the second box of each of the `P` pairs (see `pairs`).
    """

    layout: Layout
    lever: Float[Array, "2 K B"]
    link: Float[Array, "3 P B"]


class System(NamedTuple):
    """The robot, `K` boxes, and everything that touches. `K` may be 0, as may all slots.

    Attributes:
        geometry: where everything is.
        mass: of the robot, for its three freedoms.
        inertia: of the boxes.
        rows: the contacts.
    """

    geometry: Geometry
    mass: Float[Array, "3 3 B"]
    inertia: Inertia
    rows: Rows


def pairs(count: int) -> tuple[list[int], list[int]]:
    """The first and the second members of all pairs of `count` things."""
    both = list(itertools.combinations(range(count), 2))
    return [i for i, _ in both], [j for _, j in both]


def _robot_twist_at_boxes(
    lever: Float[Array, "2 K B"], robot: Float[Array, "3 B"]
) -> Float[Array, "6 K B"]:
    """The robot's twist, seen at each box's centre."""
    x, y, turn = robot[0] - lever[1] * robot[2], robot[1] + lever[0] * robot[2], robot[2]
    zero = jnp.zeros_like(x)
    return jnp.stack([x, y, zero, zero, zero, zero + turn])


def _shifted(link: Float[Array, "3 *s"], twist: Float[Array, "6 *s"]) -> Float[Array, "6 *s"]:
    """A twist, seen at the end of `link`."""
    return jnp.concatenate([twist[:3] + cross(twist[3:], link), twist[3:]])


def _per_slot(layout: Layout, groups: Iterable[Float[Array, "n *s"]]) -> Float[Array, "n S B"]:
    """For each slot what its kind of slots, or which of the boxes or pairs, has."""
    parts = []
    for (things, slots), x in zip(layout.groups(), groups, strict=True):
        if slots * things:
            front, batch = x.shape[0], x.shape[-1]
            each = x.reshape(front, 1, things, batch)
            each = jnp.broadcast_to(each, (front, slots, things, batch))
            parts.append(each.reshape(front, slots * things, batch))
    return jnp.concatenate(parts, axis=1)


def _by_kind(layout: Layout, tree: Tree) -> list[Tree]:
    """Arrays of all slots, apart by kind."""
    ends = [0, *itertools.accumulate(things * slots for things, slots in layout.groups())]
    return [
        jax.tree.map(lambda x, b=begin, e=end: x[..., b:e, :], tree)
        for begin, end in itertools.pairwise(ends)
    ]


def _summed(layout: Layout, kinds: list[Tree]) -> list[Tree]:
    """Sums over the slots that each thing has, `[*n M B]`, of slots of each kind `[*n S B]`."""

    def summed(things: int, slots: int, x: jax.Array) -> jax.Array:
        *front, _, batch = x.shape
        if not slots:
            return jnp.zeros((*front, things, batch), x.dtype)
        return total(x.reshape(*front, slots, things, batch), axis=-3)

    return [
        jax.tree.map(partial(summed, *group), kind)
        for group, kind in zip(layout.groups(), kinds, strict=True)
    ]


def relative(geometry: Geometry, y: Change) -> Float[Array, "6 S B"]:
    """In each slot the twist of the second body relative to the first."""
    single = y.boxes - _robot_twist_at_boxes(geometry.lever, y.robot)
    double = jnp.zeros_like(y.boxes[:, :0])
    first, second = pairs(geometry.layout.boxes)
    if first:
        double = _take(y.boxes, second) - _shifted(geometry.link, _take(y.boxes, first))
    return stored(_per_slot(geometry.layout, (_spatial(y.robot), y.boxes, single, double)))


def newton(system: System, start: Change) -> tuple[Change, Int[Array, " B"]]:
    """The minimiser of the energy, and the iterations it took."""
    batch = start.robot.shape[-1]
    bias = system.rows.bias
    eps = jnp.finfo(start.robot.dtype).eps
    tolerance = (100 * eps * jnp.abs(bias[0]).max(0)) ** 2

    def unfinished(carry):
        _, _, done, iterations = carry
        return ~done.all() & (iterations.max() < MAX_ITERATIONS)

    @partial(jax.jit, inline=True)  # to be traced once for both loops
    def improve(carry):
        y, value, done, iterations = carry
        gradient = stored(_gradient(system, y, value))
        step = stored(_newton_step(_hessian(system, value), gradient))
        change = stored(_components(system, step))
        decrement = -_inner(gradient, step)
        t, exact = _line_search(system, y, value, step, change, decrement)
        t = jnp.where(done, 0, t)
        y, value = jax.tree.map(lambda a, d: a + t * d, (y, value), (step, change))
        finished = done | (decrement <= tolerance) | exact
        return stored((y, value, finished, iterations + ~done))

    value = _components(system, start) + bias
    done = jnp.zeros((batch,), bool)
    carry = (start, value, done, jnp.zeros((batch,), jnp.int32))
    # An accelerator's host waits for the answer whether there is another iteration. Some member of
    # a large group nearly always needs a few, so that it need not ask before.
    unasked = partial(jax.lax.fori_loop, 0, _UNASKED, lambda _, carry: improve(carry))
    carry = jax.lax.platform_dependent(carry, cpu=lambda carry: carry, default=unasked)
    y, _, _, iterations = jax.lax.while_loop(unfinished, improve, carry)
    return y, iterations


def _components(system: System, y: Change) -> Float[Array, "6 S B"]:
    """What the contacts see of accelerations, without bias."""
    return contact.components(system.rows.slide, system.rows.turn, relative(system.geometry, y))


def _spatial(robot: Float[Array, "3 B"]) -> Float[Array, "6 B"]:
    """The robot's twist with all six components."""
    zero = jnp.zeros_like(robot[0])
    return jnp.stack([robot[0], robot[1], zero, zero, zero, robot[2]])


def _of_robot(x: Float[Array, "6 *s"]) -> Float[Array, "3 *s"]:
    """The components that the robot has, of the six of a wrench."""
    return jnp.stack([x[0], x[1], x[5]])


def _take(x: jax.Array, members: list[int]) -> jax.Array:
    """Members along the second axis."""
    return jnp.stack([x[:, i] for i in members], axis=1)


def _inner(a: Change, b: Change) -> Float[Array, " B"]:
    return dot(a.robot, b.robot) + _over_boxes(dot(a.boxes, b.boxes))


def _over_boxes(x: Float[Array, "K B"]) -> Float[Array, " B"]:
    return total(x) if x.shape[0] else jnp.zeros(x.shape[1:], x.dtype)


def _momentum(system: System, y: Change) -> Change:
    """The product with the mass matrix."""
    angular = system.inertia.angular
    turning = apply(angular, y.boxes[3:])
    return Change(
        apply(system.mass, y.robot),
        jnp.concatenate([system.inertia.mass * y.boxes[:3], turning]),
    )


def _gradient(system: System, y: Change, value: Float[Array, "6 S B"]) -> Change:
    """First derivative of the energy."""
    layout, lever, link = system.geometry
    wrenches = _by_kind(layout, contact.wrench(system.rows, value))
    fixed, ground, single, double = stored(_summed(layout, wrenches))
    momentum = _momentum(system, y)
    boxes = momentum.boxes + ground + single
    first, second = pairs(layout.boxes)
    if first:
        # The transpose of `_shifted`.
        reaction = jnp.concatenate([double[:3], double[3:] + cross(link, double[:3])])
        for p, (i, j) in enumerate(zip(first, second, strict=True)):
            boxes = boxes.at[:, j].add(double[:, p]).at[:, i].add(-reaction[:, p])
    robot = momentum.robot + _of_robot(fixed[:, 0])
    if layout.boxes:
        robot = robot - total(_wrench_on_robot(lever, single), axis=1)
    return Change(robot, boxes)


def _wrench_on_robot(lever: Float[Array, "2 K B"], wrench: Float[Array, "6 K B"]) -> jax.Array:
    """Wrenches on boxes' centres as forces on the robot's freedoms.

    The transpose of `_robot_twist_at_boxes`.
    """
    x, y = wrench[0], wrench[1]
    return jnp.stack([x, y, wrench[5] + lever[0] * y - lever[1] * x])


def _hessian(system: System, value: Float[Array, "6 S B"]) -> Float[Array, "n n B"]:
    """Second derivative of the energy, the robot first, then the boxes one by one."""
    layout, lever, links = system.geometry
    # Kind by kind: the curvatures of all slots at once would be large, and stored.
    kinds = _by_kind(layout, (system.rows, value))
    curvatures = stored(_summed(layout, [contact.curvature(*kind) for kind in kinds]))
    fixed, ground, single, double = (_joined(*blocks) for blocks in curvatures)
    corner = system.mass + _of_robot(jnp.swapaxes(_of_robot(fixed[:, :, 0]), 0, 1))
    count = layout.boxes
    if count == 0:
        return corner
    coupling = -jnp.stack(
        [
            single[:, 0],
            single[:, 1],
            single[:, 5] + lever[0] * single[:, 1] - lever[1] * single[:, 0],
        ],
        axis=1,
    )
    coupling = stored(coupling)  # [6, 3, K, B]
    corner = corner - total(
        jnp.stack([_wrench_on_robot(lever, coupling[:, i])[:, k] for i in range(3)], axis=1)
        for k in range(count)
    )
    eye = jnp.eye(3, dtype=ground.dtype)[:, :, None, None]
    mass = _joined(
        eye * system.inertia.mass, jnp.zeros_like(ground[:3, :3]), system.inertia.angular
    )
    corner, diagonal = stored((corner, mass + ground + single))
    blocks = {(k, k): diagonal[:, :, k] for k in range(count)}
    right = _shifted_columns(double, links)
    left = jnp.swapaxes(right, 0, 1)
    both = _shifted_columns(left, links)
    for p, (i, j) in enumerate(zip(*pairs(count), strict=True)):
        blocks[j, j] += double[:, :, p]
        blocks[i, i] += both[:, :, p]
        blocks[j, i] = -right[:, :, p]
        blocks[i, j] = -left[:, :, p]
    top = [corner, *(jnp.swapaxes(coupling[:, :, k], 0, 1) for k in range(count))]
    rows = [jnp.concatenate(top, axis=1)]
    for k in range(count):
        row = [coupling[:, :, k], *(blocks[k, other] for other in range(count))]
        rows.append(jnp.concatenate(row, axis=1))
    return jnp.concatenate(rows)


def _joined(linear: jax.Array, mixed: jax.Array, angular: jax.Array) -> Float[Array, "6 6 *s"]:
    top = jnp.concatenate([linear, mixed], axis=1)
    return jnp.concatenate([top, jnp.concatenate([jnp.swapaxes(mixed, 0, 1), angular], axis=1)])


def _shifted_columns(matrix: Float[Array, "6 6 P B"], link: Float[Array, "3 P B"]) -> jax.Array:
    """The product with X, the matrix of `_shifted`, on the right."""
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
    count = gradient.boxes.shape[1]
    flat = [gradient.robot, *(gradient.boxes[:, k] for k in range(count))]
    table = jnp.concatenate([hessian, -jnp.concatenate(flat)[:, None]], axis=1)
    solution = solve_positive(stored(table))
    boxes = [solution[3 + 6 * k : 9 + 6 * k] for k in range(count)]
    return Change(solution[:3], jnp.stack(boxes, axis=1) if boxes else gradient.boxes)


def solve_positive(table: Float[Array, "n m B"]) -> Float[Array, "n B"]:
    """Solves A x = b for positive definite A, given `table` = [A, b], without pivoting."""
    if table.shape[0] <= _UNROLLED:
        return eliminate(table)
    # The straight line takes a CPU's compiler long; on an accelerator each turn of a loop is
    # several launches.
    return jax.lax.platform_dependent(table, cpu=_eliminate_in_turn, default=eliminate)


def _eliminate_in_turn(table: Float[Array, "n m B"]) -> Float[Array, "n B"]:
    """`solve_positive` as a loop, by Gauss and Jordan."""

    def one(j, table):
        row = table[j] / table[j, j]
        rest = table - table[:, j][:, None] * row[None]
        return jax.lax.dynamic_update_index_in_dim(rest, row, j, axis=0)

    return jax.lax.fori_loop(0, table.shape[0], one, table)[:, -1]


def eliminate(table: Float[Array, "n m B"]) -> Float[Array, "n B"]:
    """Solves A x = b for positive definite A, given `table` = [A, b], by straight-line code."""
    n = table.shape[0]
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
    value: Float[Array, "6 S B"],
    step: Change,
    change: Float[Array, "6 S B"],
    decrement: Float[Array, " B"],
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """How far to go, and whether that is the minimum: a full step that flips no row.

    A full step, or, where the energy's slope has not fallen tenfold there, one Newton step on the
    slope from there. That suffices: more care saves no iterations.
    """
    momentum = _momentum(system, step)
    terms = _line_terms(system.rows, value, change)
    bend = _inner(momentum, step)
    slope, bend, flips = _inner(momentum, y) + bend + terms[0], bend + terms[1], terms[2]
    full = jnp.abs(slope) <= 0.1 * decrement
    bend = jnp.maximum(bend, jnp.finfo(bend.dtype).tiny)  # 0 where nothing is left to do
    t = jnp.where(full, bend, jnp.where(slope < bend, bend - slope, bend / 2)) / bend
    return t, full & (flips == 0)


def _line_terms(contacts: Rows, value: jax.Array, change: jax.Array) -> Float[Array, "3 B"]:
    """Slope and bend of the penalty after a full step, and a number that is 0 if no row flips."""
    new = value + change
    plus, minus = contact.violation(new)
    slope = change[0] * total(plus + minus) + dot(change[1:], plus - minus)
    now_plus, now_minus = contact.active(new)
    was_plus, was_minus = contact.active(value)
    bend = dot(now_plus, (change[0] + change[1:]) ** 2)
    bend += dot(now_minus, (change[0] - change[1:]) ** 2)
    flips = total(jnp.abs(now_plus - was_plus) + jnp.abs(now_minus - was_minus))
    terms = stored([contacts.stiffness * x for x in (slope, bend, flips)])
    return jnp.stack([total(x) for x in terms])
