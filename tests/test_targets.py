"""What accelerators are told to do, and what they need for it, does not grow.

`helpers/targets.py` says what has to be installed for the slow tests. After a change that is meant
to change a number, `helpers/launches.py` and `helpers/sizes.py` write it down again.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import launches
import pytest
import targets
import thunks

HELPERS = Path(__file__).parent / "helpers"
DATA = Path(__file__).parent / "data"
LAUNCHES = [json.loads(path.read_text()) for path in sorted((DATA / "launches").glob("*.json"))]
SIZES = [json.loads(line) for line in (DATA / "sizes.jsonl").read_text().splitlines()]


MODULE = """
HloModule by_hand

body.1 (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  p.1 = (s32[], f32[8]{0}) parameter(0)
  x.1 = f32[8]{0} get-tuple-element(p.1), index=1
  moved.1 = f32[8]{0} fusion(x.1), kind=kLoop, calls=f.1, metadata={op_name="jit(f)/vmap(robot)/add"}
  ROOT t.1 = (s32[], f32[8]{0}) tuple(x.1, moved.1)
}

goes_on.1 (p.2: (s32[], f32[8])) -> pred[] {
  p.2 = (s32[], f32[8]{0}) parameter(0)
  ROOT c.1 = pred[] fusion(p.2), kind=kLoop, calls=f.2
}

ENTRY main (x: f32[8]) -> f32[8] {
  x = f32[8]{0} parameter(0)
  first = f32[8]{0} fusion(x), kind=kLoop, calls=f.3
  w.1 = (s32[], /*index=1*/f32[8]{0}) while(first), condition=goes_on.1, body=body.1, backend_config={"known_trip_count":{"n":"10"}}
  w.2 = (s32[], f32[8]{0}) while(w.1), condition=goes_on.1, body=body.1, metadata={op_name="jit(f)/reset/loop:draw_0/while"}
  ROOT last = f32[8]{0} copy(x), metadata={op_name="jit(f)/policy/dot"}
}
"""  # noqa: E501


def test_kernels_and_flags_by_hand():
    """A loop of known length asks nothing; the other asks once more than it goes round."""
    assert launches.count(MODULE, {"draw_0": 2.5}) == {
        "kernels": {"policy": 1, "reset": 3.5, "rest": 1, "robot": 10 + 2.5},
        "reads": {"reset": 3.5},
    }


THUNKS = """
000: kCommandBuffer [source       | next=003 (1)]
    001: kCopy         [source | next=002 (1)] kCopy
    002: kCustomKernel [prev=001 (1) | sink] first grid: [1, 1, 1] threads: [64, 1, 1]
003: kWhile         [prev=000 (1) | next=008 (1)]
condition:
    004: kCustomKernel [source | next=005 (1)] part grid: [1, 1, 1] threads: [64, 1, 1]
    005: kCustomKernel [prev=004 (1) | sink] goes_on grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source | next=007 (1)]
        006: kCustomKernel [source | sink] move grid: [1, 1, 1] threads: [64, 1, 1]
    007: kDynamicSliceFusion params=1, results=1
        008: kCopy [source | sink] kCopy
009: kCommandBuffer [prev=003 (1) | sink]
    010: kWhile         [source | next=013 (1)]
condition:
        011: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1] threads: [1, 1, 1]
      body:
        012: kCustomKernel [source | sink] move grid: [1, 1, 1] threads: [64, 1, 1]
    013: kCopy [prev=010 (1) | sink] kCopy
"""


def test_what_a_host_begins_by_hand():
    loops = [thunks.Loop(2.5, True, []), thunks.Loop(10, False, [])]
    assert thunks.launched(thunks.parse(THUNKS), loops) == thunks.Launched(
        loose=3.5 * 2 + 2.5,  # conditions and slices
        graphs=1 + 2.5 + 1,
        in_graphs=2 + 2.5 + (11 + 11 + 10 + 1),  # in one the GPU decides, which is a kernel too
        reads=3.5,
    )
    # A host that knows how often reads nothing.
    loops = [thunks.Loop(2, False, []), thunks.Loop(10, False, [])]
    assert thunks.launched(thunks.parse(THUNKS), loops) == thunks.Launched(2, 4, 2 + 2 + 33, 0)


def test_loops_are_in_the_order_of_the_program():
    assert launches.loops(MODULE, {"draw_0": 2.5}) == [
        thunks.Loop(10, False, []),
        thunks.Loop(2.5, True, []),
    ]
    assert launches.loops(MODULE, {"draw_0": 2.5}, trip_of_scan=10)[0].trips == 1


def told(target: str, script: str, *arguments: str):
    """What a process that compiles for a target prints."""
    if not targets.is_installed(target):
        pytest.skip(f"{targets.PACKAGES[target]} is not installed")
    command = [sys.executable, str(HELPERS / script), *arguments]
    environment = os.environ | targets.ENVIRONMENT
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("recorded", LAUNCHES, ids=lambda x: f"{x['task']}-{x['algo']}")
def test_no_more_is_begun_than_was(recorded, tmp_path):
    """With loops as long as they were when it was written down."""
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps(recorded))
    now = told("h100", "launches.py", "--again", str(path))
    for stage in ("step", "update"):
        for kind, by_name in now[stage].items():
            for name, number in by_name.items():
                before = recorded[stage][kind].get(name, 0)
                assert number <= before + 0.1, (stage, kind, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recorded", SIZES, ids=lambda x: "-".join((x["target"], x["task"], x["algo"]))
)
def test_an_iteration_compiles_and_needs_no_more_than_it_did(recorded):
    identity = [recorded[name] for name in ("target", "task", "algo")]
    now = told(identity[0], "sizes.py", *identity)
    for name in ("kept_bytes_per_environment", "bytes_per_environment", "program_bytes"):
        assert now[name] <= 1.02 * recorded[name], name
