"""Keep the interpreter itself from stopping packets."""

from __future__ import annotations

import gc
import sys


def avoid_pauses() -> None:
    """Keep the interpreter from stopping for so long that TCP believes a packet was lost.

    For a process that does nothing but carry packets, once everything is loaded.
    """
    # What is loaded stays: looking through it for garbage takes 40 ms each time.
    gc.collect()
    gc.freeze()
    # Of what comes later little is looked at at a time; all of it, very seldom.
    gc.set_threshold(2_000, 5, 1_000)
    # Worker threads (routes, files) give the event loop its turn after this long, not after 5 ms.
    sys.setswitchinterval(0.0005)
