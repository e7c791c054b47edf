"""Our command with its garbage collector watched: python -m tests.support.watched_program FILE …

After the arguments of the command, two signals ask for what is written to FILE as JSON:

- SIGUSR1: the longest stop of the collector since the signal before (or the start), and its counts;
  times are of its thread, so that other programs on a busy machine do not count;
- SIGUSR2: what no collection has freed since the signal before, by type. The first one unfreezes
  and collects everything, then turns the collector off; after each of them garbage is kept until
  the next, so that nothing that comes and goes is missed.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal

NO_PAUSES = {"longest_ms": 0.0, "total_ms": 0.0, "collections": 0, "full": 0, "collected": 0}


class Cycle:
    """Garbage of this program's own: one is made after each report, so the next must find it."""

    itself: Cycle


def main() -> None:
    path = Path(sys.argv.pop(1))
    started = 0.0
    pauses = dict(NO_PAUSES)

    def write(found: object) -> None:
        # Whole, or not there: who waits for it reads it at once.
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(found))
        unfinished.rename(path)

    def watch(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = time.thread_time()
            return
        took = (time.thread_time() - started) * 1_000
        pauses["longest_ms"] = max(pauses["longest_ms"], took)
        pauses["total_ms"] += took
        pauses["collections"] += 1
        pauses["full"] += info["generation"] == 2
        pauses["collected"] += info["collected"]

    def report_pauses(*_: object) -> None:
        write({**pauses, "frozen": gc.get_freeze_count()})
        pauses.update(NO_PAUSES)

    def report_garbage(*_: object) -> None:
        first = gc.isenabled()
        gc.disable()
        gc.callbacks.clear()
        gc.unfreeze()
        if first:
            gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = Counter(f"{type(it).__module__}.{type(it).__qualname__}" for it in gc.garbage)
        gc.garbage.clear()
        gc.collect()
        cycle = Cycle()
        cycle.itself = cycle
        write(kinds)

    signal.signal(signal.SIGUSR1, report_pauses)
    signal.signal(signal.SIGUSR2, report_garbage)
    gc.callbacks.append(watch)
    from tunnel.cli.entry import run

    run()


if __name__ == "__main__":
    main()
