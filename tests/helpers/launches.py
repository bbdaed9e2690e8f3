"""What a GPU does for a step and for an update: kernels that run, flags that its host reads.

Counted in the program that XLA compiles for an H100, which needs no GPU (see `targets`), as are
those that the host begins one by one (see `thunks`). How often loops run whose end depends on
values is measured here, on a CPU that runs the same program.

    JAX_PLATFORMS=cpu python tests/helpers/launches.py PointGoal1 ppo --out counts.json

Parts are the named scopes of the code (`jax.named_scope`), which profilers show too.
"""

import argparse
import collections
import contextlib
import itertools
import json
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import targets
from accelerator import shaped_for_an_accelerator
from thunks import Launched, Loop, launched, parse

import smpo_envs
import smpo_jax as sx
from smpo_envs.safety_gym import solver
from smpo_jax.training.rollout import collect

ENVIRONMENTS = 65_536
ROLLOUT = 32
MEASURED_IN = 8192  # environments in which trips are measured, unless said
WARM_UP, MEASURED = 300, 10  # steps; at first nothing is near anything

# Time on an H100, s, by the model that the counts are for: of a kernel that is begun by itself, of
# a CUDA graph, of a kernel in one, and of a flag that is read before anything else can be begun.
COST = Launched(loose=4e-6, graphs=10e-6, in_graphs=2e-6, reads=15e-6)

PARTS = ("policy", "robot", "contact", "reset")
REST = "rest"
Counts = dict[str, dict[str, float]]


# Programs ---------------------------------------------------------------------------------------


class Programs(NamedTuple):
    """A step of all environments, and an update, with the shapes of their arguments."""

    start: Any
    play: Any
    learn: Any
    state: Any
    rollout: Any


