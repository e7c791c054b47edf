"""The command `tunnel` with a wall clock that can be set while it runs.

python -m tests.support.clock_program FILE ARGUMENTS…

FILE holds the seconds by which the clock is ahead of the machine's. It is read at each look at the
clock, as libfaketime does with FAKETIME_TIMESTAMP_FILE. Other clocks are the machine's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def shift_clock(file: Path) -> None:
    """Before anything takes `time.time` or `time.time_ns` for itself."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + int(file.read_text())
    time.time_ns = lambda: nanoseconds() + int(file.read_text()) * 10**9


if __name__ == "__main__":
    shift_clock(Path(sys.argv.pop(1)))
    from tunnel.cli.entry import run

    run()
