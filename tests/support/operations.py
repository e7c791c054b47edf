"""Work counted in calls of functions: the same on a quick machine, a slow one and a busy one."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, Self, TypeVar

import pytest
import trio

from tunnel.control import timeslice

T = TypeVar("T")

CALLS_OF_A_SLICE = 5_000
"""What is taken to fit into a time slice: some 0.2 µs each on a common machine."""


class Operations:
    """`count` calls were made in this thread while entered: Python functions, C functions and turns
    of generators. Loops without a call are not seen.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1


def operations(work: Callable[[], object]) -> int:
    """How many calls `work` makes."""
    with Operations() as counted:
        work()
    return counted.count


async def longest_turn(
    work: Callable[[], Awaitable[T]], monkeypatch: pytest.MonkeyPatch
) -> tuple[T, float]:
    """What `work` gives, and the most slices that it held the event loop for at a stretch.

    The clock of the time slices goes by calls meanwhile.
    """
    longest = 0
    with monkeypatch.context() as patched, Operations() as counted:
        patched.setattr(
            timeslice,
            "perf_counter",
            lambda: counted.count * timeslice.SLICE / CALLS_OF_A_SLICE,
        )

        async def look() -> None:
            nonlocal longest
            last = counted.count
            while True:
                await trio.lowlevel.checkpoint()
                longest = max(longest, counted.count - last)
                last = counted.count

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.lowlevel.checkpoint()
            found = await work()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    return found, longest / CALLS_OF_A_SLICE
