"""The signals of a daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import trio

ENDING = (
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
)
"""Signals that end a process which does not handle them: the tunnel is taken down in order."""


async def follow(
    stop: Callable[[], None],
    reload: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stop on SIGTERM, SIGINT and the like, reload on SIGHUP, until cancelled.

    On a terminal SIGHUP means that it was closed, and stops too. A stop does not wait for a reload
    that is under way.
    """
    stopping = {signal.SIGINT, signal.SIGTERM}
    stopping |= {number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL}
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
