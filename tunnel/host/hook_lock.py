"""Whether a hook of a daemon that was killed still runs: its processes have a lock from us.

What such a hook does after the undoing would stay: the next command has to wait for its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tunnel.host import record
from tunnel.linux.files import open_plain

PATIENCE = 30.0
"""Seconds that a hook of a killed daemon is waited for."""

_POLL = 0.02
"""Seconds between two attempts to take the lock; flock has no timeout."""


def _path(interface: str) -> Path:
    return record.STATE_DIR / f"{interface}.hook"


@contextlib.contextmanager
def held_by_hook(interface: str) -> Iterator[tuple[int, ...]]:
    """The descriptors that a hook is to inherit, for the time that it runs; none if there can be
    none, as on a full disk: no hook should fail for that.
    """
    path = _path(interface)
    try:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError:
        yield ()
        return
    try:
        with contextlib.suppress(BlockingIOError):
            # Shared: a hook of a peer may run beside those of the tunnel.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield (descriptor,)
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        # Also for what it leaves in the background, which has inherited it and may stay for long.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def wait_for_hook(interface: str, seconds: float = PATIENCE) -> bool:
    """Whether no hook of a killed daemon runs any more, for which it waits so long. Blocks."""
    path = _path(interface)
    try:
        descriptor = open_plain(path, os.O_RDWR)
    except OSError:
        return True
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL)
            else:
                return True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