def programs(task: str, algo: str, num_envs: int, steps: int) -> Programs:
    """What is counted."""
    env = smpo_envs.VectorEnv(sx.augment(smpo_envs.make(task), algo), num_envs)
    spec = sx.make_spec(env, rollout_length=steps, total_iterations=100)
    algorithm = sx.make(algo, spec)

    def start(key):
        learner_key, env_key = jax.random.split(key)
        return algorithm.init(learner_key), env.reset(env_key)

    def play(learner, env_state, key):
        return collect(algorithm.policy(learner), env, env_state, key, steps)

    def learn(learner, env_state, transition, key):
        tracking = sx.start_tracking(spec)
        _, rollout = sx.track(spec, tracking, transition)
        return algorithm.update(learner, rollout, key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(start, key)
    rollout = jax.eval_shape(play, *state, key)
    return Programs(start, play, learn, (*state, key), (state[0], *rollout, key))


# Loops whose trips depend on values ---------------------------------------------------------------


@contextlib.contextmanager
def named_loops(record: Mapping[str, list[int]] | None = None) -> Iterator[None]:
    """Where each `while` loop that is traced has a name of its own, and may tell of its trips.

    Args:
        record: where trips are noted when the program runs; None: nowhere.
    """
    original = jax.lax.while_loop
    number = collections.defaultdict(itertools.count)

    def while_loop(go_on, body, start):
        place = body.__qualname__.split(".")[0].strip("_")
        name = f"{place}_{next(number[place])}"
        if record is None:
            with jax.named_scope(f"loop:{name}"):
                return original(go_on, body, start)
        trips, end = original(
            lambda carry: go_on(carry[1]),
            lambda carry: (carry[0] + 1, body(carry[1])),
            (jnp.int32(0), start),
        )
        _note(record[name], trips)
        return end

    with mock.patch.object(jax.lax, "while_loop", while_loop):
        yield


def _note(trips_of_loop: list[int], trips: jax.Array) -> None:
    """Notes the trips of a loop; of a batch of loops, which go on together, the most."""

    @jax.custom_batching.custom_vmap
    def note(trips):
        jax.debug.callback(lambda trips: trips_of_loop.append(int(trips)), trips)
        return trips

    @note.def_vmap
    def _(size, batched, trips):
        del size, batched
        return note(trips.max()), False

    note(trips)


def measured_trips(task: str, algo: str, num_envs: int) -> dict[str, dict[str, float]]:
    """The mean trips of each loop, in steps under random actions and in a first update."""
    whole = programs(task, algo, num_envs, MEASURED)
    learner, env_state = jax.jit(whole.start)(jax.random.key(0))
    with _nothing_written_out():
        step_trips, play = _noted(whole.play, *whole.state)
        update_trips, learn = _noted(whole.learn, *whole.rollout)
    *warm_up, key = jax.random.split(jax.random.key(1), 1 + WARM_UP // MEASURED)
    for other in warm_up:
        env_state, _ = jax.block_until_ready(play(learner, env_state, other))
    jax.effects_barrier()
    for seen in step_trips.values():
        seen.clear()
    env_state, transition = play(learner, env_state, key)
    jax.block_until_ready(learn(learner, env_state, transition, jax.random.key(2)))
    jax.effects_barrier()
    stages = {"step": step_trips, "update": update_trips}
    return {
        # A loop within one that never ran has told of nothing.
        stage: {name: round(statistics.fmean(seen or [0]), 2) for name, seen in record.items()}
        for stage, record in stages.items()
    }


@contextlib.contextmanager
def _nothing_written_out() -> Iterator[None]:
    """Where programs for accelerators are such that a CPU's compiler is done within minutes."""
    original = jax.lax.fori_loop

    def fori_loop(lower, upper, body, start, **_):
        return original(lower, upper, body, start)

    in_turn = mock.patch.object(solver, "eliminate", solver._eliminate_in_turn)
    with shaped_for_an_accelerator(), in_turn, mock.patch.object(jax.lax, "fori_loop", fori_loop):
        yield


def _noted(function, *arguments) -> tuple[dict[str, list[int]], Any]:
    """A compiled function, and the trips of its loops whenever it has run."""
    record = collections.defaultdict(list)
    jax.clear_caches()  # of the same function, traced before
    with named_loops(record):
        lowered = jax.jit(function).lower(*arguments)
    return record, lowered.compile()


# Counting ---------------------------------------------------------------------------------------

# Instructions that are nothing when the program runs.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_FREE |= {"opt-barrier", "partition-id", "replica-id", "copy-done", "async-done"}
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.*)$")
_OPERATION = re.compile(r"(?<![\w.\-])([a-z][a-z0-9\-]*)\(")


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The instructions of each computation of an HLO module, and the name of the first."""
    found, entry, name = {}, "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if head:
            name = head[2]
            found[name] = []
            entry = name if head[1] else entry
        elif line.startswith("  ") and name:
            found[name].append(line.strip())
    return found, entry


def count(text: str, trips: Mapping[str, float], trip_of_scan: int = 1) -> Counts:
    """Kernels and reads of one run of a compiled program, by part.

    Args:
        text: the optimised HLO.
        trips: of the loops that only values end.
        trip_of_scan: a loop of that known length counts once: the steps of a rollout.
    """
    bodies, entry = computations(text)
    totals: dict[str, dict[str, float]] = {
        "kernels": collections.defaultdict(float),
        "reads": collections.defaultdict(float),
    }

    def walk(computation: str, times: float, part: str) -> None:
        for operation, line in _operations(bodies[computation]):
            scopes = _scopes(line)
            own = next((p for p in PARTS if p in scopes), part)
            if operation == "while":
                number, asks = _turns(line, trips, trip_of_scan)
                if asks:
                    totals["reads"][own] += times * (number + 1)
                    walk(_called(line, "condition"), times * (number + 1), own)
                walk(_called(line, "body"), times * number, own)
            elif operation in _CALLS:
                walk(_called(line, "to_apply|calls"), times, own)
            elif operation == "conditional":
                raise NotImplementedError(f"a branch that the host decides: {line[:200]}")
            else:
                totals["kernels"][own] += times

    walk(entry, 1, REST)
    return {kind: dict(sorted(by_part.items())) for kind, by_part in totals.items()}


def loops(text: str, trips: Mapping[str, float], trip_of_scan: int = 1) -> list[Loop]:
    """The loops of a compiled program, in the order in which they run; arguments as `count`."""
    bodies, entry = computations(text)

    def within(computation: str) -> Iterator[Loop]:
        for operation, line in _operations(bodies[computation]):
            if operation == "while":
                inner = list(within(_called(line, "body")))
                yield Loop(*_turns(line, trips, trip_of_scan), inner)
            elif operation in _CALLS:
                yield from within(_called(line, "to_apply|calls"))

    return list(within(entry))


_CALLS = ("call", "async-start")


def _operations(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The operations that are more than nothing when the program runs, each with its line."""
    for line in lines:
        stated = _INSTRUCTION.match(line)
        operation = stated and _OPERATION.search(stated[1])
        if operation and operation[1] not in _FREE:
            yield operation[1], line


def _scopes(line: str) -> list[str]:
    """The named scopes of an instruction, also those within `vmap(contact)`."""
    name = re.search(r'op_name="([^"]*)"', line)
    return re.findall(r"[\w:]+", name[1]) if name else []


def _turns(line: str, trips: Mapping[str, float], trip_of_scan: int) -> tuple[float, bool]:
    """How often a loop goes round, and whether only values say so."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    if known:
        number = int(known[1])
        return (1 if number == trip_of_scan else number), False
    loop = [scope for scope in _scopes(line) if scope.startswith("loop:")][-1]
    return trips[loop.removeprefix("loop:")], True


def _called(line: str, key: str) -> str:
    """The computation that an instruction names under one of some keys."""
    found = re.search(rf"\b(?:{key})=%?([\w.\-]+)", line)
    assert found, line
    return found[1]


# Each way in which a program may be compiled, and whether it has loops in graphs.
WAYS = {"loops_apart": False, "loops_in_graphs": True}


def counted(
    task: str, algo: str, num_envs: int, trips: Mapping[str, Mapping[str, float]]
) -> dict[str, Counts]:
    """What a step and an update of `num_envs` environments are: by part, and as begun."""
    whole = programs(task, algo, num_envs, ROLLOUT)
    stages = {
        "step": (whole.play, whole.state, ROLLOUT),
        "update": (whole.learn, whole.rollout, 1),
    }
    found = {}
    for stage, (function, arguments, trip_of_scan) in stages.items():
        with shaped_for_an_accelerator(), named_loops():
            lowered = targets.lowered("h100", function, *arguments)
        both = {way: targets.told(lowered, loops_in_graphs=inside) for way, inside in WAYS.items()}
        found[stage] = count(both["loops_apart"].hlo, trips[stage], trip_of_scan) | {
            way: launched(
                parse(program.thunks), loops(program.hlo, trips[stage], trip_of_scan)
            )._asdict()
            for way, program in both.items()
        }
    return found


def seconds(begun: Mapping[str, float]) -> float:
    """Time by the model, of what is begun."""
    return sum(cost * begun[name] for name, cost in COST._asdict().items())


def report(
    task: str, algo: str, num_envs: int, trips: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """All that is known of a task and a method, for a file."""
    counts = counted(task, algo, num_envs, trips)
    model = {}
    for way in WAYS:
        step, update = (seconds(counts[stage][way]) for stage in ("step", "update"))
        model[way] = {
            "steps_per_second": round(num_envs / step),
            "training_steps_per_second": round(num_envs * ROLLOUT / (ROLLOUT * step + update)),
        }
    return {
        "task": task,
        "algo": algo,
        "environments": num_envs,
        "rollout": ROLLOUT,
        "trips": trips,
        **{
            stage: {
                kind: {name: round(value, 1) for name, value in by.items()}
                for kind, by in counts[stage].items()
            }
            for stage in counts
        },
        "model": model,
    }


def main() -> None:
    """Counts, tells and writes a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?")
    parser.add_argument("algo", nargs="?", default="ppo")
    parser.add_argument("--num-envs", type=int, default=ENVIRONMENTS)
    parser.add_argument("--measured-in", type=int, default=MEASURED_IN)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", type=Path, help="a file with the trips that loops are to have")
    options = parser.parse_args()
    if options.again:
        before = json.loads(options.again.read_text())
        of_what = (before["task"], before["algo"], before["environments"])
        trips, measured_in = before["trips"], before["trips_measured_in"]
    else:
        of_what = (options.task, options.algo, options.num_envs)
        measured_in = options.measured_in
        trips = measured_trips(options.task, options.algo, measured_in)
    found = report(*of_what, trips) | {"trips_measured_in": measured_in}
    found = json.dumps(found, indent=2) + "\n"
    print(found, end="")
    if options.out:
        options.out.write_text(found)


if __name__ == "__main__":
    main()
