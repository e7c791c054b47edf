"""The file of a listening socket: whose it is, and when it goes."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

import trio

log = logging.getLogger("tunnel")

_IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF = 0x40, 0x200, 0x400  # sys/inotify.h
_LOOK_AGAIN = 1.0
"""Seconds between two looks at a file that the machine cannot watch for us."""


class SocketFile:
    """The file of a socket that we listen on: ours until it is removed or replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = _identity(path)

    @property
    def is_there(self) -> bool:
        """Whether the file is still the one it was."""
        return self._identity is not None and _identity(self.path) == self._identity

    def remove(self) -> None:
        """Remove the file, unless another has its place; idempotent."""
        if self.is_there:
            self.path.unlink(missing_ok=True)

    async def wait_removed(self) -> None:
        """Return once the file is gone or is another one."""
        watch = _watch_folder(self.path.parent)
        if watch is None:
            while self.is_there:
                await trio.sleep(_LOOK_AGAIN)
            return
        try:
            # Looked at after the watch began, so that nothing falls in between.
            while self.is_there:
                await trio.lowlevel.wait_readable(watch)
                os.read(watch, 65536)
        finally:
            os.close(watch)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _watch_folder(folder: Path) -> int | None:
    """An inotify descriptor that is readable when something leaves `folder`; None without one."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None  # the user's limit of inotify instances
    mask = _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), mask) < 0:
        log.debug("cannot watch %s: %s", folder, os.strerror(ctypes.get_errno()))
        os.close(descriptor)
        return None
    return descriptor
