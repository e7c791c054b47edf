"""Unix stream sockets as this room serves them: bound for root only, accepted within bounds."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

log = logging.getLogger("tunnel.control")

MAX_CONNECTIONS = 32

_ACCEPT_AGAIN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE = 0.1
"""Seconds until the next attempt when the machine is out of something that others may give back."""

_IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF = 0x40, 0x200, 0x400  # sys/inotify.h
_LOOK_AGAIN = 1.0
"""Seconds between two looks at a file that the machine cannot watch for us."""


def bind_unix_socket(path: Path, *, folder_mode: int = 0o755) -> socket.socket:
    """Listen on `path`, mode 0600, replacing a socket nobody listens on any more.

    Raises OSError(EADDRINUSE) when somebody does, and OSError as the kernel gives it otherwise.
    """
    path.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
            else:
                raise OSError(errno.EADDRINUSE, "another process is listening", str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(MAX_CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


async def serve_connections(
    listener: socket.socket, handler: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    """Hand every connection to `handler` until cancelled, at most `MAX_CONNECTIONS` at a time.

    A connection is closed when its handler returns. A client that has gone ends only its own.
    """
    limit = trio.Semaphore(MAX_CONNECTIONS)

    async def serve_one(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await handler(stream)
        finally:
            limit.release()

    acceptor = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with acceptor, trio.open_nursery() as nursery:
        while True:
            # Before accepting: who has to wait does so in the kernel's queue, which is bounded.
            await limit.acquire()
            nursery.start_soon(serve_one, await _accept(acceptor))


async def _accept(acceptor: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await acceptor.accept()
        except OSError as error:
            if error.errno not in _ACCEPT_AGAIN:
                raise
        await trio.sleep(_ACCEPT_PAUSE)


class SocketFile:
    """The file of a socket that we listen on: ours as long as nobody removes or replaces it."""

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
