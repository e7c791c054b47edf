"""Keep the interpreter itself from stopping packets.

Most of what a daemon drops is freed at once, by its reference count. The rest, cycles, the garbage
collector has to find, and it stops everything while it looks. What it looks through is kept small:

- young objects, up to 6,000 of them, by the interpreter's own rules: less than a millisecond;
- all others after every few of those collections (`THRESHOLDS`). When many have survived, they are
  the configuration and will stay: they are frozen (gc.freeze) and never looked through again.

So memory is flat whatever comes and goes, and a collection looks through no more than the garbage,
what was allocated since the last one, and `MAX_UNFROZEN` objects, however many peers there are.

What is frozen is still freed by its reference count. Only a cycle that is frozen while in use and
dropped later stays for good. A collection freezes nothing unless `MAX_UNFROZEN` objects survived
it, so what such cycles can take is a small part of what the configuration takes. Objects of ours
that live long are in no cycle; tests/integration/daemon/test_garbage.py holds that.

Worker threads share the main heap of the C library: with one of their own, each thread leaves it in
pieces, and the resident memory creeps up although nothing is kept.

Python 3.14 collects in increments, and never all at once: only the first freeze matters there.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Literal

THRESHOLDS = (1_000, 5, 2)
"""Allocations until the youngest are collected, and how many collections of one generation go
before one of the next: at most 18,000 objects reach the oldest between two of its collections."""

MAX_UNFROZEN = 10_000
"""Survivors of a collection of all generations that will be looked through again: 1 ms."""

_OLDEST = 2

_M_ARENA_MAX = -8  # malloc.h of glibc


def avoid_pauses() -> None:
    """Keep the interpreter from stopping for so long that TCP believes a packet was lost.

    For a process that does nothing but carry packets, once its modules are loaded. They leave no
    garbage worth the 40 ms that looking for it would take.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(*THRESHOLDS)
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)
    # Other C libraries have no such function, and no heap for each thread.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
    # Worker threads (routes, files) give the event loop its turn after this long, not after 5 ms.
    sys.setswitchinterval(0.0005)


def _freeze_survivors(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == _OLDEST and _survivors() > MAX_UNFROZEN:
        gc.freeze()


def _survivors() -> int:
    """How many objects are in the oldest generation."""
    # The list of them is made, counted and dropped within one step of the interpreter. Between two
    # steps another thread could run and fail: a tuple being filled may have no other owner.
    return next(map(len, map(gc.get_objects, (_OLDEST,))))
