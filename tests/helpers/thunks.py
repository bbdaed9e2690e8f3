"""What XLA's runtime does with a compiled GPU program: kernels alone, CUDA graphs, loops.

XLA puts kernels that follow one another into a *command buffer*, a CUDA graph that its host begins
as a whole. That is decided after the last HLO, so that only XLA's dump of *thunks* shows it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Thunk(NamedTuple):
    """One line of a dump.

    Attributes:
        kind: as XLA calls it.
        inner: of a graph or a loop what is done in it.
        condition: of a loop what is done to know whether it goes on.
    """

    kind: str
    inner: list["Thunk"]
    condition: list["Thunk"]


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
        trips: how often it goes round.
        asks: whether its end depends on values.
        inner: the loops in it, in order.
    """

    trips: float
    asks: bool
    inner: list["Loop"]


class Launched(NamedTuple):
    """What is begun in one run of a program.

    Attributes:
        loose: kernels that the host begins one by one.
        graphs: that it begins.
        in_graphs: kernels that these hold; one more for each turn of a loop in a graph, which sets
            whether there is another.
        reads: flags that the host waits for.
    """

    loose: float
    graphs: float
    in_graphs: float
    reads: float


LOOP, GRAPH, SLICES = "kWhile", "kCommandBuffer", "kDynamicSliceFusion"
_LINE = re.compile(r"^( *)(?:(condition|body):|\d+: (k\w+).*)$")


def parse(text: str) -> list[Thunk]:
    """The thunks of a dump (`*.thunk_sequence_after_thunk_passes.txt`)."""
    top = Thunk("", [], [])
    above = [(-1, top, top.inner)]  # indent, thunk, and where what it encloses goes
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        indent, label, kind = len(found[1]), found[2], found[3]
        if label == "condition":  # right behind its loop
            outer, loop, _ = above.pop()
            above.append((outer, loop, loop.condition))
        elif label == "body":  # two to the right of its loop
            while above[-1][0] > indent - 2:
                above.pop()
            outer, loop, _ = above.pop()
            above.append((outer, loop, loop.inner))
        else:
            while above[-1][0] >= indent:
                above.pop()
            thunk = Thunk(kind, [], [])
            above[-1][2].append(thunk)
            above.append((indent, thunk, thunk.inner))
    return top.inner


def launched(thunks: list[Thunk], loops: list[Loop]) -> Launched:
    """Counts what is begun; `loops` are those of the same program, in its order."""
    total = dict.fromkeys(Launched._fields, 0.0)

    def walk(thunks: list[Thunk], loops: Iterator[Loop], times: float, in_graph: bool) -> None:
        for thunk in thunks:
            if thunk.kind == GRAPH:
                total["graphs"] += times
                walk(thunk.inner, loops, times, True)
            elif thunk.kind == LOOP:
                go_round(thunk, next(loops), times, in_graph)
            elif thunk.inner and thunk.kind != SLICES:
                raise NotImplementedError(f"what {thunk.kind} does with {thunk.inner}")
            else:
                total["in_graphs" if in_graph else "loose"] += times

    def go_round(thunk: Thunk, loop: Loop, times: float, in_graph: bool) -> None:
        inner = iter(loop.inner)
        asked = times * (loop.trips + 1)
        if in_graph:
            total["in_graphs"] += asked
            walk(thunk.condition, iter(()), asked, True)
        elif loop.asks:  # the host counts the others
            total["reads"] += asked
            walk(thunk.condition, iter(()), asked, False)
        walk(thunk.inner, inner, times * loop.trips, in_graph)
        finished(inner)

    def finished(loops: Iterator[Loop]) -> None:
        assert next(loops, None) is None, "a loop of the program that is no thunk"

    of_program = iter(loops)
    walk(thunks, of_program, 1, False)
    finished(of_program)
    return Launched(**total)
