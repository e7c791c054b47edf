"""The socket on which `wg` finds a device: WireGuard's UAPI, and what its removal means."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

import trio

from tunnel.control import uapi
from tunnel.control.socket_file import SocketFile
from tunnel.control.uapi import DeviceState
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_grammar import UapiError
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.device.device import Device
from tunnel.errors import DaemonError

log = logging.getLogger("tunnel")

UAPI_FOLDER = Path("/var/run/wireguard")
"""Where `wg` looks for sockets."""


def socket_path(name: str) -> Path:
    """Where the daemon of interface `name` answers `wg`."""
    return UAPI_FOLDER / f"{name}.sock"


class UapiSocket:
    """A listening socket for `wg`. `file` is None for one without a name in the file system."""

    def __init__(self, listener: socket.socket, file: SocketFile | None) -> None:
        self._listener = listener
        self._file = file

    @classmethod
    def bind(cls, name: str) -> Self:
        """Listen where `wg` looks for the interface `name`. Raises OSError."""
        path = socket_path(name)
        return cls(bind_unix_socket(path), SocketFile(path))

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """Take over a listening unix socket. Raises DaemonError if it is none."""
        try:
            listener = socket.socket(fileno=descriptor)
            listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise DaemonError(
                f"descriptor {descriptor} is not a socket: {error.strerror}"
            ) from error
        if listener.family != socket.AF_UNIX or not listening:
            listener.detach()
            raise DaemonError(f"descriptor {descriptor} is not a listening Unix socket")
        listener.setblocking(False)
        listener.set_inheritable(False)
        bound = listener.getsockname()
        named = isinstance(bound, str) and bound != ""
        return cls(listener, SocketFile(Path(bound)) if named else None)

    def close(self) -> None:
        """Stop listening, and remove the file if it is still ours."""
        if self._file is not None:
            self._file.remove()
        self._listener.close()

    async def serve(self, device: uapi.UapiDevice, stop: Callable[[], None]) -> None:
        """Answer for `device` until cancelled. `stop` is called once the file has been removed or
        replaced, which asks a userspace WireGuard to leave.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uapi.serve, self._listener, device)
            if self._file is not None:
                await self._file.wait_removed()
                log.info("%s was removed: leaving", self._file.path)
                stop()


class AwaitedDevice:
    """A device that is not there yet, or no longer: `wg` is answered ENODEV while it is None."""

    def __init__(self) -> None:
        self.device: Device | None = None

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """As `Device.reading`. Raises UapiError while there is none."""
        return self._there().reading()

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        """As `Device.apply`. Raises UapiError while there is none."""
        await self._there().apply(changes)

    def _there(self) -> Device:
        if self.device is None:
            raise UapiError(errno.ENODEV, "the tunnel is still being set up, or is going down")
        return self.device


@contextlib.asynccontextmanager
async def uapi_served(name: str, stop: Callable[[], None]) -> AsyncIterator[AwaitedDevice]:
    """Serve `wg` for the time of the `async with`, for the device that it gives; `stop` as for
    `UapiSocket.serve`.

    A tunnel works without: where the socket cannot be made, the log says so and that is all.
    """
    awaited = AwaitedDevice()
    try:
        served = UapiSocket.bind(name)
    except OSError as error:
        log.warning("wg cannot be used on %s: %s: %s", name, socket_path(name), error.strerror)
        yield awaited
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.serve, awaited, stop)
            yield awaited
            nursery.cancel_scope.cancel()
    finally:
        served.close()
