"""The signals of a daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import trio


async def follow(
    stop: Callable[[], None],
    reload: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stop on SIGTERM and SIGINT, reload on SIGHUP, until cancelled.

    On a terminal SIGHUP means that it was closed, and stops too. A stop does not wait for a reload
    that is under way.
    """
    stopping = {signal.SIGINT, signal.SIGTERM}
    if os.isatty(0):
        stopping.add(signal.SIGHUP)
    with trio.open_signal_receiver(*stopping, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for number in signals:
                if number in stopping:
                    stop()
                else:
                    nursery.start_soon(reload)
