"""Processes by the network namespace that they are in, and their end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable


def netns_inode(path: str) -> int | None:
    """The inode that identifies the network namespace at `path`; None if it is gone."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def pids_in(inode: int) -> list[int]:
    """Processes whose network namespace has this inode, without the caller itself."""
    own = os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        if netns_inode(f"/proc/{entry}/ns/net") == inode:
            found.append(int(entry))
    return found


def end_processes(pids: Iterable[int], *, grace: float = 2.0) -> None:
    """End exactly these processes: SIGTERM, and SIGKILL for what is left after `grace` seconds.

    Returns when all of them are gone. Children of ours are not reaped here: the owner of
    their Popen does that. Raises TimeoutError when one survives SIGKILL for five seconds.
    """
    descriptors: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptors[pid] = os.pidfd_open(pid)
        for sign, bound in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for descriptor in descriptors.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, sign)
            _wait_gone(descriptors, bound)
            if not descriptors:
                return
        raise TimeoutError(f"processes {sorted(descriptors)} did not end after SIGKILL")
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _wait_gone(descriptors: dict[int, int], bound: float) -> None:
    """Wait up to `bound` seconds; what has ended is closed and taken out of `descriptors`."""
    end = time.monotonic() + bound
    while descriptors:
        poller = select.poll()
        for descriptor in descriptors.values():
            poller.register(descriptor, select.POLLIN)
        remaining = end - time.monotonic()
        ready = {number for number, _ in poller.poll(max(0.0, remaining) * 1000)}
        for pid, descriptor in list(descriptors.items()):
            if descriptor in ready:
                os.close(descriptor)
                del descriptors[pid]
        if remaining <= 0:
            return
