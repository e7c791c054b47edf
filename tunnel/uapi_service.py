"""The UAPI socket of a running engine, for `wg` and all that is built on it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import trio

from tunnel.control import uapi
from tunnel.control.unix_socket import SocketFile, bind_unix_socket
from tunnel.engine import Engine
from tunnel.settings import Settings


async def serve_uapi(
    engine: Engine, listener: socket.socket, lock: trio.Lock | None = None
) -> None:
    """Answer on `listener` until cancelled. `lock`: see `Settings`."""
    await uapi.serve(listener, Settings(engine, lock))


@contextlib.asynccontextmanager
async def uapi_socket(
    engine: Engine, name: str, lock: trio.Lock | None = None
) -> AsyncIterator[None]:
    """Serve the interface `name` where `wg` looks for it, for the time of the `async with`.

    Raises OSError when the socket cannot be made.
    """
    path = uapi.socket_path(name)
    listener = bind_unix_socket(path)
    file = SocketFile(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_uapi, engine, listener, lock)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
        file.remove()
