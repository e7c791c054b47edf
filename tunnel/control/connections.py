"""Connections of a listening socket, each given to a handler."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable

import trio

MAX_CONNECTIONS = 32

_ACCEPT_AGAIN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE = 0.1
"""Seconds until the next attempt when the machine is out of something that others may give back."""


async def serve_connections(
    listener: socket.socket, handler: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    """Give each connection to `handler`, at most `MAX_CONNECTIONS` at a time, until cancelled.

    A client that goes away, whenever, ends its own connection and nothing else.
    """
    limit = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream, limit:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await handler(stream)

    acceptor = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with acceptor, trio.open_nursery() as nursery:
        while True:
            try:
                stream = await acceptor.accept()
            except OSError as error:
                if error.errno not in _ACCEPT_AGAIN:
                    raise
                await trio.sleep(_ACCEPT_PAUSE)
            else:
                nursery.start_soon(handle, stream)
