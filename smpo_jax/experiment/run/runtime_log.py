"""What JAX's runtime writes of processes that train together, brought down to one line.

    python runtime_log.py < what the process writes

It runs as a process of its own, since the runtime, when it has lost another process, ends its own
at once: no code of that one's runs any more. Of dozens of lines one remains, which was left for the
case. All else that is written goes on to stderr as it is.
"""

import re
import sys
from collections.abc import Iterable, Iterator

LAST_WORDS = "\x01"  # before what is to be said if the runtime ends the process
WORDS = "\x02"  # before what the process itself says of its end; the last words fall away

_RECORD = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ ([\w.]+):\d+\]")
_OF_PROCESSES = {
    "client.h",
    "add_port.cc",
    "coordination_service.cc",
    "coordination_service_agent.cc",
    "preemption_sync_manager.cc",
}


def told(lines: Iterable[str]) -> Iterator[str]:
    """The lines that a person is to see."""
    last_words, drops, ended = "", False, False
    for line in lines:
        record = _RECORD.match(line)
        if line.startswith(LAST_WORDS):
            last_words = line[1:]
        elif line.startswith(WORDS):
            if not ended:
                yield line[1:]
            ended = True
        elif record:
            drops = record[2] in _OF_PROCESSES
            if drops and record[1] == "F" and not ended:
                yield last_words
                ended = True
            elif not drops:
                yield line
        elif not drops and not line.startswith("[Gloo]"):  # or the rest of a record
            yield line


if __name__ == "__main__":
    sys.stdin.reconfigure(errors="replace")  # pyrefly: ignore[missing-attribute]
    for _line in told(sys.stdin):
        sys.stderr.write(_line)
        sys.stderr.flush()
