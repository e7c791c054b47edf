"""The socket that `wg` talks to: WireGuard's UAPI, served for a running engine."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from tunnel.control import uapi
from tunnel.control.socket_file import SocketFile
from tunnel.control.uapi import DeviceState
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_set import UapiError
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.device import configure
from tunnel.device.endpoints import Names
from tunnel.engine import Engine
from tunnel.errors import DaemonError

log = logging.getLogger("tunnel")

RUN_FOLDER = Path("/var/run/wireguard")
"""Where `wg` looks for sockets."""

PATIENCE = 10.0
"""Seconds that a set waits for a reload to end, or for the hooks of a tunnel that goes down."""


def socket_path(name: str) -> Path:
    """Where the daemon of interface `name` answers `wg`."""
    return RUN_FOLDER / f"{name}.sock"


@contextlib.asynccontextmanager
async def wireguard_socket(
    name: str,
    running: Callable[[], Engine],
    changing: trio.Lock,
    stop: Callable[[], None],
    names: Names,
) -> AsyncIterator[None]:
    """Serve `wg` for the time of the `async with`.

    `running` gives the engine or raises DaemonError; `changing` is held by whoever changes it;
    `names` are the conf's.
    `stop` is called when somebody removes the socket, which tells a userspace WireGuard to leave.
    A tunnel works without: where the socket cannot be made, the log says so and that is all.
    """
    path = socket_path(name)
    try:
        listener = bind_unix_socket(path)
    except OSError as error:
        log.warning("wg cannot be used on %s: %s: %s", name, path, error.strerror)
        yield
        return
    file = SocketFile(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uapi.serve, listener, EngineDevice(running, changing, names))
            nursery.start_soon(stop_when_removed, file, stop)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
        file.remove()


async def stop_when_removed(file: SocketFile, stop: Callable[[], None]) -> None:
    """Call `stop` once somebody has removed or replaced the file of the socket."""
    await file.wait_removed()
    log.info("%s was removed: leaving", file.path)
    stop()


class EngineDevice:
    """A running engine as the UAPI sees it. See `wireguard_socket`."""

    def __init__(
        self, running: Callable[[], Engine], changing: trio.Lock, names: Names | None = None
    ) -> None:
        self._running = running
        self._names = names
        self._changing = changing
        # Not `changing`: a get waits for no reload.
        self._applying = trio.Lock()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        """The state, not while a set is changing it. Raises UapiError before the tunnel is up."""
        async with self._applying:
            engine = self._engine()
            yield DeviceState(engine.interface, engine.udp.port, engine.udp.fwmark)

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        """Apply all of `changes` in order. Raises UapiError, UdpError: then nothing has changed."""
        try:
            with trio.fail_after(PATIENCE):
                await self._changing.acquire()
        except trio.TooSlowError:
            raise UapiError(errno.EBUSY, "something else is changing the tunnel") from None
        try:
            async with self._applying:
                await configure.apply(self._engine(), changes, self._names)
        finally:
            self._changing.release()

    def _engine(self) -> Engine:
        try:
            return self._running()
        except DaemonError as error:
            raise UapiError(errno.ENODEV, str(error)) from None
