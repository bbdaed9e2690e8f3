"""What a GPU is told to do does not grow; `helpers/h100.py` says what has to be installed.

After a change that is meant to change a count, `helpers/launches.py` writes it down again.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import h100
import launches
import pytest

HELPERS = Path(__file__).parent / "helpers"
DATA = Path(__file__).parent / "data" / "launches"
RECORDED = [json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))]


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


@pytest.mark.slow
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda x: f"{x['task']}-{x['algo']}")
def test_no_more_is_begun_than_was(recorded, tmp_path):
    """With loops as long as they were when it was written down."""
    if not h100.is_installed():
        pytest.skip(f"{h100.PACKAGE} is not installed")
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps(recorded))
    command = [sys.executable, str(HELPERS / "launches.py"), "--again", str(path)]
    environment = os.environ | h100.ENVIRONMENT
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    now = json.loads(done.stdout)
    for stage in ("step", "update"):
        for kind, by_part in now[stage].items():
            for part, number in by_part.items():
                assert number <= recorded[stage][kind].get(part, 0) + 0.1, (stage, kind, part)
