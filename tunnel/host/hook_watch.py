"""What ends a hook that does not end by itself: its time limit, or a tunnel that has to go down."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

GRACE = 5.0
"""Seconds that a hook may go on when the tunnel is asked to stop."""

ENDING = 2.0
"""Seconds between SIGTERM and SIGKILL for a hook that is ended."""


class HookStopper:
    """Ends the hook that runs with it. `stop` may be called at any time, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: int | None = None

    def stop(self) -> None:
        """Give the hook that runs, if one does, GRACE seconds; when called again, none."""
        with self._lock:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    @contextmanager
    def listening(self) -> Iterator[int]:
        """An eventfd that counts the calls of `stop`."""
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._lock:
            self._wake = wake
        try:
            yield wake
        finally:
            with self._lock:
                self._wake = None
            os.close(wake)


@dataclass(frozen=True, slots=True)
class HookLimits:
    """A hook is ended after `seconds` (0: never), or when `stopper` says so.

    It runs in a session, and so in a process group, of its own: all of that is ended.
    """

    seconds: float = 0
    stopper: HookStopper = field(default_factory=HookStopper)


class HookWatch:
    """Waits for the end of the process `pid` of a hook, and brings it about if it has to.

    `why` says why it was ended, and `remedy` what helps; empty for one that ended by itself.
    """

    def __init__(self, pid: int, limits: HookLimits | None) -> None:
        self.why = ""
        self.remedy = ""
        self._pid = pid
        self._limits = limits
        seconds = limits.seconds if limits is not None else 0
        self._deadline = time.monotonic() + seconds if seconds else None
        self._asked = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._ended = os.pidfd_open(self._pid)
            stack.callback(os.close, self._ended)
            self._selector.register(self._ended, selectors.EVENT_READ)
            self._wake = -1
            if self._limits is not None:
                self._wake = stack.enter_context(self._limits.stopper.listening())
                self._selector.register(self._wake, selectors.EVENT_READ)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch_output(self, descriptor: int) -> None:
        """Let `wait` return when there is something to read, too."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def forget_output(self, descriptor: int) -> None:
        """The output is at its end, though the process may run on."""
        self._selector.unregister(descriptor)

    def wait(self) -> bool:
        """Wait until something happens; whether it is the end of the process."""
        now = time.monotonic()
        timeout = None if self._deadline is None else max(0.0, self._deadline - now)
        ready = {key.fd for key, _ in self._selector.select(timeout)}
        if self._ended in ready:
            return True
        now = time.monotonic()
        if self._wake in ready:
            self._asked += os.eventfd_read(self._wake)
            hurried = now + (GRACE if self._asked == 1 else 0.0)
            self._deadline = hurried if self._deadline is None else min(hurried, self._deadline)
        if self._deadline is not None and now >= self._deadline:
            self._end()
            self._deadline = now + ENDING
        return False

    def _end(self) -> None:
        number = signal.SIGKILL if self.why else signal.SIGTERM
        if not self.why:
            self.why, self.remedy = self._reason()
        # The process is not waited for yet, so the number is its own still.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _reason(self) -> tuple[str, str]:
        assert self._limits is not None
        if self._asked:
            return "ended, as the tunnel was asked to stop", "make it end by itself"
        return (
            f"ended, as it ran for more than {self._limits.seconds:g} s",
            "make it end by itself, or give it more with HookTimeout = SECONDS in section [Tunnel]",
        )
