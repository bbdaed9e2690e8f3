"""One order, on every device, of all that they do together.

XLA's runtime for CPUs begins whatever has its inputs, and for the order of what devices do together
a loop that has begun counts as done. So where an update holds a loop with sums over devices, and
another such loop or sum that does not depend on it, one device could wait in the one and the next
device in the other: runs hung (PPO with two devices in each of seven runs, within 30 iterations),
and gloo, between processes, took the messages of one for those of the other.

Here each loop of an update is made to depend on all that can be done without it, and on the loop
before it, so that nothing is left to choose.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.sharding import Mesh
from jaxtyping import Array, Float

from smpo_jax.training import devices

Result = TypeVar("Result")

_LOOPS = ("while", "scan", "cond")
_INLINED = ("jit", "pjit")  # as JAX's versions name it
_SMALL = 2**17  # entries of an array that is as good as free to copy
_NEVER = -1.37e-31  # if all sums of an update were this, its networks would change by 1e-6 of them


def in_order(f: Callable[..., Result], mesh: Mesh | None) -> Callable[..., Result]:
    """The same function, whose loops come one after the other, each after all that needs none.

    Args:
        f: of arrays, and traced. It is about loops that are not within a loop: of those the data
            must say the order.
        mesh: the devices; None, and devices that are not CPUs, leave `f` as it is.
    """
    if mesh is None or mesh.devices.flat[0].platform != "cpu":
        return f

    def ordered(*args: Any) -> Result:
        program, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
        results = _run(program, jax.tree.leaves(args), mesh)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return ordered


class _Step(NamedTuple):
    """An operation of a program, by the numbers of the values it takes and gives."""

    eqn: JaxprEqn
    takes: Sequence[int | Literal]
    gives: Sequence[int]
    is_loop: bool


class _Steps:
    """A program as one list of operations, with the functions written out that hold loops."""

    def __init__(self):
        self.steps: list[_Step] = []
        self.constants: dict[int, Any] = {}
        self._count = 0

    def new(self, count: int) -> list[int]:
        """Numbers for values to come."""
        self._count += count
        return list(range(self._count - count, self._count))

    def add(self, program: ClosedJaxpr, takes: Sequence[int | Literal]) -> list[int | Literal]:
        """Writes a program out; the numbers of its results."""
        jaxpr = program.jaxpr
        constants = self.new(len(jaxpr.constvars))
        self.constants.update(zip(constants, program.consts, strict=True))
        numbers: dict[Var, int | Literal] = {
            **dict(zip(jaxpr.invars, takes, strict=True)),
            **dict(zip(jaxpr.constvars, constants, strict=True)),
        }

        def number(atom: Var | Literal) -> int | Literal:
            return atom if isinstance(atom, Literal) else numbers[atom]

        for eqn in jaxpr.eqns:
            needs = [number(atom) for atom in eqn.invars]
            is_loop = _holds_loop(eqn)
            if is_loop and eqn.primitive.name in _INLINED:
                gives = self.add(eqn.params["jaxpr"], needs)
            else:
                gives = self.new(len(eqn.outvars))
                self.steps.append(_Step(eqn, needs, gives, is_loop))
            numbers.update(zip(eqn.outvars, gives, strict=True))
        return [number(atom) for atom in jaxpr.outvars]


def _holds_loop(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name in _LOOPS:
        return True
    inner = [x for x in eqn.params.values() if isinstance(x, (ClosedJaxpr, Jaxpr))]
    return any(_holds_loop(each) for program in inner for each in program.eqns)


def _run(program: ClosedJaxpr, args: Sequence[Any], mesh: Mesh) -> list[Any]:
    """What the program gives: until a loop is next, all that can be done without; then the loop."""
    written = _Steps()
    takes = written.new(len(args))
    results = written.add(program, takes)
    values = {**dict(zip(takes, args, strict=True)), **written.constants}

    def value(atom: int | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    def take(step: _Step, inputs: Sequence[Any]) -> list[Any]:
        # As a program of its own, since how else it is done is not the same in all versions of JAX.
        eqn = step.eqn
        given = {v: x for v, x in zip(eqn.invars, inputs, strict=True) if isinstance(v, Var)}
        alone = program.jaxpr.replace(
            constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
        )
        outputs = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())
        values.update(zip(step.gives, outputs, strict=True))
        return outputs

    todo: list[_Step] = written.steps
    before: list[Any] = []
    while todo:
        later = []
        for step in todo:
            if step.is_loop or any(isinstance(n, int) and n not in values for n in step.takes):
                later.append(step)
                continue
            outputs = take(step, list(map(value, step.takes)))
            if _brings_together(step.eqn):
                before += outputs
        todo = later[1:]
        for loop in later[:1]:
            before = take(loop, _after(before, list(map(value, loop.takes)), mesh))
    return list(map(value, results))


def _brings_together(eqn: JaxprEqn) -> bool:
    """Whether it makes less of more, as a sum over devices does."""

    def size(atoms: Sequence[Any]) -> int:
        return max((atom.aval.size for atom in atoms), default=0)

    return size(eqn.outvars) < size(eqn.invars)


def _after(before: Sequence[Any], inputs: list[Any], mesh: Mesh) -> list[Any]:
    """The inputs of a loop, which wait for all that came before.

    They are chosen by a condition that never holds, which no compiler knows. XLA takes
    `optimization_barrier` out before it orders. More than one waits, since the first values of some
    are not looked at; large ones do not, since they would be copied.
    """
    scalars = [_scalar(x) for x in before if _is_number(x)]
    if not scalars:
        return inputs
    never = jnp.all(devices.replicate(jnp.stack(scalars), mesh) == _NEVER)

    smallest = min((x.size for x in inputs if _is_float(x)), default=0)

    def waiting(x: Any) -> Any:
        waits = _is_float(x) and x.size <= max(_SMALL, smallest)
        return jnp.where(never, x * (1 + 1e-6), x) if waits else x

    return list(map(waiting, inputs))


def _scalar(x: Array) -> Float[Array, ""]:
    return jnp.sum(x.astype(jnp.float32))


def _is_number(x: Any) -> bool:
    return x.size > 0 and not jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.size > 0 and jnp.issubdtype(x.dtype, jnp.floating)
