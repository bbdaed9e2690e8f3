"""What devices tell each other in a compiled program, and in which order."""

import re

_KINDS = re.compile(
    r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?"
)
_CALLED = re.compile(r"(?:body|condition|to_apply|branch_computations|\w+_computation)=([^=]*)")
_OPERATION = re.compile(r"\s+(?:ROOT )?(%[\w.\-]+) = (.*?) ([\w\-]+)\((.*)")
_NAME = re.compile(r"%[\w.\-]+")


def in_computations(program):
    """By computation of a compiled program, its messages: of what kind, and of how many arrays."""
    return {
        name: [(kind, result.count("[")) for _, result, kind, *_ in operations if _is(kind)]
        for name, operations in _computations(program).items()
        if name == "ENTRY" or any(_is(kind) for _, _, kind, *_ in operations)
    }


def unordered(program):
    """Pairs of operations that hold messages, and that devices may begin in either order.

    Those are two of one computation of which neither needs the other, unless both are single
    messages: XLA's runtime keeps these as they come.
    """
    found = _computations(program)

    def holds(name):
        operations = found.get(name, ())
        return any(_is(kind) or any(map(holds, called)) for _, _, kind, _, called in operations)

    pairs = []
    for operations in found.values():
        needs, earlier = {}, []
        for name, _, kind, operands, called in operations:
            needs[name] = operands.union(*(needs.get(each, set()) for each in operands))
            if _is(kind) or any(map(holds, called)):
                others = [other for other, single in earlier if not (single and _is(kind))]
                pairs += [(other, name) for other in others if other not in needs[name]]
                earlier.append((name, _is(kind)))
    return pairs


def _is(kind):
    return _KINDS.fullmatch(kind) is not None


def _computations(program):
    """By name: operations as (name, result, kind, names that it takes, computations it calls)."""
    found, current = {}, []
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            current = found.setdefault(line.split()[0], [])
        elif match := _OPERATION.match(line):
            name, result, kind, rest = match.groups()
            called = {each for group in _CALLED.findall(rest) for each in _NAME.findall(group)}
            current.append((name, result, kind, set(_NAME.findall(rest)) - called, called))
    return found
